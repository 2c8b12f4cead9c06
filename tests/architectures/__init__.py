"""The acceptance set of the exporter of whole modules: models with nn.LSTM inside, as people write them."""

from tests.architectures import (
    acoustic,
    carried,
    cells,
    classifiers,
    containers,
    forecasters,
    mixed,
    packed,
    seq2seq,
    stateful,
    taggers,
)
from tests.architectures.architecture import Architecture

__all__ = ["ALL", "Architecture"]

ALL: tuple[Architecture, ...] = (
    *taggers.ARCHITECTURES,
    *classifiers.ARCHITECTURES,
    *packed.ARCHITECTURES,
    *acoustic.ARCHITECTURES,
    *seq2seq.ARCHITECTURES,
    *forecasters.ARCHITECTURES,
    *carried.ARCHITECTURES,
    *stateful.ARCHITECTURES,
    *cells.ARCHITECTURES,
    *containers.ARCHITECTURES,
    *mixed.ARCHITECTURES,
)
