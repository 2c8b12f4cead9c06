"""tritonclient over HTTP: outputs bit for bit those of `Model.run` and of a stream alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from lstm_onnx.runtime import Model, load

from ..runtime.models import randoms
from .servers import Server
from .test_http import metric


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, concurrency=4) as client:
        yield client
    client.close = lambda: None  # it closes again when it is collected, and gevent refuses that in another thread


def tensor(name: str, array: np.ndarray, *, binary: bool = True, library=triton) -> triton.InferInput:
    kinds = {"float32": "FP32", "int64": "INT64", "bool": "BOOL", "int32": "INT32"}
    found = library.InferInput(name, list(array.shape), kinds[str(array.dtype)])
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def test_what_the_server_says_of_itself(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "lstm-onnx"
    index = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert index == dict.fromkeys(["lstm", "wide", "both", "lengths", "sum", "again"], "READY")
    assert client.is_model_ready("lstm")
    assert client.is_model_ready("lstm", "1")
    assert not client.is_model_ready("lstm", "2")
    assert not client.is_model_ready("nobody")


def test_what_a_model_takes(client: triton.InferenceServerClient) -> None:
    found = client.get_model_metadata("sum")
    assert found["inputs"] == [
        {"name": "x", "datatype": "INT64", "shape": [-1, 2]},
        {"name": "keep", "datatype": "BOOL", "shape": [-1, 2]},
    ]
    assert [output["name"] for output in found["outputs"]] == ["total", "negative"]
    config = client.get_model_config("lstm")
    assert config["max_batch_size"] == 0
    states = config["sequence_batching"]["state"]
    assert {state["input_name"]: state["output_name"] for state in states} == {"h0": "hn", "c0": "cn"}
    assert "sequence_batching" not in client.get_model_config("both")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_whole_sequences(
    client: triton.InferenceServerClient, lstm: Model, binary: bool, compression: str | None
) -> None:
    for seed, shape in enumerate([(1, 1, 4), (30, 1, 4), (12, 5, 4)]):
        x = randoms(*shape, seed=seed)
        expected = lstm.run({"input": x})
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("cn", "output", "hn")]
        found = client.infer(
            "lstm",
            [tensor("input", x, binary=binary)],
            outputs=outputs,
            request_id=str(seed),
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        for name, array in expected.items():
            np.testing.assert_array_equal(found.as_numpy(name), array)
        assert found.get_response()["id"] == str(seed)
        assert [output["name"] for output in found.get_response()["outputs"]] == ["cn", "output", "hn"]


def test_states_may_be_passed_to_whole_sequences(client: triton.InferenceServerClient, lstm: Model) -> None:
    feeds = {"input": randoms(3, 2, 4), "h0": randoms(2, 2, 5, seed=2), "c0": randoms(2, 2, 5, seed=3)}
    found = client.infer("lstm", [tensor(name, array) for name, array in feeds.items()])
    np.testing.assert_array_equal(found.as_numpy("output"), lstm.run(feeds)["output"])


def test_lengths_and_several_inputs(client: triton.InferenceServerClient, folder: Path) -> None:
    with load(folder / "lengths.onnx", "cpu", threads=1) as model:
        feeds = {"input": randoms(3, 6, 4), "lengths": np.array([2, 6, 1], np.int32)}
        found = client.infer("lengths", [tensor(name, array) for name, array in feeds.items()])
        np.testing.assert_array_equal(found.as_numpy("output"), model.run(feeds)["output"])
    x, keep = np.array([[2**62, -5]]), np.array([[True, False]])
    zeros = tensor("state", np.zeros((1, 2), np.int64))
    found = client.infer("sum", [tensor("x", x, binary=False), tensor("keep", keep, binary=False), zeros])
    assert found.as_numpy("total").tolist() == [[2**62, 0]]


def test_many_whole_sequences_at_once(server: Server, lstm: Model) -> None:
    """They run in batches, of equal lengths together, and each gets its own outputs."""
    sequences = [randoms(1 + index % 3, 1 + index % 2, 4, seed=index) for index in range(60)]

    async def main() -> list[np.ndarray]:
        async with triton_aio.InferenceServerClient(server.address) as client:
            asked = [client.infer("lstm", [tensor("input", x, library=triton_aio)]) for x in sequences]
            return [answer.as_numpy("output") for answer in await asyncio.gather(*asked)]

    before = batches(server)
    for x, found in zip(sequences, asyncio.run(main()), strict=True):
        np.testing.assert_array_equal(found, lstm.run({"input": x})["output"])
    rows, count = (now - start for now, start in zip(batches(server), before, strict=True))
    assert rows == 90
    assert count < 60


def batches(server: Server) -> list[float]:
    """How many rows ran in batches of whole sequences, and in how many."""
    return [metric(server, f'lstm_onnx_batch_size_{part}{{kind="whole",model="lstm"}}') for part in ("sum", "count")]


def test_interleaved_sequences_over_several_connections(server: Server, wide: Model) -> None:
    """Integers and strings as ids, chunks of any length, the connection changing within a sequence."""
    ids: list[int | str] = [*range(1, 13), *[f"caller {index}" for index in range(12)]]
    frames = {key: [randoms(1, 1 + (n + i) % 3, 80, seed=100 * n + i) for i in range(6)] for n, key in enumerate(ids)}

    async def caller(clients: list, number: int, key: int | str) -> None:
        alone = wide.stream()
        for index, x in enumerate(frames[key]):
            found = await clients[(number + index) % len(clients)].infer(
                "wide",
                [tensor("input", x, library=triton_aio)],
                sequence_id=key,
                sequence_start=index == 0,
                sequence_end=index == 5,
            )
            np.testing.assert_array_equal(found.as_numpy("output"), alone(x))

    async def main() -> None:
        clients = [triton_aio.InferenceServerClient(server.address) for _ in range(4)]
        try:
            await asyncio.gather(*[caller(clients, number, key) for number, key in enumerate(ids)])
        finally:
            for client in clients:
                await client.close()

    asyncio.run(main())


def test_a_sequence_starts_and_ends_as_asked(client: triton.InferenceServerClient, lstm: Model) -> None:
    x = randoms(1, 1, 4)

    def step(**flags: bool) -> np.ndarray:
        return client.infer("lstm", [tensor("input", x)], sequence_id=77, **flags).as_numpy("output")

    with pytest.raises(triton.InferenceServerException, match=r"sequence 77 of model lstm is not open"):
        step()
    alone = lstm.stream()
    first, second = alone(x), alone(x)
    np.testing.assert_array_equal(step(sequence_start=True), first)
    np.testing.assert_array_equal(step(), second)
    np.testing.assert_array_equal(step(sequence_start=True), first)  # anew
    np.testing.assert_array_equal(step(sequence_end=True), second)
    with pytest.raises(triton.InferenceServerException, match="is not open"):
        step()
    np.testing.assert_array_equal(step(sequence_start=True, sequence_end=True), first)
    with pytest.raises(triton.InferenceServerException, match="is not open"):
        step(sequence_end=True)


def test_equal_ids_of_two_models_and_two_types_are_different_sequences(
    client: triton.InferenceServerClient, lstm: Model
) -> None:
    x = randoms(1, 1, 4)
    alone = lstm.stream()
    first, second = alone(x), alone(x)
    for model, key in (("lstm", 5), ("again", 5), ("lstm", "5")):
        found = client.infer(model, [tensor("input", x)], sequence_id=key, sequence_start=True)
        np.testing.assert_array_equal(found.as_numpy("output"), first)
    for model, key in (("lstm", 5), ("again", 5), ("lstm", "5")):
        found = client.infer(model, [tensor("input", x)], sequence_id=key, sequence_end=True)
        np.testing.assert_array_equal(found.as_numpy("output"), second)


def test_a_request_that_does_not_fit_leaves_its_sequence_alone(
    client: triton.InferenceServerClient, lstm: Model
) -> None:
    x = randoms(1, 1, 4)
    alone = lstm.stream()
    client.infer("lstm", [tensor("input", x)], sequence_id=9, sequence_start=True)
    alone(x)
    for wrong in (randoms(1, 1, 5), randoms(1, 2, 4), randoms(1, 4)[None, None]):
        with pytest.raises(triton.InferenceServerException, match="input"):
            client.infer("lstm", [tensor("input", wrong)], sequence_id=9, sequence_end=True)
    found = client.infer("lstm", [tensor("input", x)], sequence_id=9, sequence_end=True)
    np.testing.assert_array_equal(found.as_numpy("output"), alone(x))
    with pytest.raises(triton.InferenceServerException):  # a first request that does not fit opens nothing
        client.infer("lstm", [tensor("input", randoms(1, 1, 5))], sequence_id=9, sequence_start=True)
    with pytest.raises(triton.InferenceServerException, match="is not open"):
        client.infer("lstm", [tensor("input", x)], sequence_id=9)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("nobody", {}, "there is no model 'nobody'"),
        ("lstm", {"model_version": "3"}, "model lstm has no version '3', only 1"),
        ("lstm", {"inputs": [("inputs", (1, 1, 4))]}, "inputs is not an input of lstm; its inputs are input"),
        ("lstm", {"inputs": [("input", (1, 1, 4)), ("h0", (2, 1, 5))], "sequence_id": 3}, "h0 is a state"),
        ("lstm", {"outputs": [triton.InferRequestedOutput("y")]}, "y is not an output of lstm"),
        ("lstm", {"outputs": [triton.InferRequestedOutput("hn")], "sequence_id": 3}, "hn is not an output"),
        ("lstm", {"outputs": [triton.InferRequestedOutput("output", class_count=2)]}, "as classes"),
        ("both", {"sequence_id": 3}, "model both has no streams: it is bidirectional"),
    ],
)
def test_what_is_refused(client: triton.InferenceServerClient, model: str, arguments: dict, message: str) -> None:
    arguments = {"inputs": [("input", (1, 1, 4))], **arguments}
    inputs = [tensor(name, randoms(*shape)) for name, shape in arguments.pop("inputs")]
    if "sequence_id" in arguments:
        arguments["sequence_start"] = True
    with pytest.raises(triton.InferenceServerException, match=message):
        client.infer(model, inputs, **arguments)


def test_statistics(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("again")["model_stats"][0]
    for _ in range(3):
        client.infer("again", [tensor("input", randoms(1, 1, 4))])
    with pytest.raises(triton.InferenceServerException):
        client.infer("again", [tensor("input", randoms(1, 1, 3))])
    after = client.get_inference_statistics("again")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["inference_stats"]["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert len(client.get_inference_statistics()["model_stats"]) == 6
