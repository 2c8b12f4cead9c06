"""Where nodes run: proven node by node, with placements that a machine without a GPU can only fake."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lstm_onnx.check import check
from lstm_onnx.errors import ProviderError
from lstm_onnx.runtime import providers
from lstm_onnx.runtime.providers import Placement, cuda_unavailable

from .models import PLAIN, PROJECTED, STACKED, export, failing, fake_cuda
from .violations import CASES, Case, base, nothing

gpu = pytest.mark.skipif(cuda_unavailable() is not None, reason="needs an NVIDIA GPU")


def test_every_node_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_cuda(monkeypatch)
    report = check(export(tmp_path, STACKED), provider="cuda", require=True)
    assert report, str(report)
    assert report.provider == "cuda"
    assert "nodes run on cuda" in str(report)
    lines = [line.strip() for line in str(report).splitlines() if "->" in line]
    assert "l0/LSTM (LSTM) -> CUDAExecutionProvider" in lines
    assert len(lines) == len(report.placements)


@pytest.mark.parametrize("provider", ["cuda", "auto"])
def test_a_node_that_computes_elsewhere(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_cuda(monkeypatch, "LSTM")
    path = export(tmp_path, STACKED)
    report = check(path, provider=provider)
    if provider == "cuda":
        assert "l0/LSTM (LSTM), l1/LSTM (LSTM): 2 of" in failing(report, "provider")
        assert "nodes are not on cuda" in str(report)
        assert "-> " not in str(report)  # which are many: told on request
    else:
        assert report, str(report)
        assert "but 2 on the CPU: l0/LSTM (LSTM), l1/LSTM (LSTM)" in str(report)
    # What runs is tried wherever it runs.
    assert next(finding for finding in report.findings if finding.rule == "runnable").passed
    required = check(path, provider=provider, require=True)
    assert "2 of" in failing(required, "provider")
    assert "l0/LSTM (LSTM) -> CPUExecutionProvider" in str(required)
    assert "l1/LSTM (LSTM) -> CPUExecutionProvider" in str(required)
    assert "-> CUDAExecutionProvider" in str(required)


def test_operators_on_shapes_may_stay_on_the_cpu_unless_all_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shapes = {"Shape", "Gather", "Unsqueeze", "Squeeze", "Concat", "Slice", "Cast", "Range", "Less"}
    fake_cuda(monkeypatch, *shapes)
    path = export(tmp_path, PROJECTED, lengths=True)
    report = check(path, provider="cuda")
    assert report, str(report)
    assert {item.provider for item in report.placements} == {"CPUExecutionProvider", "CUDAExecutionProvider"}
    required = check(path, provider="cuda", require=True)
    assert "nodes are not on cuda" in failing(required, "provider")
    assert "on the CPU by design: leave out --require" in str(required)


def test_many_nodes_elsewhere_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_cuda(monkeypatch, "LSTM")
    path = export(tmp_path, {**PLAIN, "num_layers": 8})
    assert "l4/LSTM (LSTM), ...: 8 of" in failing(check(path, provider="cuda"), "provider")


def test_what_is_proven_is_not_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opset 22 may go to the CPU of a CUDA session: with the session at hand it is known."""
    fake_cuda(monkeypatch)
    path = base(tmp_path, CASES["opset-on-cuda"], nothing)
    report = check(path, provider="cuda", strict=True)
    assert report, str(report)
    assert "opset-on-cuda" not in report.silent  # it was not asked
    fake_cuda(monkeypatch, "LSTM")
    assert failing(check(path, provider="cuda"), "provider")


def test_double_and_half_are_a_matter_of_the_cpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = base(tmp_path, CASES["float16-on-cpu"], nothing)
    assert "float16-on-cpu" in str(check(path, provider="cpu"))
    fake_cuda(monkeypatch)
    report = check(path, provider="cuda")
    assert report, str(report)
    assert "float16-on-cpu" in report.silent


def test_a_session_that_does_not_say_where_its_nodes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def silent(session: object) -> list[object]:
        raise RuntimeError("no such information")

    monkeypatch.setattr("lstm_onnx.check.execution.placements", silent)
    said = failing(check(base(tmp_path, Case(nothing), nothing), provider="cpu"), "provider")
    assert "does not say where its nodes run: no such information" in said


def test_a_provider_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A GPU is there, and its libraries are not: a matter of the machine, and not of the file."""

    def unusable(*_: object, **__: object) -> None:
        raise ProviderError("CUDA cannot be used: libcudnn.so.9 is missing")

    fake_cuda(monkeypatch)
    monkeypatch.setattr("lstm_onnx.check.execution.open_session", unusable)
    with pytest.raises(ProviderError, match="libcudnn"):
        check(export(tmp_path, PLAIN), provider="cuda")


@pytest.mark.cuda
@gpu
@pytest.mark.parametrize("options", [{}, {"lengths": True}, {"opset": 21}], ids=str)
def test_on_a_real_gpu_every_node_that_computes_is_there(options: dict, tmp_path: Path):
    report = check(export(tmp_path, STACKED, **options), provider="cuda")
    assert report, str(report)
    assert {item.provider for item in report.placements if item.op_type == "LSTM"} == {"CUDAExecutionProvider"}


@pytest.mark.cuda
@gpu
def test_on_a_real_gpu_a_variant_is_told(tmp_path: Path):
    """Whatever ONNX Runtime does with peepholes: on the CPU, or refused, and never passed."""
    path = base(tmp_path, Case(nothing, given=("initial_h", "initial_c")), CASES["variant-on-cuda"].breaks)
    report = check(path, provider="cuda")
    assert not report
    assert {finding.rule for finding in report.failures} <= {"provider", "runnable"}


# --- What the checker asks of the runtime ---


def test_the_operators_that_onnx_runtime_knows():
    known = providers.operator_versions()
    assert known["", "LSTM"] >= {7, 14}
    assert ("com.microsoft", "DynamicQuantizeLSTM") in known
    assert ("", "NoSuchOperator") not in known


def test_a_checker_sees_a_session_that_a_user_would_not_get(monkeypatch: pytest.MonkeyPatch):
    placed = [Placement("rnn", "LSTM", providers.CPU)]
    monkeypatch.setattr(providers, "placements", lambda _: placed)
    session = SimpleNamespace(get_providers=lambda: [providers.CUDA, providers.CPU])
    providers._require_cuda(session, every_node=False)
    with pytest.raises(ProviderError, match="CUDA has no kernel for 1 of the model's nodes"):
        providers._require_cuda(session)
    session = SimpleNamespace(get_providers=lambda: [providers.CPU])
    monkeypatch.setattr(providers, "_missing_library", lambda _: "libcudnn is missing")
    with pytest.raises(ProviderError, match="libcudnn"):
        providers._require_cuda(session, every_node=False)
