"""The CPU's instructions, and what they mean for int8."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lstm_onnx.runtime import cpu


def test_the_flags_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cpu.cpu_flags.cache_clear()
    try:
        here = cpu.cpu_flags()
        known = Path("/proc/cpuinfo")
        assert bool(here) is (
            known.exists()
            and re.search("^(flags|Features)", known.read_text(errors="replace"), re.MULTILINE) is not None
        )
        monkeypatch.setattr(cpu, "Path", lambda _: tmp_path / "cpuinfo")
        for text, flags in (
            ("model name : x\nflags\t\t: fpu avx2\n", {"fpu", "avx2"}),
            ("Features : asimd asimddp\nCPU part : 0xd0c\n", {"asimd", "asimddp"}),
        ):
            cpu.cpu_flags.cache_clear()
            (tmp_path / "cpuinfo").write_text(text)
            assert cpu.cpu_flags() == flags
        (tmp_path / "cpuinfo").unlink()
        cpu.cpu_flags.cache_clear()
        assert cpu.cpu_flags() == frozenset()
    finally:
        cpu.cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("flags", "fast", "text"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, True, "AVX512-VNNI, AVX512, AVX2: int8 products are exact"),
        ({"avx2", "avx_vnni"}, True, "AVX-VNNI, AVX2:"),
        ({"avx2", "avx512f", "avx512_vnni", "amx_int8"}, True, "AMX, "),
        ({"avx2"}, False, "AVX2 without VNNI: 8-bit weights saturate"),
        ({"asimd", "asimddp"}, True, "dot products (ARM)"),
        (set(), None, "unknown here"),
    ],
)
def test_what_a_cpu_means_for_int8(flags: set[str], fast: bool | None, text: str):
    found, why = cpu.int8_instructions(frozenset(flags))
    assert found is fast
    assert text in why
