"""What every verification does: compare the file with PyTorch in two precisions, case by case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

from ..errors import InputError
from ..runtime import Model
from .expected import Arrays, Expected
from .mutants import Target
from .replay import replay
from .report import CaseResult, Cause, Location
from .sizes import Axes
from .user_data import complete_feeds

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
    """A case that was run: on which models, with what inputs, what PyTorch gives, and the result."""

    models: Models[Any]
    case: Any
    expected: Expected
    result: CaseResult


Planned: TypeAlias = tuple[Models[Any], Any, Expected]
"""A comparison before the file has run: the models, the case, and what PyTorch gives for it."""


class Verification(ABC):
    """The verification of a file against the PyTorch module that it came from.

    A bare nn.LSTM and any other module differ in how cases are drawn, how PyTorch is run, and how a difference is
    diagnosed; the rest is here.

    Attributes:
        models: the file, and both runs of the module.
        notes: what the report should mention.
        compared: the comparisons so far; those on amplified weights have `models` of their own.
        started: when the verification began, by `time.perf_counter`.
    """

    models: Models[Any]
    chaotic_note: str
    """How inconclusive cases were made up for."""

    def __init__(self, model: Model, module: Any, seed: int) -> None:
        self.started = perf_counter()
        self.model = model
        self.module = module
        self.seed = seed
        self.axes = Axes.of(model.metadata)
        self.notes: list[str] = []
        self.compared: list[Comparison] = []

    @property
    @abstractmethod
    def planned(self) -> int:
        """The number of cases, without those that follow an inconclusive one."""

    @property
    @abstractmethod
    def amplified(self) -> Target | None:
        """The file with amplified weights and its cases; None where the weights are large enough or not found."""

    def harder(self) -> Iterator[Target]:
        """Further cases for mutants that the others do not reject, each with the file that they are for."""
        return iter(())

    @abstractmethod
    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """Where the file first differs and the likely causes, as far as they can be determined."""

    def explained(self, models: Models[Any], expected: Expected) -> Expected | None:  # noqa: ARG002 - of modules
        """A case that failed, with what a right file may give there; None where the file is wrong."""
        return None

    @abstractmethod
    def _comparisons(self) -> Iterator[Planned | CaseResult]:
        """Comparisons to run, and results that need no run."""

    def results(self) -> Iterator[CaseResult]:
        """Run the cases one by one."""
        for item in self._comparisons():
            if isinstance(item, CaseResult):
                yield item
                continue
            models, case, expected = item
            result = replay(models.file, expected)
            if not (result.passed or result.inconclusive):
                explained = self.explained(models, expected)
                if explained is not None:
                    expected, result = explained, replay(models.file, explained)
            self.compared.append(Comparison(models, case, expected, result))
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
        """Note that the module's weights are not those that the file was exported from, where that is so."""
        if self.model.metadata.digest not in (None, digest):
            self.notes.append("the file was exported from other weights than these (its digest differs)")


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
