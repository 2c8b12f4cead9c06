"""A fork does what a process of its own does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from .started import common_folder, programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")

SEEN = """
import os, sys, warnings, random, tempfile, threading
print(sys.argv, os.getcwd(), sys.path[0], os.environ["SEEN"], __name__, sys.warnoptions, sys.executable)
print([f[:4] for f in warnings.filters][-5:], sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors)
print(sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdin.read(), tempfile.gettempdir())
print(os.get_terminal_size.__name__, os.isatty(0), os.isatty(1), threading.active_count(), sys.flags.isolated)
print(sys.argv[0] == "-" or globals().get("__file__"), __builtins__.__name__, "__annotations__" in globals())
"""
PROGRAMS = {
    "nothing": ("", 0),
    "what is seen": (SEEN, 0),
    "an exit code": ("raise SystemExit(7)", 7),
    "an exit with words": ("raise SystemExit('why')", 1),
    "an exit that is negative": ("import sys; sys.exit(-1)", 255),
    "a hard exit": ("import os; print('lost'); os._exit(3)", 3),
    "an error": ("def f():\n    raise ValueError('é')\nf()", 1),
    "an error in the syntax": ("print(1\n2", 1),
    "an error of an import": ("import no_such_module", 1),
    "a hook for errors": ("import sys; sys.excepthook = lambda *a: print('mine', a[0])\n1 / 0", 1),
    "threads and exit handlers": (
        """
        import atexit, threading, time
        atexit.register(print, "at the end")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
        print("main")
        """,
        0,
    ),
    "both streams": ("import sys; print('out'); print('err', file=sys.stderr); sys.stdout.buffer.write(b'raw')", 0),
    "a warning": ("import warnings; warnings.warn('old')", 0),
    "a signal of its own": (
        "import os; print('before', flush=True); os.kill(os.getpid(), 15)",
        -15,
    ),
    "an interrupt": ("raise KeyboardInterrupt", -2),
    "an abort": ("import os; os.abort()", -6),
    "a child": ("import subprocess; print(subprocess.run(['echo', 'hi'], capture_output=True).stdout)", 0),
    "its own source": (
        "import inspect\ndef f(): pass\nprint(inspect.getsource(f))",
        1,
    ),
}


def both(
    arguments: list[str], alone: dict[str, str], forking: dict[str, str], folder: Path, **options: object
) -> subprocess.CompletedProcess[str]:
    """What a program does, which has to be the same as a fork."""
    found = [
        subprocess.run(
            arguments, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False, **options
        )  # type: ignore[call-overload]
        for env in (alone, forking)
    ]
    first, second = found
    assert (second.returncode, second.stdout, second.stderr) == (first.returncode, first.stdout, first.stderr)
    return first  # type: ignore[no-any-return]


@pytest.fixture
def environments(
    script_environment: dict[str, str], forking_environment: dict[str, str], tmp_path: Path
) -> tuple[dict[str, str], dict[str, str]]:
    more = {"SEEN": "é", "TMPDIR": str(tmp_path)}
    return {**script_environment, **more}, {**forking_environment, **more}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_what_it_is_alone(name: str, environments: tuple[dict[str, str], ...], tmp_path: Path) -> None:
    text, code = PROGRAMS[name]
    text = textwrap.dedent(text)
    assert both(["python", "-c", text, "more", "-x"], *environments, tmp_path, input="given").returncode == code
    (tmp_path / "program.py").write_text(text, encoding="utf-8")
    done = both(["python", "-W", "ignore", "program.py", "more"], *environments, tmp_path, input="given")
    assert done.returncode == (code if name != "its own source" else 0)
    both(["python", "-", "more"], *environments, tmp_path, input=text)


def test_warnings_are_errors_where_they_are_to_be(environments: tuple[dict[str, str], ...], tmp_path: Path) -> None:
    warn = ["-c", "import warnings; warnings.warn('old')"]
    assert both(["python", "-W", "error", *warn], *environments, tmp_path).returncode == 1
    for environment in environments:
        environment["PYTHONWARNINGS"] = "error"
    assert both(["python", *warn], *environments, tmp_path).returncode == 1


def test_it_is_a_fork_with_its_imports_done(forking_environment: dict[str, str], tmp_path: Path) -> None:
    program = "import sys, random; print('torch' in sys.modules, random.random())"

    def run(**more: str) -> list[str]:
        env = {**forking_environment, **more}
        done = subprocess.run(
            ["python", "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    first, second = run(), run()
    assert first[0] == second[0] == "True"
    assert first[1] != second[1]
    assert run(PYTHONPATH=str(tmp_path))[0] == "False"  # which a fork could not heed


def test_commands_and_modules(environments: tuple[dict[str, str], ...], tmp_path: Path) -> None:
    assert both(["lstm-onnx", "--version"], *environments, tmp_path).returncode == 0
    assert both(["lstm-onnx", "check", "nothing.onnx"], *environments, tmp_path).returncode == 2
    assert both(["lstm-onnx", "serve"], *environments, tmp_path).returncode == 2
    assert both(["python", "-m", "lstm_onnx", "nonsense"], *environments, tmp_path).returncode == 2
    assert both(["bash", "-c", "python -c 'print(1)' <&- | cat"], *environments, tmp_path).stdout == "1\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_it(number: signal.Signals, forking_environment: dict[str, str], tmp_path: Path) -> None:
    # many short sleeps: Python sees an interrupt that comes just before a sleep only after it
    program = "import os, time; print(os.getpid(), flush=True)\nfor _ in range(1200): time.sleep(0.05)"
    with subprocess.Popen(
        ["python", "-c", program], env=forking_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert pid != process.pid
        process.send_signal(number)
        assert process.wait(50) == -number
        until = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)


def test_workers_share_a_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, forking_environment: dict[str, str]
) -> None:
    with programs(common_folder(pytestconfig, tmp_path_factory)) as folder:
        assert str(folder) == forking_environment["PATH"].partition(os.pathsep)[0]
    assert subprocess.run(["python", "-c", "pass"], env=forking_environment, check=True).returncode == 0
    assert (Path(folder) / "socket").exists()  # the server goes on for the others
