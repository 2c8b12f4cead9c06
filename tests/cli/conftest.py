"""The command line in this process: what it prints, and the code it leaves with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.cli import main

MODELS = Path(__file__).parents[2] / "models"


Invoke = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked_children: None
) -> Callable[..., Done]:
    """Run ``lstm-onnx ARGUMENTS`` in an empty folder; what a child process of it prints counts as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)  # what fails on purpose is not news there

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, printed.out, printed.err)

    return run


def made_once(files: dict[str, bytes], make: Callable[[], object]) -> None:
    """Have the files in this folder that `make` writes: it runs once, and what it wrote is kept in `files`."""
    if not files:
        make()
        files.update({path.name: path.read_bytes() for path in Path().iterdir()})
    for name, content in files.items():
        Path(name).write_bytes(content)


@pytest.fixture
def invoke(run_cli: Callable[..., Done]) -> Invoke:
    """The same for what is printed to stdout and stderr together."""

    def run(*arguments: str) -> tuple[int, str]:
        done = run_cli(*arguments)
        return done.code, done.out + done.err

    return run


@pytest.fixture
def toml(tmp_path: Path) -> Callable[..., Path]:
    """Write a model's .toml with safetensors weights beside it, so that nothing needs torch."""

    def write(name: str = "net", export: str = "", **sizes: object) -> Path:
        from safetensors.numpy import save_file

        from lstm_onnx.spec import LSTMSpec

        sizes = {"input_size": 4, "hidden_size": 3, **sizes}
        rng = np.random.default_rng(0)
        spec = LSTMSpec(**sizes)
        save_file(
            {key: rng.standard_normal(shape).astype(np.float32) for key, shape in spec.parameter_shapes().items()},
            tmp_path / f"{name}.safetensors",
        )
        lines = [f"{key} = {str(value).lower()}" for key, value in sizes.items()]
        path = tmp_path / f"{name}.toml"
        path.write_text(
            "[lstm]\n" + "\n".join(lines) + f'\n[weights]\nfile = "{name}.safetensors"\n[export]\n{export}\n'
        )
        return path

    return write
