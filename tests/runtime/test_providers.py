"""Providers: what was asked for or an error that names cause and remedy, and never a quiet CPU."""

from __future__ import annotations

import importlib
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lstm_onnx.check.execution import execute
from lstm_onnx.errors import FileError, InputError, MissingDependencyError, ModelError, ProviderError
from lstm_onnx.runtime import load, providers
from lstm_onnx.runtime.providers import (
    CPU,
    CPU_SHAPE_OPS,
    CUDA,
    Placement,
    cuda_unavailable,
    installed_wheels,
    off_cuda,
    onnxruntime,
    open_session,
    ort_errors,
    placements,
)

from .models import accumulator, exported, randoms

WITHOUT_GPU = pytest.mark.skipif(cuda_unavailable() is None, reason="needs a machine without a usable GPU")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    exported(tmp_path / "model.onnx", num_layers=2, bidirectional=True)
    return tmp_path / "model.onnx"


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was found out about this machine is forgotten before the test and after it."""
    caches = (onnxruntime, ort_errors, providers._gpus)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


# --- what was asked for -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "provider", ["gpu", "CUDA", "CoreMLExecutionProvider", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "", None, 3]
)
def test_a_misspelt_provider_is_told_what_is_allowed(model_file: Path, provider: Any):
    allowed = "auto, cpu, cuda, cuda:1, CPUExecutionProvider, CUDAExecutionProvider"
    with pytest.raises(ProviderError, match=rf'^provider "{provider}" is unknown; it must be one of {allowed}$'):
        load(model_file, provider=provider)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("CPUExecutionProvider", ("cpu", 0)),
        ("cuda:1", ("cuda", 1)),
        ("CUDAExecutionProvider", ("cuda", 0)),
        ("CUDAExecutionProvider:2", ("cuda", 2)),
    ],
)
def test_names_of_providers(provider: str, expected: tuple[str, int]):
    assert providers.parse_provider(provider) == expected


def test_onnx_runtime_s_own_name_of_the_cpu(model_file: Path):
    model = load(model_file, "CPUExecutionProvider")
    assert (model.provider, model.device_id) == ("cpu", 0)


def test_a_gpu_that_does_not_exist(fresh: None, monkeypatch: pytest.MonkeyPatch):
    driver(monkeypatch, devices=2)
    assert providers._no_such_device(1) is None
    assert providers._no_such_device(2) == "there is no device 2; the NVIDIA driver reports 2, counted from 0"


def test_the_device_reaches_the_provider_options():
    settings = providers._Settings("m.onnx", None, 0.0, True, 3, None, None)
    assert providers._provider_options(settings) == {"enable_cuda_graph": "1", "device_id": "3"}


# --- session options ----------------------------------------------------------------------------
def test_the_caller_s_session_options_are_used(model_file: Path):
    options = onnxruntime().SessionOptions()
    options.logid = "mine"
    options.intra_op_num_threads = 2
    model = load(model_file, "cpu", 1, session_options=options)
    used = model.session.get_session_options()
    assert (used.logid, used.intra_op_num_threads) == ("mine", 1)
    assert used.enable_cpu_mem_arena  # the default, which only our own options change
    plain = load(model_file, "cpu", 1)
    x = randoms(3, 1, 4)
    np.testing.assert_array_equal(model(x)[0], plain(x)[0])
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(model)
    assert pickle.loads(pickle.dumps(plain)).path == plain.file  # noqa: S301


def test_session_options_of_another_type(model_file: Path):
    with pytest.raises(InputError, match=r"must be an onnxruntime\.SessionOptions") as caught:
        load(model_file, "cpu", session_options={"intra_op_num_threads": 1})
    assert caught.value.name == "session_options"
    with pytest.raises(InputError, match="cannot be passed to the child process of a trial"):
        load(model_file, "cpu", session_options=onnxruntime().SessionOptions(), trial=True)


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", 10**12])
def test_threads_are_a_positive_integer(model_file: Path, threads: Any):
    with pytest.raises(InputError, match=r"^threads = .* must be from 1 to 1024, or None"):
        load(model_file, "cpu", threads=threads)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads_reach_the_session_and_do_not_spin(model_file: Path, threads: int | None):
    options = load(model_file, "cpu", threads).session.get_session_options()
    assert options.intra_op_num_threads == (threads or 0)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(("spin", "microseconds"), [(1, "1000000"), (0.001, "1000"), (1e-9, "1")])
def test_spinning_is_for_as_long_as_is_asked_for(model_file: Path, spin: float, microseconds: str):
    model = load(model_file, "cpu", 2, spin=spin)
    options = model.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == microseconds
    assert pickle.loads(pickle.dumps(model)).spin == spin  # noqa: S301 - our own
    x = randoms(3, 2, 4)
    assert np.allclose(model(x)[0], load(model_file, "cpu")(x)[0], atol=1e-6)


@pytest.mark.parametrize("spin", [-1e-3, 1.5, True, "1", None, float("nan")])
def test_spin_is_a_time(model_file: Path, spin: Any):
    with pytest.raises(InputError, match=r"^spin = .* is not possible; it must be seconds, from 0 to 1$"):
        load(model_file, "cpu", spin=spin)


def test_an_onnx_runtime_that_is_too_old_is_refused(model_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnxruntime(), "__version__", "1.26.2")
    onnxruntime.cache_clear()
    with pytest.raises(
        MissingDependencyError, match=r"^ONNX Runtime 1\.26\.2 is too old: 1\.27 or newer is needed; pip"
    ):
        load(model_file, "cpu")


def test_bytes_open_as_a_file_does(model_file: Path):
    session, used = open_session(model_file.read_bytes(), "cpu")
    assert used == "cpu"
    assert [arg.name for arg in session.get_inputs()] == ["input", "h0", "c0"]
    with pytest.raises(ModelError, match=r"^the model: ONNX Runtime cannot open it: "):
        open_session(b"nothing", "cpu")


def test_placements_report_every_node(model_file: Path):
    placed = placements(load(model_file, "cpu").session)
    assert {item.provider for item in placed} == {CPU}
    assert sorted(item.node for item in placed if item.op_type == "LSTM") == ["l0/LSTM", "l1/LSTM"]


@WITHOUT_GPU
def test_cuda_without_a_gpu_is_an_error_with_cause_and_remedy(model_file: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ProviderError, match=r"^CUDA cannot be used: .+; (use provider \"cpu\"|pip uninstall)|, CUDA"):
        load(model_file, provider="cuda")
    assert capfd.readouterr() == ("", "")


@WITHOUT_GPU
def test_auto_without_a_gpu_is_the_cpu(model_file: Path):
    model = load(model_file)
    assert model.provider == "cpu"
    assert model.session.get_providers() == [CPU]
    assert model(randoms(3, 2, 4))[0].shape == (3, 2, 10)


@WITHOUT_GPU
def test_a_cuda_provider_that_does_not_load_is_told(
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    # As on a machine with a GPU and its driver, and without CUDA's libraries.
    monkeypatch.setattr(providers, "cuda_unavailable", lambda: None)
    with pytest.raises(ProviderError, match=r"^CUDA cannot be used: .*(pip install 'lstm-onnx\[cuda\]'|CUDA versions)"):
        load(model_file, "cuda")
    with caplog.at_level(logging.WARNING, "lstm_onnx"):
        assert load(model_file, "auto").provider == "cpu"
    assert "ONNX Runtime cannot use the GPU and runs on the CPU" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_failed_open_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = accumulator(tmp_path / "a.onnx")
    # An operator that no domain has: valid protobuf, refused by ONNX Runtime.
    path.write_bytes(path.read_bytes().replace(b"Add", b"Adx"))
    with pytest.raises(ModelError, match=r"a\.onnx: ONNX Runtime cannot open it: .*Adx") as caught:
        load(path, "cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError):
        load(tmp_path / "gone.onnx", "cpu")
    assert capfd.readouterr() == ("", "")


def test_out_of_memory_while_opening(model_file: Path, monkeypatch: pytest.MonkeyPatch):
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(onnxruntime(), "InferenceSession", exhausted)
    with pytest.raises(ModelError, match=r"model\.onnx: ran out of memory while opening it$"):
        open_session(model_file, "cpu")


def test_threads_that_cannot_be_started_are_no_fault_of_the_model(model_file: Path, monkeypatch: pytest.MonkeyPatch):
    """As where a container allows few of them; and `check` gives no verdict on the model then."""
    failure = ort_errors()[0]

    def limited(*_: object, **__: object) -> None:
        raise failure("pthread_create failed, error code: 11 error msg: Resource temporarily unavailable")

    monkeypatch.setattr(onnxruntime(), "InferenceSession", limited)
    with pytest.raises(ProviderError, match=r"cannot start its threads: Resource temporarily unavailable; pass fewer"):
        open_session(model_file, "cpu")
    with pytest.raises(ProviderError, match="cannot start its threads"):
        execute(str(model_file), "cpu", require=False, batches={})


# --- the driver's own word ----------------------------------------------------------------------
def driver(monkeypatch: pytest.MonkeyPatch, *, status: int = 0, devices: int = 0, missing: bool = False) -> None:
    """A CUDA driver in place of this machine's."""

    def count(pointer: Any) -> int:
        pointer._obj.value = devices
        return 0

    def opened(name: str) -> SimpleNamespace:
        if missing:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count)

    monkeypatch.setattr(providers.ctypes, "CDLL", opened)
    module = SimpleNamespace(get_available_providers=lambda: [CUDA, CPU])
    monkeypatch.setattr(providers, "onnxruntime", lambda: module)


