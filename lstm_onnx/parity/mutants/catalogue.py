"""Lists the mistakes that an exporter can make, each as an edit of a model that reports whether it applies."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ...onnxgraph.recurrent import RecurrentLayer
from . import generating, partial, scans, unread, weights, wiring
from .equivalence import Outcome
from .graph_edit import Edit

_ORDER = {"LSTM": "iofc", "GRU": "zrh"}
"""ONNX's order of the gates."""


@dataclass(frozen=True)
class Mutator:
    """A kind of mutant.

    `apply` changes a model at a recurrent layer, or (`once`) outside of them, and gives the outcome.  `quick` says
    whether a quick self-test tries it, `streams` whether only runs that carry states can detect it; `kinds` are the
    kinds of cases that most likely detect it, and that run first.  `replace` puts any number where it changes
    something.
    """

    name: str
    apply: Callable[[Edit, RecurrentLayer], Outcome]
    quick: bool = True
    once: bool = False
    streams: bool = False
    kinds: tuple[str, ...] = ()
    replace: unread.Replace | None = None


def _gate_pairs(op_type: str, quick: set[str]) -> list[Mutator]:
    order = _ORDER[op_type]
    return [
        Mutator(
            f"gates {order[first]} and {order[second]} exchanged",
            functools.partial(weights.swapped_gates, first, second, op_type),
            quick=order[first] + order[second] in quick,
        )
        for first, second in itertools.combinations(range(len(order)), 2)
    ]


MUTATORS: tuple[Mutator, ...] = (
    *_gate_pairs("LSTM", {"io", "of", "fc"}),
    *_gate_pairs("GRU", {"zr", "rh"}),
    Mutator("R transposed", weights.transposed_recurrent, replace=unread.replace_recurrent),
    Mutator("input bias dropped", functools.partial(weights.bias, (0.0, 1.0))),
    Mutator("recurrent bias dropped", functools.partial(weights.bias, (1.0, 0.0))),
    Mutator("both biases dropped", functools.partial(weights.bias, (0.0, 0.0)), quick=False),
    Mutator("bias added twice", functools.partial(weights.bias, (2.0, 2.0))),
    Mutator("W too large", functools.partial(weights.too_large, lambda layer: layer.W), quick=False),
    Mutator(
        "R too large",
        functools.partial(weights.too_large, lambda layer: layer.R, recurrent=True),
        quick=False,
        replace=unread.replace_recurrent,
    ),
    Mutator("directions exchanged", weights.exchanged_directions),
    Mutator("projection misordered", weights.misordered_projection),
    Mutator("peepholes dropped", weights.dropped_peepholes),
    Mutator("peepholes misordered", weights.misordered_peepholes),
    Mutator("reset gate misplaced", weights.misplaced_reset, quick=False),
    Mutator("run backwards", wiring.backwards),
    Mutator("reverse input unreversed", functools.partial(wiring.unreversed, "scan_input_directions")),
    Mutator("reverse output unreversed", functools.partial(wiring.unreversed, "scan_output_directions")),
    Mutator("initial h ignored", functools.partial(wiring.ignored_state, "h")),
    Mutator("initial c ignored", functools.partial(wiring.ignored_state, "c")),
    Mutator("initial h and c exchanged", functools.partial(wiring.swapped_states, RecurrentLayer.initial)),
    Mutator("final h and c exchanged", functools.partial(wiring.swapped_states, RecurrentLayer.final)),
    *(
        Mutator(
            f"{end.__name__} {state} of two layers exchanged", functools.partial(wiring.exchanged_layers, state, end)
        )
        for end in (RecurrentLayer.initial, RecurrentLayer.final)
        for state in "hc"
    ),
    Mutator("lengths ignored", wiring.ignored_lengths, replace=unread.replace_padding),
    Mutator("lengths one step off", wiring.one_step_off, replace=unread.replace_one_step_off),
    Mutator("other activations", wiring.other_activations),
    Mutator("a carry of a loop unchanged", scans.stale_carry, once=True),
    Mutator("a loop of one step more", scans.one_step_more, once=True),
    Mutator("a loop's elements one step late", scans.stale_element, once=True),
    Mutator("one step more", generating.one_step_more, once=True),
    Mutator("a state of the step unchanged", generating.stale_state, once=True),
    Mutator("the prompt fed to every step", generating.same_input, once=True),
    Mutator("the end of a sequence ignored", generating.ignored_stop, once=True),
    Mutator("states changed after the end", generating.changed_after_stop, once=True),
    Mutator("the smallest number chosen", generating.smallest, once=True),
    Mutator("temperature ignored", generating.ignored_temperature, once=True),
    Mutator("the first noise for every step", generating.first_noise, once=True),
    Mutator("batch baked in", functools.partial(wiring.baked, "batch"), once=True),
    Mutator("time baked in", functools.partial(wiring.baked, "time"), once=True),
    Mutator("output reversed in time", wiring.reversed_output, once=True),
    Mutator("wrong past some time", partial.past_a_size, once=True, kinds=("sweep",)),
    Mutator("wrong at one batch size", partial.at_one_size, once=True, kinds=("sweep",)),
    Mutator("wrong for large inputs", partial.for_large_numbers, once=True, kinds=("values",)),
    Mutator("one row of a table wrong", partial.in_one_row, once=True, kinds=("sweep",)),
    Mutator("another dtype of an output", partial.other_dtype, once=True),
    Mutator("streams' states mispaired", wiring.mispaired, once=True, streams=True),
    Mutator("a cache of earlier steps stale", wiring.stale_cache, once=True, streams=True, kinds=("chunks",)),
    Mutator("a cache of earlier steps lost", wiring.lost_cache, once=True, streams=True, kinds=("chunks",)),
)
"""The quick ones are one of each kind; the full set has every pair of gates, and smaller errors."""
_OF_LOOPS = (scans.stale_carry, scans.one_step_more, scans.stale_element)
_OF_GENERATION = (generating.stale_state, generating.same_input)
_ANYWHERE = {
    mutator.name for mutator in MUTATORS if mutator.once and mutator.apply not in (*_OF_LOOPS, *_OF_GENERATION)
}


def changes_recurrence(name: str) -> bool:
    """Whether the mutant of this name changes a recurrent layer or a loop's body, and not what any file has."""
    return name not in _ANYWHERE
