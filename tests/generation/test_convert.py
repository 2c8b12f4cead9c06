"""`make_generating` and ``export(generate=)``: token for token what a Python loop over the module gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import lstm_onnx
from lstm_onnx import ConfigError, FileError, InputError, ModelError
from lstm_onnx.onnxgraph import bodies_of

from . import steps

pytestmark = pytest.mark.sweep(3)

Opened = Callable[[str], lstm_onnx.Model]


def tokens(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, steps.TOKENS, shape)


@torch.no_grad()
def greedy(prompt: np.ndarray, most: int) -> np.ndarray:
    """`Language` on the whole sequence anew in each step, without states."""
    text = torch.from_numpy(prompt)
    for _ in range(most):
        text = torch.cat([text, steps.module("language")(text)[:, -1:].argmax(-1)], 1)
    return text[:, prompt.shape[1] :].numpy()


@pytest.mark.parametrize(("batch", "time", "most"), [(1, 1, 1), (1, 4, 30), (3, 2, 17), (5, 9, 2)])
def test_tokens_are_those_of_a_python_loop(generating: Opened, batch: int, time: int, most: int) -> None:
    prompt = tokens(batch, batch, time)
    found = generating("language").run({"tokens": prompt, "max_steps": np.array(most)})
    np.testing.assert_array_equal(found["generated"], greedy(prompt, most))
    whole = torch.from_numpy(np.concatenate([prompt, found["generated"]], 1))
    with torch.no_grad():
        logs = torch.log_softmax(steps.module("language")(whole), -1)[:, time - 1 : -1]
    scores = logs.gather(2, torch.from_numpy(found["generated"])[..., None])[..., 0]
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [0, -3])
def test_no_steps_give_no_tokens_and_the_states_that_were_passed(generating: Opened, most: int) -> None:
    model = generating("language")
    states = {name: np.full((2, 3, 12), 0.5, np.float32) for name in model.states}
    found = model.run({"tokens": tokens(0, 3, 4), "max_steps": np.array(most), **states})
    assert found["generated"].shape == found["scores"].shape == (3, 0)
    assert all((found[after] == 0.5).all() for after in model.states.values())


def test_the_last_states_go_on(generating: Opened) -> None:
    model, prompt = generating("language"), tokens(1, 2, 3)
    whole = model.run({"tokens": prompt, "max_steps": np.array(12)})
    first = model.run({"tokens": prompt, "max_steps": np.array(5)})
    carried = {name: first[after] for name, after in model.states.items()}
    rest = model.run({"tokens": first["generated"][:, -1:], "max_steps": np.array(7), **carried})
    np.testing.assert_array_equal(np.concatenate([first["generated"], rest["generated"]], 1), whole["generated"])
    with pytest.raises(InputError, match="it makes its own inputs; to continue, pass its last states"):
        model.stream()


def test_draws_are_those_of_numpy(generating: Opened) -> None:
    """With its stop tokens and its choice among four; the noise is what `Generator.choice` draws from."""
    model, prompt, rng = generating("sampled"), tokens(2, 1, 3), np.random.default_rng(5)
    noise = np.random.default_rng(5).random((1, 40)).astype(np.float32)
    found = model.run({"tokens": prompt, "noise": noise, "temperature": np.array(1.3, np.float32)})
    text, wanted = torch.from_numpy(prompt), []
    with torch.no_grad():
        for _ in range(40):
            logits = steps.module("sampled")(text)[0, -1].double().numpy() / 1.3
            chances = np.where(logits < np.sort(logits)[-4], 0, np.exp(logits - logits.max()))
            wanted.append(int(rng.choice(steps.TOKENS, p=chances / chances.sum())))
            text = torch.cat([text, torch.tensor([[wanted[-1]]])], 1)
            if wanted[-1] in (2, 8):
                break
    assert found["generated"][0].tolist() == wanted
    assert found["counts"].tolist() == [len(wanted)]
    assert 1 < len(wanted) < 40


def test_sequences_that_have_ended_keep_their_states_and_give_padding(generating: Opened) -> None:
    """Each row alone gives what it gives in a batch."""
    model, prompt = generating("sampled"), tokens(3, 6, 2)
    noise = np.random.default_rng(0).random((6, 20)).astype(np.float32)
    hot = np.array(2, np.float32)
    found = model.run({"tokens": prompt, "noise": noise, "temperature": hot})
    counts = found["counts"]
    assert counts.min() < counts.max() == found["generated"].shape[1]
    for row, count in enumerate(counts):
        alone = model.run({"tokens": prompt[row : row + 1], "noise": noise[row : row + 1], "temperature": hot})
        np.testing.assert_array_equal(alone["generated"][0], found["generated"][row, :count])
        assert (found["generated"][row, count:] == 9).all()
        assert (found["scores"][row, count:] == 0).all()
        for after in model.states.values():
            np.testing.assert_allclose(alone[after][:, 0], found[after][:, row], rtol=1e-5, atol=1e-6)


def test_time_may_come_first_and_tokens_be_int32(generating: Opened) -> None:
    model, prompt = generating("time first"), tokens(4, 3, 2).astype(np.int32)
    found = model.run({"tokens": prompt, "max_steps": np.array(9)})
    text, rows = torch.from_numpy(prompt), []
    done = np.zeros(2, bool)
    with torch.no_grad():
        while not done.all() and len(rows) < 9:
            rows.append(np.where(done, 5, steps.module("time first")(text)[-1].argmax(-1).numpy()))
            done |= rows[-1] == 5
            text = torch.cat([text, torch.from_numpy(rows[-1])[None].int()])
    assert found["generated"].dtype == np.int32
    np.testing.assert_array_equal(found["generated"], np.stack(rows))


@pytest.mark.parametrize("kind", ["view", "view, time first"])
def test_batch_and_time_may_be_one_axis_of_the_output(generating: Opened, kind: str) -> None:
    model, prompt, module = generating(kind), tokens(5, 3, 4), steps.module(kind)
    most, time_first = 9, kind != "view"
    found = model.run({"tokens": prompt.T if time_first else prompt, "max_steps": np.array(most)})
    generated = found["generated"].T if time_first else found["generated"]
    for row, text in enumerate(torch.from_numpy(prompt)):
        for number in range(most):
            with torch.no_grad():
                token = int(module(text[:, None] if time_first else text[None])[-1].argmax())
            assert generated[row, number] == token
            if token == 3 and not time_first:
                assert found["counts"][row] == number + 1
                break
            text = torch.cat([text, torch.tensor([token])])


def test_a_forecast_feeds_back_its_own_numbers(generating: Opened) -> None:
    x = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0))
    found = generating("forecast").run({"x": x.numpy(), "max_steps": np.array(48)})
    with torch.no_grad():
        series = x.double()
        reference = steps.Forecast().double().eval()
        reference.load_state_dict(steps.module("forecast").state_dict())
        for _ in range(48):
            series = torch.cat([series, reference(series)[:, None]], 1)
    assert found["generated"].shape == (3, 48, 2)
    np.testing.assert_allclose(found["generated"], series[:, 6:], rtol=0, atol=1e-3)


def test_a_step_that_says_itself_when_it_ends(generating: Opened) -> None:
    rng = np.random.default_rng(3)
    token, h, features = tokens(5, 4), rng.standard_normal((4, 12)), rng.standard_normal((4, 6, 4))
    feeds = {"token": token, "h": h.astype(np.float32), "features": features.astype(np.float32)}
    found = generating("attending").run({**feeds, "max_steps": np.array(15)})
    for row in range(4):
        at, state, wanted = torch.tensor(token[row : row + 1]), torch.from_numpy(feeds["h"][row : row + 1]), []
        with torch.no_grad():
            for _ in range(15):
                result = steps.module("attending")(at, state, torch.from_numpy(feeds["features"][row : row + 1]))
                at, state = result["logits"].argmax(-1), result["h_next"]
                wanted.append(int(at))
                if result["end"].item() > 0.5:
                    break
        assert found["generated"][row, : found["counts"][row]].tolist() == wanted
        np.testing.assert_allclose(found["h_next"][row], state[0], rtol=1e-4, atol=1e-5)


def test_what_is_the_same_in_every_step_runs_once(generating: Opened) -> None:
    graph = onnx.load(generating("attending").path).graph
    (loop,) = (node for node in graph.node if node.op_type == "Loop")
    (body,) = bodies_of(loop)
    assert "Tanh" in {node.op_type for node in graph.node}
    assert "Tanh" not in {node.op_type for node in body.node}


def test_states_of_layers_are_taken_apart_once(generating: Opened) -> None:
    graph = onnx.load(generating("language").path).graph
    (body,) = bodies_of(next(node for node in graph.node if node.op_type == "Loop"))
    assert not {"Split", "Concat"} & {node.op_type for node in body.node}


def test_states_that_the_caller_names(generating: Opened) -> None:
    model = generating("hand-written")
    assert model.states["mean"] == "output.1"
    token, mean, wanted = torch.tensor([4]), torch.zeros(1, 12), []
    h = None
    with torch.no_grad():
        for _ in range(10):
            inner = steps.module("hand-written")
            x = inner.embedding(token)
            mean = 0.5 * mean + 0.5 * torch.tanh(inner.inner(torch.cat([x, mean], 1)))
            h = inner.cell(x, h)
            token = inner.head(mean + h).argmax(-1)
            wanted.append(int(token))
    found = model.run({"tokens": np.array([4]), "max_steps": np.array(10)})
    assert found["generated"][0].tolist() == wanted


def test_a_file_of_a_file(step: Path, tmp_path: Path) -> None:
    """`make_generating` of the step's file gives what the export gives, and the same bytes each time."""
    paths = [tmp_path / f"{name}.onnx" for name in "ab"]
    results = [lstm_onnx.make_generating(step, path, input="tokens", output="output") for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert results[0].inputs[:2] == ("tokens", "max_steps")
    assert results[0].outputs[:2] == ("generated", "scores")
    assert "compared with the step in a loop" in str(results[0])
    prompt = tokens(7, 2, 3)
    found = lstm_onnx.load(paths[0]).run({"tokens": prompt, "max_steps": np.array(9)})
    np.testing.assert_array_equal(found["generated"], greedy(prompt, 9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "text"}, "text is not an input; its inputs are tokens"),
        ({"output": "logits"}, "logits is not an output; its outputs are output"),
        ({"input": "lstm.h0"}, "lstm.h0 is a state, which is fed back in any case"),
        ({"choose": "value"}, "tokens takes tokens, which must be chosen"),
        ({"choose": "best"}, "it must be one of"),
        ({"top_k": 3}, 'top_k goes with choose = "sample"'),
        ({"choose": "sample", "top_k": 12}, "top_k = 12 is more than the 11 tokens"),
        ({"stop_token": 11}, "the stop token 11 is not one of the 11 tokens"),
        ({"stop_token": (1, 1)}, "a list of different ones"),
        ({"stop_output": "lstm.hn"}, "is not one number or bool for each sequence"),
        ({"stop_token": 1, "pad": 0.5}, "pad = 0.5 is not a token"),
        ({"states": {"a": "b"}}, "a"),
        ({"states": {"lstm.c0": "lstm.hn"}}, "its output lstm.hn feeds lstm.c0 and lstm.h0, .* an output of its own"),
    ],
)
def test_what_does_not_fit_the_step(step: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=message):
        lstm_onnx.make_generating(step, tmp_path / "g.onnx", **{"input": "tokens", "output": "output", **changes})
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_step(generating: Opened, step: Path, tmp_path: Path) -> None:
    target = tmp_path / "g.onnx"

    def refused(source: object, message: str, **changes: Any) -> None:
        with pytest.raises((ConfigError, ModelError, FileError), match=message):
            lstm_onnx.make_generating(source, target, **{"input": "tokens", "output": "output", **changes})  # type: ignore[arg-type]

    refused(generating("language").path, "it generates already")
    with pytest.raises(ModelError, match="quantize its step's file, and pass that"):
        lstm_onnx.quantize(generating("language").path, target)
    lstm_onnx.export(torch.nn.LSTM(3, 3), tmp_path / "bare.onnx")
    refused(tmp_path / "bare.onnx", "it is a bare nn.LSTM", input="input")
    plain = steps.module("language")
    zero = {"example_inputs": torch.zeros(2, 5, dtype=torch.int64), "dynamic_shapes": {"tokens": steps.BATCH_TIME}}
    lstm_onnx.export(plain, tmp_path / "zero.onnx", **zero)
    refused(tmp_path / "zero.onnx", 'it has no states.*states="explicit"')
    with pytest.raises(FileError):
        lstm_onnx.make_generating(step, step, input="tokens", output="output")
    with pytest.raises(ConfigError, match=r"a bare nn\.LSTM's output cannot be its next input"):
        lstm_onnx.export(torch.nn.LSTM(3, 3), target, generate={"input": "input", "output": "output"})
    assert not target.exists()


