"""Outcomes on their way to futures and maps."""

import threading
from collections import deque

from taskfarm.master.interfaces import ResultSink
from taskfarm.protocol.outcomes import Completed, apply_on_error
from taskfarm.schedule.policy import OnError


class Deliveries:
    """A queue of outcomes for their sinks.

    A sink may call the user's code, and that code may submit tasks, or wait and so run the event loop. So
    outcomes are queued under the master's lock and delivered without it.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[ResultSink, Completed, int | None, OnError]] = deque()
        self._delivering: set[int] = set()

    def add(self, sink: ResultSink, completed: Completed, offset: int | None, on_error: OnError) -> None:
        """Queue outcomes for their sink: the one at `offset`, or all."""
        self._waiting.append((sink, completed, offset, on_error))

    def fail_all(self, error: BaseException) -> None:
        """Replace every outcome that has not been delivered by an error."""
        for _ in range(len(self._waiting)):
            sink, completed, offset, _ = self._waiting.popleft()
            failed = Completed.failed(completed.first, error, len(completed.values))
            self.add(sink, failed, offset, "raise")

    @property
    def delivering(self) -> bool:
        """Whether this thread is delivering, further up its stack."""
        return threading.get_ident() in self._delivering

    def deliver(self) -> None:
        """Hand every outcome to its sink."""
        if not self._waiting:
            return
        nested = self.delivering
        self._delivering.add(threading.get_ident())
        try:
            while self._waiting:
                try:
                    sink, completed, offset, on_error = self._waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                if on_error != "raise":
                    completed = apply_on_error(completed, offset, on_error)
                sink.complete(completed, offset or 0)
        finally:
            if not nested:
                self._delivering.discard(threading.get_ident())
