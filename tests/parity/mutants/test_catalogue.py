"""Every mistake is made where it can be, runs (unless it is one of shapes), and is far from right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import lstm_onnx
from lstm_onnx.parity.mutants.catalogue import MUTATORS, Mutator
from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from lstm_onnx.parity.mutants.self_test import mutated, opened
from lstm_onnx.parity.replay import replay
from lstm_onnx.parity.tolerances import K

from ..files import lstm
from .bases import BASES, base, tried, verification

_SHAPES_ONLY = ("batch baked in", "time baked in")


OF_GENERATION = {
    "one step more",
    "a state of the step unchanged",
    "the prompt fed to every step",
    "the end of a sequence ignored",
    "states changed after the end",
    "the smallest number chosen",
    "temperature ignored",
    "the first noise for every step",
}
"""Tested in tests/parity/generation."""
OF_OTHER_CELLS = ("peepholes dropped", "peepholes misordered", "reset gate misplaced")
"""Of GRUs, and of LSTMs in the user's own code; tested in test_other_cells.py."""


def _applicable() -> Iterator[tuple[str, Mutator]]:
    """Told from the sizes alone, so that a mutator which stops applying is seen."""
    for name, (spec, options) in BASES.items():
        scan = spec.proj_size > 0 and options.projection == "scan"
        several = spec.num_layers > 1 or (scan and spec.bidirectional)
        excluded = {
            "gates z and r exchanged": True,  # a GRU's
            "gates z and h exchanged": True,
            "gates r and h exchanged": True,
            "R transposed": scan,
            "input bias dropped": scan,  # a Scan keeps only the sum of the two
            "recurrent bias dropped": scan,
            "a cache of earlier steps stale": True,  # of files with caches alone
            "a cache of earlier steps lost": True,
            "a carry of a loop unchanged": True,  # of modules with Python loops alone
            "a loop of one step more": True,
            "a loop's elements one step late": True,
            "directions exchanged": not spec.bidirectional,
            "run backwards": spec.bidirectional and not scan,
            "reverse input unreversed": not (scan and spec.bidirectional),
            "reverse output unreversed": not (scan and spec.bidirectional),
            "initial h and c exchanged": spec.proj_size > 0,
            "final h and c exchanged": spec.proj_size > 0,
            "initial h of two layers exchanged": not several,
            "initial c of two layers exchanged": not several,
            "final h of two layers exchanged": not several,
            "final c of two layers exchanged": not several,
            "projection misordered": spec.proj_size == 0,
            "other activations": scan,
            "streams' states mispaired": spec.proj_size > 0,  # h and c are of two shapes
            "lengths ignored": not options.lengths,
            "lengths one step off": not options.lengths,
            "one row of a table wrong": True,  # of modules alone
            **dict.fromkeys((*OF_GENERATION, *OF_OTHER_CELLS), True),
        }
        for mutator in MUTATORS:
            if not excluded.get(mutator.name, False):
                yield name, mutator


_CASES = [pytest.param(name, mutator, id=f"{name}-{mutator.name}") for name, mutator in _applicable()]


def test_the_table_of_what_applies_is_right() -> None:
    """A mutator that declines a base is meant to, so none is left out by mistake."""
    used = {(name, mutator.name) for name, mutator in _applicable()}
    graphs = {name: base(name).graph for name in BASES}
    applied = {(n, m.name) for n in BASES for m in MUTATORS if mutated(graphs[n], m, ranges=tried(n))[0].applied}
    assert applied == used


def test_all_but_those_of_other_modules_are_used() -> None:
    assert {m.name for m in MUTATORS} - {m.name for _, m in _applicable()} == {
        "gates z and r exchanged",
        "gates z and h exchanged",
        "gates r and h exchanged",
        "a cache of earlier steps stale",
        "a cache of earlier steps lost",
        "a carry of a loop unchanged",
        "a loop of one step more",
        "a loop's elements one step late",
        "one row of a table wrong",
        *OF_GENERATION,
        *OF_OTHER_CELLS,
    }


