"""Each known mistake changes what an LSTM gives, each in a way of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lstm_onnx import LSTMSpec
from lstm_onnx.exporter.sources.torch_lstm import module_of, spec_of, state_of
from lstm_onnx.parity.cases import Case
from lstm_onnx.parity.diagnosis.fault_models import FaultModel, fault_models, rounded, run_with
from lstm_onnx.parity.lstm.cases import lstm_cases
from lstm_onnx.parity.lstm.reference import run_torch

from ..files import lstm

SPECS = {
    "stacked": LSTMSpec(5, 8, num_layers=2, bidirectional=True, batch_first=True, dtype="float64"),
    "plain": LSTMSpec(5, 8, dtype="float64"),
    "projected": LSTMSpec(5, 8, num_layers=3, proj_size=4, dtype="float64"),
}


def _case(spec: LSTMSpec, start: str = "batch 3, time 7, states, lengths") -> Case:
    return next(case for case in lstm_cases(spec, lengths=True) if case.label.startswith(start))


def _module(spec: LSTMSpec) -> torch.nn.LSTM:
    arguments = {name: getattr(spec, name) for name in ("num_layers", "bidirectional", "batch_first", "proj_size")}
    module = lstm(**arguments).double()
    return module_of(spec, state_of(module, spec_of(module)))


def _made(module: torch.nn.LSTM, spec: LSTMSpec, one: FaultModel, case: Case) -> dict[str, np.ndarray]:
    changed = module_of(spec, dict(one.weights(state_of(module, spec))))
    return dict(run_with((one,), run_torch)(changed, case.feeds))


@pytest.mark.parametrize("name", SPECS)
def test_every_mistake_is_one_and_no_two_are_the_same(name: str) -> None:
    spec = SPECS[name]
    module = _module(spec)
    found = list(fault_models(spec, 0, 1 if spec.bidirectional else None))
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    short = _case(spec)
    # None whole, so that one more is another.
    case = replace(short, feeds={**short.feeds, "lengths": np.array([3, 5, 6], np.int32)})
    right = run_torch(module, case.feeds)
    seen = {"right": b"".join(right[key].tobytes() for key in sorted(right))}
    for one in found:
        outputs = _made(module, spec, one, case)
        assert {key: value.shape for key, value in outputs.items()} == {k: v.shape for k, v in right.items()}
        numbers = b"".join(outputs[key].tobytes() for key in sorted(outputs))
        assert numbers not in seen.values(), f"{one.name} is {[k for k, v in seen.items() if v == numbers]}"
        seen[one.name] = numbers


def test_the_catalogue_has_what_fits_the_sizes() -> None:
    def kinds(spec: LSTMSpec, layer: int | None = None, direction: int | None = None) -> str:
        return "; ".join(one.name for one in fault_models(spec, layer, direction))

    plain, stacked = kinds(SPECS["plain"]), kinds(SPECS["stacked"], 1, 1)
    for word in ("gate order", "missing bias", "state order", "states ignored", "lengths ignored", "direction"):
        assert word in plain
        assert word in stacked
    assert "two exchanged" not in plain
    assert "layer" not in plain
    assert "direction of layer 1: the two exchanged" in stacked
    assert "missing bias of layer 1, reverse: both" in stacked
    assert "lengths ignored in the reverse direction" in stacked
    assert "missing bias" not in kinds(LSTMSpec(5, 8, bias=False))
    assert "R transposed" not in kinds(SPECS["projected"])
    assert "h0 and c0 exchanged" not in kinds(SPECS["projected"])


@pytest.mark.parametrize("name", SPECS)
def test_layers_that_are_run_one_by_one_give_what_all_of_them_do(name: str) -> None:
    spec = SPECS[name]
    module = _module(spec)
    by_layers = run_with((FaultModel("none", "", around=lambda run: run, layer=0),), run_torch)
    for start in ("batch 3, time 7, states, lengths", "batch 1, time 7, no states", "batch 3, time 1, states"):
        case = _case(spec, start)
        whole, parts = run_torch(module, case.feeds), by_layers(module, case.feeds)
        for key in whole:
            np.testing.assert_allclose(parts[key], whole[key], atol=1e-14)


def test_a_mistake_of_one_layer_is_no_mistake_of_the_others() -> None:
    spec = SPECS["stacked"]
    module, case = _module(spec), _case(spec)
    right = run_torch(module, case.feeds)
    one = next(h for h in fault_models(spec, 1, None) if h.name == "lengths ignored in layer 1")
    wrong = _made(module, spec, one, case)
    np.testing.assert_allclose(wrong["hn"][:2], right["hn"][:2], atol=1e-14)
    assert np.abs(wrong["hn"][2:] - right["hn"][2:]).max() > 1e-3


@pytest.mark.parametrize(("bits", "dtype"), [(7, torch.bfloat16), (10, torch.float16)])
def test_rounding_is_that_of_the_format(bits: int, dtype: torch.dtype) -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    values = np.concatenate([values, [0.0, 1.0, 1 + 2.0 ** -(bits + 1), 1 + 3 * 2.0 ** -(bits + 1)]])
    expected = torch.from_numpy(values).float().to(dtype).double().numpy()
    np.testing.assert_allclose(rounded(values, bits), expected, atol=2.0**-24)


def test_mistakes_of_single_layers_are_combined_with_others() -> None:
    spec = SPECS["stacked"]
    module, case = _module(spec), _case(spec, "batch 3, time 7, states")
    found = {one.name: one for layer in (0, 1) for one in fault_models(spec, layer, None)}
    states, lengths = found["state order: h0 and c0 exchanged"], found["lengths one too small in layer 1"]
    exchanged = {**case.feeds, "h0": case.feeds["c0"], "c0": case.feeds["h0"]}
    wanted = run_with((lengths,), run_torch)(module, exchanged)
    for pair in ((states, lengths), (lengths, states)):
        for name, array in run_with(pair, run_torch)(module, case.feeds).items():
            np.testing.assert_array_equal(array, wanted[name])
    # Where each layer runs backwards, all of them do.
    each = tuple(found[f"direction: time runs backwards in layer {layer}"] for layer in (0, 1))
    whole = run_with((found["direction: time runs backwards"],), run_torch)(module, case.feeds)
    for name, array in run_with(each, run_torch)(module, case.feeds).items():
        np.testing.assert_allclose(array, whole[name], atol=1e-14)
        assert np.abs(array - run_torch(module, case.feeds)[name]).max() > 1e-3
