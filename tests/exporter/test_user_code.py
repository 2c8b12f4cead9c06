"""The line that is shown is the user's."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import lstm_onnx
from lstm_onnx import ExportError, InputError
from lstm_onnx.exporter import module, user_code
from lstm_onnx.exporter.functional.functional_module import call_forward
from lstm_onnx.exporter.user_code import causes, error_line, first_line, stack_line, user_line


def number_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(text))


def generated(code: str, *namespaces: dict[str, Any]) -> None:
    """Run code that no user wrote, as that which torch generates."""
    exec(compile(code, "<eval_with_key>.1", "exec"), *namespaces)  # noqa: S102


def test_the_innermost_line_on_the_stack() -> None:
    shown = user_line()  # first
    assert shown == f"test_user_code.py:{number_of('# first')}: shown = user_line()  # first"


def test_pythons_own_library_is_passed_over() -> None:
    class Asking(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append(stack_line() or record.msg)
            return False

    seen: list[str] = []
    logger = logging.getLogger("lstm_onnx.tests.user_code")
    logger.addFilter(Asking())
    logger.warning("once")
    assert "seen.append" in seen[0]


def test_what_lies_above_the_call_of_a_forward_is_no_line_of_it() -> None:
    linear = torch.nn.Linear(2, 3)
    with pytest.raises(ExportError, match=r"^the module's forward fails: RuntimeError"):
        call_forward(functools.partial(linear, torch.zeros(1, 5)))  # torch's own from here on
    found: list[str | None] = []
    namespace = {"found": found, "stack_line": stack_line}
    generated("def forward(): found.append(stack_line())", namespace)
    call_forward(namespace["forward"])
    assert found == [None]
    generated("def forward(): found.append(user_line())", namespace | {"user_line": user_line}, namespace)
    call_forward(namespace["forward"])
    assert found[1] == "no line of Python"


def test_the_line_that_calls_export_is_no_line_of_a_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the traces of a module nothing of its code is on the stack."""
    found: list[str | None] = []
    namespace = {"found": found, "stack_line": stack_line, "own": module.run_trials}
    code = "def noted(*args, **options):\n    found.append(stack_line())\n    return own(*args, **options)"
    generated(code, namespace)
    monkeypatch.setattr(module, "run_trials", namespace["noted"])
    layers = torch.nn.Sequential(torch.nn.LSTM(2, 3)).eval()
    lstm_onnx.export(layers, tmp_path / "m.onnx", example_inputs=torch.zeros(4, 2, 2))
    assert found == [None]


def test_the_line_of_an_error_and_of_its_cause() -> None:
    def fails() -> None:
        raise KeyError("x")  # raised

    try:
        fails()
    except KeyError as error:
        shown = error_line(error)
        hidden = RuntimeError("made elsewhere")
        hidden.__cause__ = error
        assert error_line(hidden) == shown
    assert shown == f'test_user_code.py:{number_of("# raised")}: raise KeyError("x")  # raised'
    assert error_line(ValueError("never raised")) is None


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("<stdin>", True),
        ("<python-input-3>", True),
        ("<ipython-input-1-a0b1>", True),
        ("<string>", True),
        ("<eval_with_key>.1", False),
        ("<frozen importlib._bootstrap>", False),
        (torch.nn.modules.rnn.__file__, False),
        (str(Path(torch.__file__).parents[1] / "torchaudio" / "models.py"), True),
        (lstm_onnx.exporter.__file__, False),
        (str(Path(lstm_onnx.__file__).parents[1] / "lstm_onnx_models" / "net.py"), True),
    ],
)
def test_code_that_was_typed_in_is_the_users_and_that_of_packages_beside_torch(name: str, users: bool) -> None:
    """Else sizes that such code compares go unseen."""
    assert user_code.is_user_code(name) == users


def test_a_colon_at_the_end_is_left_out() -> None:
    for _ in range(1):
        if line := user_line():  # asks:
            pass
    assert not line.endswith(":")
    assert user_code.format_line("/nowhere/at/all.py", 3) == "all.py:3"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\n  first\nsecond", "first"),
        ("\x1b[96mThis is step 1/3\x1b[0m of exporting", "This is step 1/3 of exporting"),
        ("narrow() got (int, SymFloat), but expected one of:\n * (int)", "narrow() got (int, SymFloat)"),
        ("the cause:\n it", "the cause"),
        ("", ""),
    ],
)
def test_the_first_line_of_an_error(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line


def test_an_error_that_was_being_handled_before_is_no_cause() -> None:
    """A second export after a failed one, within its except, has nothing to do with the first one's error."""

    def fails(text: str) -> None:
        raise RuntimeError(text)

    def second() -> RuntimeError:
        with pytest.raises(RuntimeError) as caught:
            fails("second")
        return caught.value

    try:
        fails("first")
    except RuntimeError as first:
        error, before = second(), first
        found = list(causes(error))
        error.__cause__ = first  # unless it is said to be one
        said = list(causes(error))
    assert error.__context__ is before
    assert found == [error]
    assert said == [error, before]


def test_what_a_converted_module_refuses_is_a_forward_that_fails() -> None:
    def forward() -> None:
        raise InputError("x has another shape")

    with pytest.raises(ExportError, match=r"the module's forward fails.*InputError: x has another shape"):
        call_forward(forward)