@pytest.mark.usefixtures("fresh")
def test_no_driver(monkeypatch: pytest.MonkeyPatch):
    driver(monkeypatch, missing=True)
    assert "no NVIDIA driver is installed" in str(cuda_unavailable())
    assert 'use provider "cpu", or install the driver' in str(cuda_unavailable())


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("status", "devices"), [(100, 1), (0, 0)])
def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch, status: int, devices: int):
    driver(monkeypatch, status=status, devices=devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    expected = f'the NVIDIA driver reports no usable GPU, CUDA status {status}; use provider "cpu"'
    assert cuda_unavailable() == expected


@pytest.mark.usefixtures("fresh")
def test_a_hidden_gpu(monkeypatch: pytest.MonkeyPatch):
    driver(monkeypatch, status=100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "(CUDA_VISIBLE_DEVICES is set)" in str(cuda_unavailable())


@pytest.mark.usefixtures("fresh")
def test_a_gpu_with_its_driver(monkeypatch: pytest.MonkeyPatch):
    driver(monkeypatch, devices=1)
    assert cuda_unavailable() is None


def test_an_onnx_runtime_built_without_cuda(monkeypatch: pytest.MonkeyPatch):
    module = SimpleNamespace(get_available_providers=lambda: [CPU])
    monkeypatch.setattr(providers, "onnxruntime", lambda: module)
    assert "built without it; pip uninstall -y onnxruntime, then pip install" in str(cuda_unavailable())


def test_nodes_off_cuda():
    on = Placement("l0/LSTM", "LSTM", CUDA)
    off = Placement("l1/LSTM", "LSTM", CPU)
    shapes = [Placement("", op_type, CPU) for op_type in CPU_SHAPE_OPS]
    assert off_cuda([on, *shapes]) == []
    assert off_cuda([on, off, *shapes]) == [off]


def test_a_session_that_runs_a_node_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch):
    placed = [Placement("l0/LSTM", "LSTM", CPU), Placement("", "Scan", CPU), Placement("l0/output", "Transpose", CUDA)]
    monkeypatch.setattr(providers, "placements", lambda _: placed)
    session = SimpleNamespace(get_providers=lambda: [CUDA, CPU])
    with pytest.raises(
        ProviderError, match=r"no kernel for 2 of the model's nodes \(l0/LSTM \(LSTM\), unnamed \(Scan\)\); .*opset 21"
    ):
        providers._require_cuda(session)
    placed[:] = [placed[2]]
    providers._require_cuda(session)


# --- ONNX Runtime's wheels ----------------------------------------------------------------------
def test_wheels_are_found_by_name(tmp_path: Path):
    names = ("onnxruntime-1.31.1.dist-info", "onnxruntime_gpu-1.31.1.dist-info", "onnxruntime_extensions-1.dist-info")
    assert installed_wheels(tmp_path) == []
    for name in (*names, "onnxruntime"):
        (tmp_path / name).mkdir()
    assert installed_wheels(tmp_path) == ["onnxruntime", "onnxruntime-gpu"]
    (tmp_path / names[0]).rmdir()
    assert installed_wheels(tmp_path) == ["onnxruntime-gpu"]


def test_this_environment_has_one_wheel():
    site_packages = Path(onnxruntime().__path__[0]).parent
    assert len(installed_wheels(site_packages)) == 1


@pytest.mark.usefixtures("fresh")
def test_both_wheels_are_refused_with_the_mending_command(model_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(providers, "installed_wheels", lambda _: ["onnxruntime", "onnxruntime-gpu"])
    with pytest.raises(
        MissingDependencyError,
        match=r"^onnxruntime and onnxruntime-gpu are both installed .*; "
        r"pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'lstm-onnx\[gpu\]'$",
    ):
        load(model_file, "cpu")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("half", [False, True], ids=["absent", "half_removed"])
def test_no_onnx_runtime(model_file: Path, monkeypatch: pytest.MonkeyPatch, half: bool):
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name != "onnxruntime":
            return real(name, package)
        if half:
            return SimpleNamespace(__name__=name)
        raise ImportError("No module named 'onnxruntime'")

    monkeypatch.setattr(providers.importlib, "import_module", import_module)
    with pytest.raises(
        MissingDependencyError, match=r"^ONNX Runtime cannot be imported \(.+\); pip install 'lstm-onnx\[gpu\]'"
    ) as caught:
        load(model_file, "cpu")
    assert isinstance(caught.value, ImportError)
