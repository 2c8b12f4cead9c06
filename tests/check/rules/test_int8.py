"""Rules on int8 kernels: files of each, where they run, and what is silent about the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_onnx.check import CheckReport, check
from lstm_onnx.check.rules import precision
from lstm_onnx.quantization import quantize
from tests.runtime.models import exported

from ..models import fake_cuda

RULES = ("int8-saturation", "int8-batch", "int8-in-browsers", "int8-on-cuda", "int8-without-vnni")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("int8")
    exported(folder / "m.onnx", input_size=40, hidden_size=40)
    kernels = ("MatMulInteger", "DynamicQuantizeLSTM", "MatMulNBits")
    for kernel in kernels:
        quantize(folder / "m.onnx", folder / f"{kernel}.onnx", kernel=kernel)
    return {kernel: folder / f"{kernel}.onnx" for kernel in kernels}


def told(report: CheckReport) -> set[str]:
    return {finding.rule for finding in report.findings if finding.violated and finding.rule in RULES}


@pytest.mark.parametrize(
    ("kernel", "vnni", "expected"),
    [
        ("MatMulInteger", True, set()),
        ("MatMulInteger", False, set()),
        ("DynamicQuantizeLSTM", False, {"int8-batch"}),
        ("MatMulNBits", True, {"int8-in-browsers"}),
        ("MatMulNBits", False, {"int8-in-browsers", "int8-without-vnni"}),
    ],
)
def test_what_a_kernel_gives_up_is_said(
    kernel: str, vnni: bool, expected: set[str], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    flags = frozenset({"avx2", "avx512_vnni"} if vnni else {"avx2"})
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    report = check(files[kernel], provider="cpu")
    assert report, str(report)
    assert told(report) == expected


@pytest.mark.parametrize("kernel", ["MatMulInteger", "MatMulNBits"])
def test_products_of_unsigned_bytes_are_not_for_cuda(
    kernel: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    fake_cuda(monkeypatch)
    report = check(files[kernel], provider="cuda")
    assert ("int8-on-cuda" in told(report)) is (kernel == "MatMulInteger")
