"""`StepFuture`: the result of a step that was requested without waiting for it."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from typing import Any

from ...errors import RunError
from ..arguments import seconds
from .request import LOST, Request
from .scheduler import Scheduler


class StepFuture(Future[Any]):
    """The result of a step.  Created by `BatchedStream.submit`; its methods may be called from any thread."""

    def __init__(self, scheduler: Scheduler, request: Request) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._stream = request.stream  # which is open as long as the caller waits for its result
        self._request: Request | None = request
        """None once it is done."""

    def cancel(self) -> bool:
        """Take the request back; False where the step is running or done."""
        request = self._request
        if request is None or not self._scheduler.drop(request) or not super().cancel():
            return self.cancelled()
        self._request = request.future = None
        self.set_running_or_notify_cancel()  # so that concurrent.futures.wait sees it
        return True

    def result(self, timeout: float | None = None) -> Any:
        """What `BatchedStream.step` returns; the calling thread sleeps until then.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            InputError, RunError: as `step` does; or `timeout` is not possible.
            concurrent.futures.CancelledError: it was cancelled.
            TimeoutError: it is not done yet; it still waits for its turn.
        """
        try:
            return super().result(self._timeout(timeout))
        except CancelledError:
            raise CancelledError("the step was cancelled before it ran; the stream is unchanged") from None
        except TimeoutError:
            if self.done():
                raise
            raise TimeoutError(f"no output within {timeout} s; the step still waits for its turn") from None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error of the step, None where it has none; arguments and errors as for `result`."""
        return super().exception(self._timeout(timeout))

    def set_result(self, result: Any) -> None:
        """As every Future's; who keeps this does not keep the request, and with it the results of the whole batch."""
        self._request = None
        super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """The same for an error."""
        self._request = None
        super().set_exception(exception)

    def _timeout(self, timeout: float | None) -> float | None:
        """The validated timeout; in a forked child a step that is not done never will be."""
        if self.done():
            return timeout
        if self._scheduler.lost:
            raise RunError(LOST)
        self._scheduler.require_other_thread()
        return None if timeout is None else seconds("timeout", timeout, threading.TIMEOUT_MAX)
