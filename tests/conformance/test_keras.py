"""Keras layers through tf2onnx (keras/, made by keras_files.py): inspected, checked, run and streamed beside Keras."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.errors import InputError
from lstm_onnx.inspect import inspect

FOLDER = Path(__file__).with_name("keras")
SIZE, H = 4, 3
ATOL = 2e-6


class Layer(NamedTuple):
    """What `inspect` should find: (input, hidden) sizes and a direction of each LSTM; what the file is made for."""

    sizes: list[tuple[int, int]]
    opset: int
    direction: str = "forward"
    states: tuple[str, ...] = ()


FILES = {
    "plain": Layer([(SIZE, H)], 15),
    "stacked": Layer([(SIZE, H), (H, 2)], 9),
    "bidirectional": Layer([(SIZE, H)], 13, "bidirectional"),
    # tf2onnx turns the sequence around in front of a forward LSTM.
    "backwards": Layer([(SIZE, H)], 11),
    "stateful": Layer([(SIZE, H)], 18, states=("x1", "x2")),
    # It makes a Loop of single operators, in which there is no LSTM to be found.
    "masked": Layer([], 15),
}
STATES = {"x1": "Identity_1:0", "x2": "Identity_2:0"}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


def numbers(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What Keras was given, and what it gave."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    sides = [
        {key.removeprefix(f"{side}:"): array for key, array in arrays.items() if key.startswith(f"{side}:")}
        for side in ("in", "out")
    ]
    return sides[0], sides[1]


def test_every_file_is_here_and_small():
    assert {path.stem for path in FOLDER.glob("*.onnx")} == {path.stem for path in FOLDER.glob("*.npz")} == set(FILES)
    assert max(path.stat().st_size for path in FOLDER.iterdir()) < 50_000
    assert all("tf2onnx" in onnx.load(path).producer_name for path in FOLDER.glob("*.onnx"))


@pytest.mark.parametrize("name", FILES)
def test_run_gives_what_keras_gives(name, run_cli, tmp_path):
    feeds, expected = numbers(name)
    results = lstm_onnx.load(path_of(name), provider="cpu").run(feeds)
    assert results.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_allclose(results[key], array, rtol=0, atol=ATOL)
    np.savez(tmp_path / "in.npz", **feeds)
    done = run_cli("run", path_of(name), "in.npz", "-o", "out.npz", "--provider", "cpu")
    assert done.code == 0, done.err
    with np.load(tmp_path / "out.npz") as written:
        for key, array in expected.items():
            np.testing.assert_array_equal(written[key], results[key])
            assert written[key].shape == array.shape


@pytest.mark.parametrize("name", FILES)
def test_check_accepts_them(name):
    report = check(path_of(name), provider="cpu")
    assert report, str(report)
    # Nothing pairs its states, and each input names the batch apart; it is run with one batch all the same.
    told = {"loose-states", "unnamed-axes"} if name == "stateful" else set()
    assert {finding.rule for finding in report.findings if finding.violated} == told


@pytest.mark.parametrize("name", FILES)
def test_inspect_finds_their_layers(name):
    layer = FILES[name]
    found = inspect(path_of(name))
    assert found.opset == layer.opset
    assert [(lstm.input_size, lstm.hidden_size) for lstm in found.lstms] == layer.sizes
    assert {lstm.direction for lstm in found.lstms} <= {layer.direction}
    assert all(lstm.states == layer.states for lstm in found.lstms)
    both = 2 if layer.direction == "bidirectional" else 1
    # Keras has one bias and tf2onnx stores a second, of zeros, also for a layer that has none.
    assert [lstm.parameters for lstm in found.lstms] == [4 * h * (i + h + 2) * both for i, h in layer.sizes]
    assert ("Loop" in found.other_ops) is (name == "masked")


def test_backwards_is_told_from_forwards():
    """The fixture can tell: the output's last step is the sequence's first, so that it follows from that alone."""
    feeds, expected = numbers("backwards")
    model = lstm_onnx.load(path_of("backwards"), provider="cpu")
    changed = {"x0": np.concatenate([feeds["x0"][:, :4], feeds["x0"][:, 4:] + 1], axis=1)}
    results = model.run(changed)["Identity:0"]
    assert np.abs(results[:, 0] - expected["Identity:0"][:, 0]).max() > 1e-2


def test_their_states_stream():
    feeds, expected = numbers("stateful")
    model = lstm_onnx.load(path_of("stateful"), provider="cpu", states=STATES)
    stream = model.stream(batch=2)
    stream.state = {name: feeds[name] for name in STATES}
    parts = [stream(part) for part in np.split(feeds["x0"], [1, 3], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected["Identity:0"], rtol=0, atol=ATOL)
    for source, target in STATES.items():
        np.testing.assert_allclose(stream.state[source], expected[target], rtol=0, atol=ATOL)


def test_absent_states_that_have_no_known_size_are_asked_for():
    """tf2onnx names each dynamic axis apart, so that the states' batch does not follow from the sequence's."""
    feeds, _ = numbers("stateful")
    model = lstm_onnx.load(path_of("stateful"), provider="cpu", states=STATES)
    with pytest.raises(InputError, match=r"missing input: x1 .*x2 "):
        model.run({"x0": feeds["x0"]})
