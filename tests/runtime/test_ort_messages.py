"""What is kept of ONNX Runtime's messages."""

from __future__ import annotations

import pytest

from lstm_onnx.runtime.ort_messages import first_line


def test_first_line():
    assert first_line(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no\nsecond")) == "no"
    assert first_line(RuntimeError(" \n")) == "RuntimeError"


SOURCE = "/onnxruntime_src/onnxruntime/core/graph/model.cc:256"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Load model from /a dir/m.onnx failed:Protobuf parsing failed.", "Protobuf parsing failed."),
        (
            f"Load model from m.onnx failed:{SOURCE} ns::Model::Model(P&&, const L&) Version 99 (max: 13)\n",
            "Version 99 (max: 13)",
        ),
        (f"in Add. Status Message: {SOURCE} void ns::B::Init(int, int) axis == 1", "in Add. Status Message: axis == 1"),
        (f"{SOURCE} T ns::(anonymous namespace)::F(std::function<void(long)>&) const [with T = bool] CUDA 2", "CUDA 2"),
        (r"D:\a\_work\1\s\onnxruntime\core\a.cc:1 onnxruntime::CudaCall CUDA failure 2", "CUDA failure 2"),
        *(
            (text, text)
            for text in ("matmul_helper.h:59 dimension mismatch", "/a/b.h:3 sizes (2, 3) differ", 'no "/a b/w.data"')
        ),
    ],
)
def test_first_line_without_noise(said: str, kept: str):
    assert first_line(RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {said}")) == kept
