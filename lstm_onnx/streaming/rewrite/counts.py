"""How many steps of a value exist after m steps of the input: compositions of floor, max and min.

Every such function is monotone, and its growth is periodic from some m on, so a finite range of m decides equality
and bounds for *all* m.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import lcm

from .errors import RefusedError

MOST_STEPS = 2**18
"""The length of the longest range that is checked; a count that needs more is refused."""


class TooLongError(RefusedError):
    """A count's period is longer than `MOST_STEPS` steps."""


@dataclass(frozen=True)
class Count(ABC):
    """The number of steps of a value.

    `available(m)` steps exist after m steps of the input.  Once the sequence has ended, there are `total(m)`.
    """

    @property
    @abstractmethod
    def rate(self) -> Fraction:
        """Steps per step of the input, in the long run."""

    @property
    @abstractmethod
    def period(self) -> int:
        """From `settled` on, this many steps of the input always give the same number of steps."""

    @property
    @abstractmethod
    def settled(self) -> int:
        """The m from which growth is periodic."""

    @abstractmethod
    def value(self, m: int, *, ended: bool) -> int:
        """`total(m)` or `available(m)`."""

    def available(self, m: int) -> int:
        """The steps that exist after m steps of the input."""
        return self.value(m, ended=False)

    def total(self, m: int) -> int:
        """The steps of a whole sequence of m steps."""
        return self.value(m, ended=True)

    @cached_property
    def is_input(self) -> bool:
        """Whether each step of the input immediately gives a step of the value."""
        return isinstance(self, Input)

    @cached_property
    def at_start(self) -> int:
        """The steps that exist before the first step of the input: padding."""
        return self.available(0)

    @cached_property
    def ends_early(self) -> bool:
        """Whether nothing is left to come when the input ends."""
        return all(self.available(m) == self.total(m) for m in span(self))

    def __hash__(self) -> int:
        """By structure; computed once."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((type(self).__name__, *(getattr(self, name) for name in self.__dataclass_fields__)))


@dataclass(frozen=True)
class Input(Count):
    """The count of the input itself."""

    rate = Fraction(1)
    period = 1
    settled = 0
    __hash__ = Count.__hash__

    def value(self, m: int, *, ended: bool) -> int:
        """The count of the input is `m` itself."""
        del ended
        return m


@dataclass(frozen=True)
class Stage(Count):
    """``max(source * times + plus, 0) // by``; once the sequence has ended, `at_end` is added to `plus`."""

    source: Count
    times: int = 1
    plus: int = 0
    at_end: int = 0
    by: int = 1
    __hash__ = Count.__hash__

    @cached_property
    def rate(self) -> Fraction:
        """Steps per step of the input."""
        return self.source.rate * self.times / self.by

    @cached_property
    def period(self) -> int:
        """See `Count`."""
        return bounded(lcm(self.source.period, self.rate.denominator, _whole(self.source, self.times, self.by)))

    @cached_property
    def settled(self) -> int:
        """See `Count`."""
        low = min(self.plus, self.plus + self.at_end)
        return bounded(max(self.source.settled, least_input(self.source, -(low // self.times))))

    def value(self, m: int, *, ended: bool) -> int:
        """See `Count`."""
        return _stage_value(self, m, ended)


@dataclass(frozen=True)
class Gate(Count):
    """No steps until the source has `need` steps; from then on `plus` more than the source."""

    source: Count
    need: int
    plus: int
    __hash__ = Count.__hash__

    @cached_property
    def rate(self) -> Fraction:
        """Steps per step of the input."""
        return self.source.rate

    @cached_property
    def period(self) -> int:
        """See `Count`."""
        return self.source.period

    @cached_property
    def settled(self) -> int:
        """See `Count`."""
        return bounded(max(self.source.settled, least_input(self.source, self.need)))

    def value(self, m: int, *, ended: bool) -> int:
        """See `Count`."""
        have = self.source.value(m, ended=ended)
        return have + self.plus if have >= self.need else 0


@dataclass(frozen=True)
class Least(Count):
    """The least of several counts of equal rate."""

    sources: tuple[Count, ...]
    __hash__ = Count.__hash__

    @cached_property
    def rate(self) -> Fraction:
        """Steps per step of the input."""
        return self.sources[0].rate

    @cached_property
    def period(self) -> int:
        """See `Count`."""
        return bounded(lcm(*(source.period for source in self.sources)))

    @cached_property
    def settled(self) -> int:
        """See `Count`."""
        return max(source.settled for source in self.sources)

    def value(self, m: int, *, ended: bool) -> int:
        """See `Count`."""
        return _least_value(self, m, ended)


@lru_cache(2**16)
def _stage_value(stage: Stage, m: int, ended: bool) -> int:
    have = stage.source.value(m, ended=ended) * stage.times + stage.plus + (stage.at_end if ended else 0)
    return max(have, 0) // stage.by


@lru_cache(2**16)
def _least_value(least: Least, m: int, ended: bool) -> int:
    return min(source.value(m, ended=ended) for source in least.sources)


def _whole(source: Count, times: int, by: int) -> int:
    """Periods of the source until its steps times `times` are a multiple of `by`."""
    steps = source.rate * source.period * times
    return source.period * lcm(int(steps), by) // int(steps)


def least_input(source: Count, steps: int) -> int:
    """The least number of steps of the input after which `steps` steps of the source are available."""
    if source.available(0) >= steps:
        return 0
    low, high = 0, 1
    while source.available(high) < steps:
        low, high = high, bounded(high * 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if source.available(middle) >= steps else (middle, high)
    return high


def bounded(steps: int) -> int:
    """`steps`, if that is not too many.

    Raises:
        TooLongError: it is too many.
    """
    if steps > MOST_STEPS:
        raise TooLongError(f"its steps repeat only after {steps} steps of the input")
    return steps


def span(*counts: Count) -> range:
    """The range of m that decides a property of these counts for all m."""
    return range(bounded(max(count.settled for count in counts) + 2 * lcm(*(count.period for count in counts)) + 1))


def equal(one: Count, other: Count) -> bool:
    """Whether two values always have equally many steps, before and after the end."""
    if one == other:
        return True
    if one.rate != other.rate:
        return False
    return all(one.value(m, ended=e) == other.value(m, ended=e) for m in span(one, other) for e in (False, True))


def total_multiple(counts: list[Count]) -> int | None:
    """The least k such that all totals are equal for every multiple of k steps of the input; None if there is none."""
    if len({count.rate for count in counts}) > 1:
        return None
    period = bounded(lcm(*(count.period for count in counts)))
    start = max(count.settled for count in counts)
    base = -(-start // period) * period + period
    fits = [len({count.total(base + m) for count in counts}) == 1 for m in range(period)]
    # For sequences shorter than `start`, the whole model gives nothing or fails.
    divisors = (k for k in range(1, period + 1) if period % k == 0)
    return next((k for k in divisors if all(fits[::k])), None)


def largest_lead(ahead: Count, behind: Count) -> int:
    """The most steps by which one value may be ahead of another of equal rate."""
    return max(0, *(ahead.available(m) - behind.available(m) for m in span(ahead, behind)))


def largest_rest(count: Count) -> int:
    """The most steps that come only once the input has ended, of sequences that are long enough for all stages."""
    return max(count.total(m) - count.available(m) for m in span(count)[count.settled :])


def least_rest(count: Count) -> int:
    """The steps that come only once the input has ended, however long it is."""
    return min(count.total(m) - count.available(m) for m in span(count))