def test_a_step_without_an_output_for_its_first_tokens(tmp_path: Path) -> None:
    """A convolution without padding: the comparison with a loop failed with an IndexError."""
    shapes = {"tokens": (onnx.TensorProto.INT64, ["batch", "time"]), "y": (onnx.TensorProto.FLOAT, ["batch", "s", 4])}
    fed, output = (helper.make_tensor_value_info(name, *info) for name, info in shapes.items())
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["turned", "kernel"], ["sums"]),
        helper.make_node("Transpose", ["sums"], ["y"], perm=[0, 2, 1]),
    ]
    arrays = {"table": np.eye(4, dtype=np.float32), "kernel": np.ones((4, 4, 3), np.float32)}
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [fed], [output], constants)
    whole, chunks = tmp_path / "whole.onnx", tmp_path / "chunks.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), whole)
    lstm_onnx.make_streaming(whole, chunks, time={"tokens": 1}, trial=False)
    with pytest.raises(ModelError, match="a prompt of fewer than 3 steps would have no output; pad the start"):
        lstm_onnx.make_generating(chunks, tmp_path / "g.onnx", input="tokens", output="y")


def test_an_int8_step_generates(step: Path, tmp_path: Path) -> None:
    lstm_onnx.quantize(step, tmp_path / "q.onnx")
    lstm_onnx.make_generating(tmp_path / "q.onnx", tmp_path / "g.onnx", input="tokens", output="output")
    model, prompt = lstm_onnx.load(tmp_path / "q.onnx"), tokens(8, 1, 4)
    stream, x, wanted = model.stream(), prompt, []
    for _ in range(20):
        wanted.append(int(stream.run({"tokens": x})["output"][0, -1].argmax()))
        x = np.array([[wanted[-1]]])
    found = lstm_onnx.load(tmp_path / "g.onnx").run({"tokens": prompt, "max_steps": np.array(20)})
    assert found["generated"][0].tolist() == wanted
    report = lstm_onnx.verify(steps.module("language"), tmp_path / "g.onnx", mutants="none")
    assert report, str(report)


def test_a_wrong_file_is_not_kept(step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_onnx.generation import loop

    monkeypatch.setattr(loop, "greedy", lambda nodes, numbers: nodes.one("ArgMin", numbers, name="t", axis=1))
    with pytest.raises(ModelError, match=r"differs from its step: at batch 1.*: generated differs; it was not kept"):
        lstm_onnx.make_generating(step, tmp_path / "g.onnx", input="tokens", output="output")
    assert not list(tmp_path.iterdir())


def test_names_that_a_generating_file_needs(step: Path, tmp_path: Path) -> None:
    model = onnx.load(step)
    model.graph.node[0].output[0] = "generate/x"
    for node in model.graph.node[1:]:
        node.input[:] = ["generate/x" if value == "embedding/Gather" else value for value in node.input]
    del model.graph.value_info[:]
    helper.set_model_props(model, {item.key: item.value for item in model.metadata_props if "checksum" not in item.key})
    onnx.save(model, tmp_path / "s.onnx")
    with pytest.raises(ModelError, match="names start with generate/"):
        lstm_onnx.make_generating(tmp_path / "s.onnx", tmp_path / "g.onnx", input="tokens", output="output")
