"""The base of every verification: compares the file with PyTorch in two precisions, case by case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

from ..errors import InputError
from ..input_spec import InputSpec
from ..runtime import Model
from ..runtime.run import complete_feeds
from .cases import Case
from .expected import Arrays, Expected
from .mutants.self_test import Target
from .replay import replay
from .results import OTHER_WEIGHTS, CaseResult, Cause, Location

T = TypeVar("T")


@dataclass(frozen=True)
class Models(Generic[T]):
    """A file, and its PyTorch module in its native precision and in float64.

    The native run of a float64 module is in float32: there is no wider reference than itself, so its rounding
    error is float32's, scaled down.
    """

    file: Model
    native: T
    float64: T


@dataclass(frozen=True)
class Comparison:
    """A case that was run: the models, PyTorch's outputs, and the result."""

    models: Models[Any]
    expected: Expected
    result: CaseResult


Planned: TypeAlias = tuple[Models[Any], Expected]
"""A comparison before the file has run: the models, and PyTorch's outputs."""


class Verification(ABC):
    """The verification of a file against the PyTorch module that it came from.

    A bare nn.LSTM, any other module and a generating file differ in how cases are drawn, how PyTorch is run, and
    which mistakes may explain a difference; the rest is here.

    Attributes:
        models: the file, and both runs of the module.
        notes: what the report should mention.
        compared: the comparisons so far; those on amplified weights have `models` of their own.
        started: when the verification began, by `time.perf_counter`.
    """

    models: Models[Any]
    specs: Sequence[InputSpec] = ()
    """The inputs that are not states."""
    chaotic_note: str
    """What was compared instead of inconclusive cases."""

    def __init__(self, model: Model, module: Any, seed: int) -> None:
        self.started = perf_counter()
        self.model = model
        self.module = module
        self.seed = seed
        self.notes: list[str] = []
        self.compared: list[Comparison] = []

    @property
    @abstractmethod
    def planned(self) -> int:
        """The number of cases, without those that replace an inconclusive one."""

    @property
    @abstractmethod
    def amplified(self) -> Target | None:
        """The file with amplified weights, or with another stop token, and its cases; None where it is not needed."""

    def harder(self) -> Iterator[Target]:
        """Further cases for mutants that no other case rejects, each with the file to which it belongs."""
        return iter(())

    @abstractmethod
    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """Where the file first differs and the likely causes, as far as they can be determined."""

    def probed(self, case: Case) -> tuple[Expected, bool] | None:
        """PyTorch's outputs if a number is not finite, and whether an operator of the file hides that.

        None where it is not tried, or the module does not run on it.
        """
        del case
        return None

    def explained(self, models: Models[Any], expected: Expected) -> Expected | None:  # noqa: ARG002 - of modules
        """A failed case, widened by what a right file may also give in it; None if the file is wrong."""
        return None

    def with_ties(self, models: Models[Any], expected: Expected) -> Expected:  # noqa: ARG002 - of modules
        """A case in which some integers differ, with the integers that rounding explains."""
        return expected

    def with_near_ties(self, expected: Expected) -> Expected:
        """A case for a golden file, with all integers that rounding may give, as far as that is known."""
        return expected

    @abstractmethod
    def _comparisons(self) -> Iterator[Planned | CaseResult]:
        """Comparisons to run, and results that need no run."""

    def results(self) -> Iterator[CaseResult]:
        """Run the cases one by one."""
        for item in self._comparisons():
            if isinstance(item, CaseResult):
                yield item
                continue
            models, expected = item
            result = replay(models.file, expected)
            if not (result.passed or result.inconclusive):
                explained = self.explained(models, expected)
                if explained is not None:
                    expected, result = explained, replay(models.file, explained)
            elif any(tensor.tipped for tensor in result.tensors):
                expected = self.with_ties(models, expected)
                result = replay(models.file, expected)
            self.compared.append(Comparison(models, expected, result))
            yield result

    @property
    def pairs(self) -> list[tuple[Expected, CaseResult]]:
        """The cases of the file as it is and their results so far."""
        return [(done.expected, done.result) for done in self.compared if done.models is self.models]

    @property
    def expected(self) -> list[Expected]:
        """The cases of the file as it is that were run so far."""
        return [expected for expected, _ in self.pairs]

    def note_digest(self, digest: str) -> None:
        """Add a note if the module's weights are not those that the file was exported from."""
        if self.model.metadata.digest not in (None, digest):
            self.notes.append(OTHER_WEIGHTS)


def user_case(model: Model, index: int, feeds: Mapping[str, Any]) -> tuple[str, Arrays]:
    """The label of a case on the user's own inputs, and the arrays as `Model.run` takes them.

    Raises:
        InputError: they do not fit the file.
    """
    label = f"data {index}"
    try:
        return label, complete_feeds(model, feeds)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
