"""Which streams a batch waits for, by a clock that the test sets."""

from __future__ import annotations

from typing import Any

import pytest

from lstm_onnx.runtime.batcher import request as request_queue
from lstm_onnx.runtime.batcher.request import QueuedStream, Request, RequestQueue
from lstm_onnx.runtime.pool.state_memory import Slot


class Server:
    """A queue whose clock stands still until it is set, with open streams."""

    def __init__(self, streams: int, monkeypatch: pytest.MonkeyPatch, max_batch: int = 64) -> None:
        self.now = 100.0
        monkeypatch.setattr(request_queue, "monotonic", lambda: self.now)
        self.queue = RequestQueue(max_batch, 0.25, 1000)
        self.streams = [QueuedStream(Slot(index)) for index in range(streams)]
        for stream in self.streams:
            self.queue.expect_opened(stream.slot)

    def ask(self, *indices: int) -> None:
        for index in indices:
            stream: Any = self.streams[index]
            self.queue.add(Request(stream, {}, None))

    def run(self) -> list[int]:
        """Answer the next batch; the numbers of its streams."""
        batch = self.queue.pop_batch()
        self.queue.expect_answered(batch)
        return [request.stream.slot.index for request in batch]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(4, monkeypatch)


def test_a_batch_waits_for_new_streams_within_the_window(served: Server) -> None:
    served.ask(0)
    assert served.queue.seconds_to_wait() == 0.25
    served.now += 0.125
    assert served.queue.seconds_to_wait() == 0.125
    served.ask(1, 2)
    assert not served.queue.is_full()
    served.ask(3)
    assert served.queue.is_full()
    assert served.queue.seconds_to_wait() == 0
    assert served.run() == [0, 1, 2, 3]


def test_nobody_waits_for_an_idle_stream(served: Server) -> None:
    served.now += 0.25
    for _ in range(3):
        served.ask(2)
        assert served.queue.seconds_to_wait() == 0
        assert served.run() == [2]
        served.now += 0.125  # only the stream itself is expected, within the window
        assert served.queue.seconds_to_wait() == 0.125


def test_streams_that_ask_again_at_once_stay_together(served: Server) -> None:
    for _ in range(5):
        for index in (3, 1, 0, 2):
            served.now += 0.03125
            assert served.queue.seconds_to_wait() > 0
            served.ask(index)
        assert served.queue.seconds_to_wait() == 0
        assert served.run() == [3, 1, 0, 2]


def test_nobody_waits_for_a_stream_whose_frames_come_at_intervals(served: Server) -> None:
    served.ask(0, 1, 2, 3)
    served.run()
    for _ in range(3):
        served.now += 1.0
        served.ask(0, 1)
        assert served.queue.seconds_to_wait() == 0
        assert served.run() == [0, 1]
        assert served.queue.seconds_to_wait() == 0
        assert not served.queue.expected
    served.ask(0)  # it asks at once again, and is expected from the next answer on
    assert served.run() == [0]
    served.ask(1)
    assert served.queue.seconds_to_wait() == 0.25
    served.ask(0)
    assert served.queue.seconds_to_wait() == 0


def test_nobody_waits_for_a_closed_stream(served: Server) -> None:
    served.ask(0, 1, 2)
    stream: Any = served.streams[3]
    assert served.queue.remove_stream(stream) == []
    assert served.queue.seconds_to_wait() == 0


def test_a_full_batch_or_queue_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Server(4, monkeypatch, max_batch=2)
    served.ask(0)
    assert served.queue.seconds_to_wait() > 0
    served.ask(1)
    assert served.queue.seconds_to_wait() == 0
    assert served.run() == [0, 1]
    served.queue.limit = 1
    served.ask(2)
    assert served.queue.seconds_to_wait() == 0


def test_a_stream_that_works_ahead_is_not_expected_twice(served: Server) -> None:
    served.now += 0.25
    served.ask(0, 0)
    assert served.run() == [0]
    assert served.queue.seconds_to_wait() == 0
    assert served.run() == [0]
    assert list(served.queue.expected) == [served.streams[0].slot]


def test_without_a_window_nobody_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Server(2, monkeypatch)
    served.queue.window = 0
    served.queue.expected.clear()
    served.queue.expect_opened(served.streams[1].slot)
    served.ask(0)
    assert served.queue.seconds_to_wait() == 0
