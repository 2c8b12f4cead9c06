"""The child process's side: it calls the requested functions and answers in lines of JSON."""

from __future__ import annotations

import importlib
import json
import os
import queue
import threading
from typing import IO, Any

from . import stages
from .limits import limit, prepare


def serve(parent: int) -> None:
    """Answer the requests on stdin until it is closed.

    Whatever the work prints goes to stderr, which the parent also reads.
    """
    prepare(parent)
    stages.send_to(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(questions, waiting), daemon=True).start()
    while True:
        stages.send(_answer(json.loads(waiting.get())))


def _read(questions: IO[str], waiting: queue.SimpleQueue[str]) -> None:
    for line in questions:
        waiting.put(line)
    os._exit(0)  # the parent has closed its end


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from ..errors import LSTMOnnxError

    stages.stage("starting")
    try:
        if question["folder"] is not None:
            os.chdir(question["folder"])
        function = resolved(question["function"])
        _forward_logs()
        limit(question["memory"], question["seconds"])
        return {"result": function(**question["arguments"])}
    except LSTMOnnxError as error:
        return {"error": [type(error).__name__, error.message, error.data()]}
    except MemoryError:
        return {"memory": True}
    except Exception as error:  # noqa: BLE001 - a bug, which the parent raises
        import traceback

        return {"bug": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def resolved(name: str) -> Any:
    """The function named ``module:name``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _forward_logs() -> None:
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stages.send({"log": [record.levelno, record.getMessage()]})

    log = logging.getLogger("lstm_onnx")
    if not log.handlers:
        log.addHandler(Forward())
        log.propagate = False
