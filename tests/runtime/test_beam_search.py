"""`beam_search` over a pool's slots against a plain beam search of the module, on whole sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx import Hypothesis, InputError, RunError
from tests.generation import steps

STOPS = [2, 8]


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> lstm_onnx.Model:
    _, example, shapes, _ = steps.KINDS["language"]
    path = tmp_path_factory.mktemp("beam") / "step.onnx"
    lstm_onnx.export(steps.module("language"), path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    return lstm_onnx.load(path, "cpu", threads=1)


@torch.no_grad()
def plain(prompt: np.ndarray, beams: int, most: int, penalty: float) -> list[tuple[tuple[int, ...], float]]:
    """Nothing ends early, and no states are carried."""
    module = steps.Language().double().eval()
    module.load_state_dict(steps.module("language").state_dict())
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    ended = []
    for _ in range(most):
        found = []
        for tokens, total in live:
            logs = torch.log_softmax(module(torch.tensor([[*prompt, *tokens]]))[0, -1], 0)
            found += [((*tokens, token), total + log) for token, log in enumerate(logs.tolist())]
        found.sort(key=lambda one: -one[1])
        ended += [one for one in found[:beams] if one[0][-1] in STOPS]
        live = [one for one in found if one[0][-1] not in STOPS][:beams]
    scored = [(tokens, total / len(tokens) ** penalty) for tokens, total in (*ended, *live)]
    return sorted(scored, key=lambda one: -one[1])[:beams]


@pytest.mark.parametrize("seed", range(12))
def test_it_equals_a_plain_search(step: lstm_onnx.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, steps.TOKENS, rng.integers(1, 5))
    beams, most, penalty = int(rng.integers(1, 6)), int(rng.integers(1, 9)), (0.0, 0.7, 1.0)[seed % 3]
    with_others = step.pool(slots=8)
    other = with_others.open()
    found = lstm_onnx.beam_search(
        with_others, prompt, input="tokens", output="output", beams=beams, max_steps=most, stop_token=STOPS,
        length_penalty=penalty,
    )  # fmt: skip
    wanted = plain(prompt, beams, most, penalty)
    assert [one.tokens for one in found] == [tokens for tokens, _ in wanted]
    np.testing.assert_allclose([one.score for one in found], [score for _, score in wanted], rtol=1e-4, atol=1e-5)
    assert all(one.ended == (one.tokens[-1] in STOPS) for one in found)
    assert len(with_others) == 1
    with_others.close(other)


def test_one_beam_is_greedy_and_states_go_on(step: lstm_onnx.Model) -> None:
    pool, prompt = step.pool(slots=2), np.array([3, 1, 4])
    whole = lstm_onnx.beam_search(pool, prompt, input="tokens", output="output", beams=1, max_steps=6)
    slot = pool.open()
    pool.step([slot], prompt[None, :2])
    state = pool.state(slot)
    pool.close(slot)
    rest = lstm_onnx.beam_search(pool, prompt[2:], input="tokens", output="output", beams=1, max_steps=6, state=state)
    assert [one.tokens for one in whole] == [one.tokens for one in rest]
    text = torch.from_numpy(prompt)[None]
    with torch.no_grad():
        for _ in range(6):
            text = torch.cat([text, steps.module("language")(text)[:, -1:].argmax(-1)], 1)
    assert whole[0].tokens == tuple(text[0, 3:].tolist())


@pytest.mark.parametrize("beams", [1, 3])
def test_batch_and_time_may_be_one_axis_of_the_output(step: lstm_onnx.Model, tmp_path: Path, beams: int) -> None:
    module = steps.Rows().eval()
    module.load_state_dict(steps.module("language").state_dict())
    _, example, shapes, _ = steps.KINDS["view"]
    path = tmp_path / "rows.onnx"
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    found, wanted = (
        lstm_onnx.beam_search(
            model.pool(slots=beams), [4, 8, 1], input="tokens", output="output", beams=beams, max_steps=5
        )
        for model in (lstm_onnx.load(path, "cpu", threads=1), step)
    )
    assert [one.tokens for one in found] == [one.tokens for one in wanted]


def test_inputs_beside_the_tokens(tmp_path: Path) -> None:
    """A step of single tokens with features that stay: one row of them, for each beam."""
    _, example, shapes, _ = steps.KINDS["attending"]
    module, path = steps.module("attending"), tmp_path / "step.onnx"
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    features = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(2))
    pool = lstm_onnx.load(path, "cpu").pool(slots=3)
    found = lstm_onnx.beam_search(
        pool, 4, input="token", output="logits", beams=3, max_steps=2, context={"features": features.numpy()}
    )
    every: dict[tuple[int, ...], float] = {}
    with torch.no_grad():
        first = module(torch.tensor([4]), torch.zeros(1, 12), features)
        logs = torch.log_softmax(first["logits"], 1)[0]
        best = logs.topk(3).indices.tolist()
        for token in best:
            second = module(torch.tensor([token]), first["h_next"], features)
            then = torch.log_softmax(second["logits"], 1)[0]
            every |= {(token, other): (logs[token] + then[other]).item() for other in range(steps.TOKENS)}
    wanted = sorted(every, key=lambda tokens: -every[tokens])[:3]
    assert [one.tokens for one in found] == wanted
    assert found[0] == Hypothesis(wanted[0], found[0].score, pytest.approx(every[wanted[0]], abs=1e-4), False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "text"}, "'text' is not an input; its inputs are tokens"),
        ({"output": "logits"}, "'logits' is not an output; its outputs are output"),
        ({"beams": 0}, "beams"),
        ({"beams": 4}, "3 slots of the pool are free; 4 beams need 4"),
        ({"max_steps": 0}, "max_steps"),
        ({"stop_token": "end"}, "stop_token = 'end' is not possible"),
        ({"length_penalty": -1}, "length_penalty = -1 is not possible"),
        ({"prompt": [[1, 2]]}, "prompt must be one sequence of tokens"),
        ({"prompt": []}, "prompt must be one sequence of tokens"),
        ({"prompt": np.array([2**64 - 1], np.uint64)}, "prompt has tokens too large for int64, the dtype of tokens"),
        ({"context": {"features": 1}}, "'features' is not an input"),
        ({"state": {}}, "missing input"),
    ],
)
def test_wrong_arguments_leave_the_pool_as_it_was(step: lstm_onnx.Model, changes: dict[str, Any], message: str) -> None:
    pool = step.pool(slots=3)
    keywords = {"input": "tokens", "output": "output", "beams": 2, "max_steps": 3, "prompt": [1], **changes}
    prompt = keywords.pop("prompt")
    with pytest.raises(InputError, match=message):
        lstm_onnx.beam_search(pool, prompt, **keywords)
    assert len(pool) == 0


def test_an_output_that_comes_later_is_refused(tmp_path: Path) -> None:
    """The tokens after a prompt were chosen by the step before its last: a convolution looks one step ahead."""
    shapes = {"tokens": ["batch", "time"], "logits": ["batch", "time", 4]}
    kinds = {"tokens": TensorProto.INT64, "logits": TensorProto.FLOAT}
    tokens, logits = (helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in shapes.items())
    arrays = {"table": np.eye(4, dtype=np.float32), "kernel": np.ones((4, 4, 3), np.float32)}

    def streaming(pads: list[int], max_delay: int) -> lstm_onnx.Model:
        nodes = [
            helper.make_node("Gather", ["table", "tokens"], ["rows"]),
            helper.make_node("Transpose", ["rows"], ["turned"], perm=[0, 2, 1]),
            helper.make_node("Conv", ["turned", "kernel"], ["sums"], pads=pads),
            helper.make_node("Transpose", ["sums"], ["logits"], perm=[0, 2, 1]),
        ]
        constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = helper.make_graph(nodes, "g", [tokens], [logits], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "steps"
        onnx.save(model, tmp_path / "whole.onnx")
        options: dict[str, Any] = {"time": {"tokens": 1}, "trial": False, "max_delay": max_delay}
        lstm_onnx.make_streaming(tmp_path / "whole.onnx", tmp_path / f"{max_delay}.onnx", **options)
        return lstm_onnx.load(tmp_path / f"{max_delay}.onnx", "cpu")

    keywords: dict[str, Any] = {"input": "tokens", "output": "logits", "max_steps": 2, "beams": 1}
    with pytest.raises(InputError, match="cannot be searched: it looks ahead, so its output for a step comes later"):
        lstm_onnx.beam_search(streaming([1, 1], 1).pool(slots=1), [1, 2], **keywords)
    valid = streaming([0, 0], 0).pool(slots=1)
    with pytest.raises(InputError, match="logits has no step yet; pass a longer prompt"):
        lstm_onnx.beam_search(valid, [1, 2], **keywords)
    assert len(lstm_onnx.beam_search(valid, [1, 2, 3], **keywords)[0].tokens) == 2


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_have_no_probabilities(tmp_path: Path, number: float) -> None:
    """Logits that are rows of a table, one of which has no largest finite number."""
    table = np.ones((3, 4), np.float32)
    table[2, 1] = number
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "token"], ["logits"]), helper.make_node("Neg", ["state"], ["stateN"])],
        "g",
        [
            helper.make_tensor_value_info("token", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("stateN", TensorProto.FLOAT, ["batch", 1]),
        ],
        [numpy_helper.from_array(table, "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    pool = lstm_onnx.load(tmp_path / "m.onnx", "cpu", states={"state": "stateN"}).pool(slots=2)
    keywords: dict[str, Any] = {"input": "token", "output": "logits", "max_steps": 1, "beams": 1}
    assert lstm_onnx.beam_search(pool, [1], **keywords)[0].tokens == (0,)
    with pytest.raises(RunError, match="its output logits has no finite largest number"):
        lstm_onnx.beam_search(pool, [2], **keywords)
    assert len(pool) == 0