def test_names_are_distinct_and_a_quick_self_test_has_more_than_twelve_kinds() -> None:
    names = [mutator.name for mutator in MUTATORS]
    assert len(set(names)) == len(names)
    assert sum(mutator.quick for mutator in MUTATORS) >= 12


def _runs() -> Iterator[Any]:
    """All cases with weights as they are; of larger weights a third, and the others where slow tests are asked for."""
    chosen = set(np.random.default_rng(0).choice(len(_CASES), len(_CASES) // 3, replace=False).tolist())
    for index, case in enumerate(_CASES):
        yield pytest.param(*case.values, 1.0, id=f"{case.id}-1.0")
        yield pytest.param(*case.values, 4.0, id=f"{case.id}-4.0", marks=() if index in chosen else pytest.mark.slow)


@pytest.mark.sweep(108)
@pytest.mark.parametrize(("name", "mutator", "scale"), list(_runs()))
def test_a_mutant_runs_and_is_far_from_right(name: str, mutator: Mutator, scale: float) -> None:
    done, graph = verification(name, scale), base(name, scale).graph
    before = graph.SerializeToString(deterministic=True)
    outcome, copy = mutated(graph, mutator, 0, "", known_shapes(graph), tried(name))
    assert outcome.applied
    assert outcome.reason == ""
    assert graph.SerializeToString(deterministic=True) == before
    assert copy.SerializeToString(deterministic=True) != before
    mutant = opened(done.model, copy)
    results = [replay(mutant, case) for case in done.expected if case.kind in ("chunks", "pool") or not mutator.streams]
    if mutator.streams and not results:
        return  # a bidirectional model has no streams
    failed = [result for result in results if not result.passed]
    assert failed
    if mutator.name in _SHAPES_ONLY:
        assert 0 < sum(bool(result.error) for result in failed) < len(results)
        return
    assert not any(result.error for result in results)
    assert max(tensor.ratio for result in failed for tensor in result.tensors) > 10 * K


@pytest.mark.sweep(16)
@pytest.mark.parametrize(("name", "mutator"), _CASES)
def test_a_mutant_is_a_valid_model(name: str, mutator: Mutator) -> None:
    _, copy = mutated(base(name).graph, mutator, ranges=tried(name))
    if mutator.name not in _SHAPES_ONLY:
        onnx.checker.check_model(copy, full_check=True)


def test_a_gru_has_mutants_of_its_own() -> None:
    from tests.module_files import module_file

    path = module_file("packed_gru")
    graph = onnx.load(path)
    applied = {mutator.name for mutator in MUTATORS if mutated(graph, mutator)[0].applied}
    assert {"gates z and r exchanged", "gates r and h exchanged", "other activations", "R transposed"} <= applied
    assert "initial c ignored" not in applied


def test_a_mistake_is_made_in_the_layer_asked_for() -> None:
    graph = base("stacked").graph
    mutator = next(mutator for mutator in MUTATORS if mutator.name == "R transposed")
    for site, name in enumerate(("l0/R", "l1/R")):
        _, copy = mutated(graph, mutator, site)
        made = Edit(copy).layers
        readers = [port.value for each in made for port in each.R]
        assert [value == f"l{layer}/R" for layer, value in enumerate(readers)] == [name != f"l{k}/R" for k in range(2)]


def test_half_precision_gets_larger_mistakes(tmp_path: Path) -> None:
    lstm_onnx.export(lstm().half(), tmp_path / "half.onnx")
    graph = onnx.load(tmp_path / "half.onnx")
    by = {mutator.name: mutated(graph, mutator)[1] for mutator in MUTATORS}
    made = [tensor for tensor in by["W too large"].graph.initializer if tensor.name.startswith("mutant")]
    assert [numpy_helper.to_array(tensor) for tensor in made] == [np.float16(1.5)]
    node = next(node for node in by["other activations"].graph.node if node.op_type == "LSTM")
    activations = next(item for item in node.attribute if item.name == "activations").strings
    assert list(activations) == [b"HardSigmoid", b"Softsign", b"Softsign"]
