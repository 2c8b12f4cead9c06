"""The programs ``python`` and ``lstm-onnx`` that ask `server` for a fork: this file stands in front of them on PATH.

Run as ``python -IS program.py SOCKET INTERPRETER NAME ARGUMENT...``.  It imports next to nothing, so that it starts at
once.  It stays until its fork has ended, passes signals on to it, and ends as it did.  These run as themselves, in the
place of this process:

- ``lstm-onnx serve``, which is ended by signals and asked by other processes, and imports little;
- ``python -m`` and every option of Python's but ``-W``;
- programs with a closed stdin, stdout or stderr, and what is run where there is no server.
"""

import os
import select
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    address, interpreter, name, *arguments = sys.argv[1:]
    job = job_of(name, arguments)
    if job is not None and all(is_open(number) for number in range(3)):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(address)
            except OSError:
                pass
            else:
                wait(connection, job)
    program = interpreter if name == "python" else os.path.join(os.path.dirname(interpreter), name)  # noqa: PTH118, PTH120
    os.execv(program, [program, *arguments])  # noqa: S606 - without a shell


def job_of(name, arguments):
    """What to run: the warning filters, how the code is named, and sys.argv; None if only an interpreter can."""
    if name != "python":
        return None if arguments[:1] == ["serve"] else ([], "command", [name, *arguments])
    filters = []
    while arguments[:1] == ["-W"]:
        filters.append(arguments[1])
        arguments = arguments[2:]
    if arguments[:1] == ["-c"]:
        return filters, "text", ["-c", *arguments[2:], arguments[1]]
    if arguments[:1] == ["-"]:
        return filters, "stdin", arguments
    if arguments and not arguments[0].startswith("-"):
        return filters, "file", arguments
    return None


def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def wait(connection, job):
    """Have it run, and end as it ends."""
    import json

    filters, kind, arguments = job
    asked = {"filters": filters, "kind": kind, "arguments": arguments}
    asked |= {"folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109 - pathlib is not imported
    asked["ignored"] = [int(number) for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
    content = json.dumps(asked).encode()
    socket.send_fds(connection, [b"%16d" % len(content)], [0, 1, 2])
    connection.sendall(content)
    answers = connection.makefile("rb", buffering=0)
    pid = int(answers.readline() or 0)
    if pid == 0:  # its environment is not the one in which the server was started
        return
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(pid, number))
    # a signal that comes between two instructions, just before a read, is only seen when the read is over
    while not select.select([connection], [], [], 0.2)[0]:
        pass
    code = int(answers.readline() or -signal.SIGKILL)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
