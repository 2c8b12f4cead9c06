"""tritonclient over gRPC, beside our own messages in one process."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from lstm_onnx.runtime import Model

from ..runtime.models import randoms
from .servers import LONG, Server, serving

KINDS = {"float32": "FP32", "int64": "INT64", "bool": "BOOL", "int32": "INT32"}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


def tensor(name: str, array: np.ndarray, library: Any = triton) -> Any:
    found = library.InferInput(name, list(array.shape), KINDS[str(array.dtype)])
    found.set_data_from_numpy(array)
    return found


def test_our_messages_live_beside_those_of_the_client() -> None:
    from tritonclient.grpc import model_config_pb2, service_pb2

    from lstm_onnx.serving.protocol.messages import METHODS, POOL

    theirs = {
        **service_pb2.DESCRIPTOR.message_types_by_name,
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
    }
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method.name: (method.input_type.name, method.output_type.name) for method in service.methods}.items() >= (
        METHODS.items()
    )

    def compare(own: Any, other: Any) -> int:
        fields = {field.name: field for field in other.fields}
        for field in own.fields:
            match = fields[field.name]
            assert (field.number, field.type, field.is_repeated) == (match.number, match.type, match.is_repeated), (
                f"{own.name}.{field.name}"
            )
        nested = {kind.name: kind for kind in other.nested_types}
        return len(own.fields) + sum(compare(kind, nested[kind.name]) for kind in own.nested_types)

    file = POOL.FindFileByName("open_inference.proto")
    assert sum(compare(own, theirs[name]) for name, own in file.message_types_by_name.items()) > 100
    numbers = {value.name: value.number for value in model_config_pb2.DataType.DESCRIPTOR.values}
    assert {value.name: value.number for value in file.enum_types_by_name["DataType"].values}.items() <= numbers.items()


def test_the_descriptors_are_those_of_the_proto_file(tmp_path: Path) -> None:
    from grpc_tools import protoc

    from lstm_onnx.serving.protocol import messages

    folder = Path(messages.__file__).parent
    built = tmp_path / "built.binpb"
    arguments = ["", f"-I{folder}", f"--descriptor_set_out={built}", "open_inference.proto"]
    assert protoc.main(arguments) == 0
    assert built.read_bytes() == (folder / "open_inference.binpb").read_bytes()


def test_what_the_server_says(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("lstm", "1")
    assert client.get_server_metadata().name == "lstm-onnx"
    assert {model.name for model in client.get_model_repository_index().models} >= {"lstm", "wide", "sum"}
    found = client.get_model_metadata("wide")
    assert [list(tensor.shape) for tensor in found.inputs] == [[-1, -1, 80]]
    config = client.get_model_config("wide").config
    assert [state.input_name for state in config.sequence_batching.state] == ["c0", "h0"]
    assert config.sequence_batching.oldest.max_candidate_sequences == 1024
    assert client.get_inference_statistics("wide").model_stats[0].name == "wide"


def test_whole_sequences(client: Any, lstm: Model) -> None:
    for seed, shape in enumerate([(1, 1, 4), (9, 3, 4)]):
        x = randoms(*shape, seed=seed)
        outputs = [triton.InferRequestedOutput(name) for name in ("hn", "output")]
        found = client.infer("lstm", [tensor("input", x)], outputs=outputs, request_id="r")
        expected = lstm.run({"input": x})
        for name in ("hn", "output"):
            np.testing.assert_array_equal(found.as_numpy(name), expected[name])
        assert found.as_numpy("cn") is None
        assert found.get_response().id == "r"


def test_typed_contents_instead_of_raw_bytes(server: Server) -> None:
    """As clients write them that are generated from the protocol, without a library."""
    from lstm_onnx.serving.protocol.messages import MESSAGES

    request = MESSAGES["ModelInferRequest"](model_name="sum")
    x = request.inputs.add(name="x", datatype="INT64", shape=[1, 2])
    x.contents.int64_contents.extend([7, -3])
    keep = request.inputs.add(name="keep", datatype="BOOL", shape=[1, 2])
    keep.contents.bool_contents.extend([True, False])
    state = request.inputs.add(name="state", datatype="INT64", shape=[1, 2])
    state.contents.int64_contents.extend([1, 2])
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES["ModelInferResponse"].FromString,
        )
        found = call(request, timeout=LONG)
        assert np.frombuffer(found.raw_output_contents[0], np.int64).tolist() == [8, 2]
        state.contents.int64_contents.append(3)
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=LONG)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            raw(b"\xff\xff\xff", timeout=LONG)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_interleaved_sequences(server: Server, wide: Model) -> None:
    ids: list[int | str] = [*range(101, 109), *[f"grpc {index}" for index in range(8)]]

    async def caller(client: Any, number: int, key: int | str) -> None:
        alone = wide.stream()
        for index in range(6):
            x = randoms(1, 1 + (number + index) % 3, 80, seed=100 * number + index)
            inputs = [tensor("input", x, triton_aio)]
            flags = {"sequence_id": key, "sequence_start": index == 0, "sequence_end": index == 5}
            found = await client.infer("wide", inputs, **flags)
            np.testing.assert_array_equal(found.as_numpy("output"), alone(x))

    async def main() -> None:
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            await asyncio.gather(*[caller(client, number, key) for number, key in enumerate(ids)])

    asyncio.run(main())


def test_a_stream_of_requests(client: Any, wide: Model) -> None:
    """Sequences and whole sequences in one ModelStreamInfer, sent without waiting; errors come in band."""
    found: queue.Queue = queue.Queue()
    frames = {key: [randoms(1, 1, 80, seed=10 * key + index) for index in range(5)] for key in range(201, 207)}
    client.start_stream(lambda result, error: found.put((result, error)))
    for index in range(5):
        for key, chunks in frames.items():
            client.async_stream_infer(
                "wide",
                [tensor("input", chunks[index])],
                request_id=f"{key} {index}",
                sequence_id=key,
                sequence_start=index == 0,
                sequence_end=index == 4,
            )
    client.async_stream_infer("wide", [tensor("input", randoms(1, 1, 81))], request_id="wrong")
    client.async_stream_infer("wide", [tensor("input", frames[201][0])], request_id="whole")
    answers, errors = {}, []
    for _ in range(5 * len(frames) + 2):
        result, error = found.get(timeout=LONG)
        if error is None:
            answers[result.get_response().id] = result.as_numpy("output")
        else:
            errors.append(error)
    client.stop_stream()
    assert len(errors) == 1
    assert "input has shape (1, 1, 81)" in str(errors[0])
    np.testing.assert_array_equal(answers["whole"], wide.run({"input": frames[201][0]})["output"])
    for key, chunks in frames.items():
        alone = wide.stream()
        for index, x in enumerate(chunks):
            np.testing.assert_array_equal(answers[f"{key} {index}"], alone(x))


@pytest.mark.parametrize(
    ("model", "shape", "arguments", "code", "message"),
    [
        ("nobody", (1, 1, 4), {}, "NOT_FOUND", "there is no model 'nobody'"),
        ("lstm", (1, 1, 5), {}, "INVALID_ARGUMENT", "axis 2 must be 4"),
        ("lstm", (1, 1, 4), {"sequence_id": 12}, "INVALID_ARGUMENT", "sequence 12 of model lstm is not open"),
        ("lstm", (1, 100_000, 4), {}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_what_is_refused(
    client: Any, model: str, shape: tuple[int, ...], arguments: dict, code: str, message: str
) -> None:
    with pytest.raises(triton.InferenceServerException, match=message) as caught:
        client.infer(model, [tensor("input", randoms(*shape))], **arguments)
    assert caught.value.status() == f"StatusCode.{code}"


def test_streams_beyond_the_limit_and_a_full_queue(folder: Path) -> None:
    with (
        serving([folder / "lstm.onnx"], "--max-streams", "2") as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        x = randoms(1, 1, 4)
        for key in (1, 2):
            client.infer("lstm", [tensor("input", x)], sequence_id=key, sequence_start=True)
        with pytest.raises(triton.InferenceServerException, match="all 2 streams of lstm are open") as caught:
            client.infer("lstm", [tensor("input", x)], sequence_id=3, sequence_start=True)
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        client.infer("lstm", [tensor("input", x)], sequence_id=1, sequence_end=True)
        client.infer("lstm", [tensor("input", x)], sequence_id=3, sequence_start=True)
