"""What recorders learn about tasks and workers: a log of events, passed on a little later."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from taskfarm.master.clock_offset import ClockOffset
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.schedule.spans import Span

MAX_EVENTS = 512
"""Events that the log keeps before it passes them on."""


class FinishedCalls(NamedTuple):
    """Calls of one function that a worker made in a row. Times are in seconds of the master's clock.

    Attributes
    ----------
    worker : int
        Its rank.
    function : RegisteredFunction
        The function.
    first, count : int
        Id of the first task, and number of calls.
    attempt : int
        1 for the first attempt; retries travel alone.
    batch : int
        The batch in which the calls were sent; batches are numbered from 1 on.
    failures : mapping of int to BaseException
        What calls raised, by offset.
    retried : collection of int
        Offsets of the calls that will be retried: their tasks have not ended.
    queued, sent, started : float
        When the tasks were queued, when they were sent, and when the first call started.
    seconds : float
        How long the calls took together.
    received : float
        When the outcomes arrived.
    nbytes : int
        Approximate size of arguments and results, in bytes.
    """

    worker: int
    function: RegisteredFunction
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    attempt: int
    batch: int
    failures: Mapping[int, BaseException]
    retried: Collection[int]
    queued: float
    sent: float
    started: float
    seconds: float
    received: float
    nbytes: int


class Recorder:
    """Learns what happens to tasks and workers; this one ignores it.

    Its methods are called under the master's lock, in the order of the events, and some time after them.
    Times are in seconds of the master's clock.
    """

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """A worker has started."""

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """A worker was lost."""

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """A batch was sent to a worker, one of `workers`."""

    def function_sent(self, function: RegisteredFunction, nbytes: int) -> None:
        """A worker was sent a function and what it refers to."""

    def calls_finished(self, calls: FinishedCalls) -> None:
        """The outcomes of some calls have arrived."""

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Tasks have failed for a reason that was found on the master."""

    def flush(self) -> None:
        """Make what was recorded visible to others."""


class PartTiming(NamedTuple):
    """When a worker ran some calls, in seconds of its own clock."""

    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    started: float
    seconds: float


class _Sent(NamedTuple):
    first: int
    end: int
    now: float
    batch: int


class EventLog:
    """Collects events for recorders, and works out when things happened. True if there are recorders."""

    def __init__(self) -> None:
        self._recorders: list[Recorder] = []
        self._events: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._sent: dict[int, list[_Sent]] = {}
        self._offsets: dict[int, ClockOffset] = {}
        self._attempts: dict[int, int] = {}
        self._batches = 0

    def __bool__(self) -> bool:
        return bool(self._recorders)

    def add(self, recorder: Recorder) -> None:
        """Pass all later events to a recorder, too."""
        self._recorders.append(recorder)

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Log that a worker has started."""
        for recorder in self._recorders:
            self._append(recorder.worker_joined, now, worker, host)

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Log that a worker was lost."""
        if self._recorders:
            self._append(self._forget, worker)
        for recorder in self._recorders:
            self._append(recorder.worker_lost, now, worker, why)

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Log a batch that goes to one of `workers` workers."""
        self._append(self._dispatch_sent, now, worker, spans, workers)

    def function_sent(self, function: RegisteredFunction, nbytes: int) -> None:
        """Log that a worker was sent a function and what it refers to."""
        for recorder in self._recorders:
            self._append(recorder.function_sent, function, nbytes)

    def calls_finished(
        self,
        now: float,
        worker: int,
        function: RegisteredFunction,
        queued: float,
        timing: PartTiming,
        failures: Mapping[int, BaseException],
        retried: Collection[int],
        nbytes: int,
    ) -> None:
        """Log outcomes; `timing` is by the worker's clock."""
        self._append(
            self._dispatch_finished, now, worker, function, queued, timing, failures, retried, nbytes
        )

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Log that tasks have failed on the master."""
        for recorder in self._recorders:
            self._append(recorder.tasks_failed, now, function, first, count, error)

    def flush(self, now: float = 0.0) -> None:
        """Pass the collected events on to the recorders."""
        events, self._events = self._events, []
        for notify, arguments in events:
            notify(*arguments)
        for recorder in self._recorders:
            recorder.flush()

    def _append(self, notify: Callable[..., None], *arguments: Any) -> None:
        # A caller may be waiting for these tasks: what takes time comes later.
        self._events.append((notify, arguments))
        if len(self._events) >= MAX_EVENTS:
            self.flush()

    def _dispatch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        self._batches += 1
        sent = self._sent.setdefault(worker, [])
        sent.extend(_Sent(span.first, span.end, now, self._batches) for span in spans)
        for recorder in self._recorders:
            recorder.batch_sent(now, worker, spans, workers)

    def _dispatch_finished(
        self,
        now: float,
        worker: int,
        function: RegisteredFunction,
        queued: float,
        timing: PartTiming,
        failures: Mapping[int, BaseException],
        retried: Collection[int],
        nbytes: int,
    ) -> None:
        first, count, started, seconds = timing
        _, _, sent, batch = self._find(worker, first)
        offset = self._offsets.setdefault(worker, ClockOffset())
        offset.update(sent, started, started + seconds, now)
        started = max(sent, min(started + offset.seconds, now - seconds))
        attempt = self._attempts.pop(first, 1) if count == 1 else 1
        for task in retried:
            self._attempts[first + task] = attempt + 1
        calls = FinishedCalls(
            worker=worker,
            function=function,
            first=first,
            count=count,
            attempt=attempt,
            batch=batch,
            failures=failures,
            retried=retried,
            queued=min(queued, sent),
            sent=sent,
            started=started,
            seconds=seconds,
            received=now,
            nbytes=nbytes,
        )
        for recorder in self._recorders:
            recorder.calls_finished(calls)

    def _find(self, worker: int, first: int) -> _Sent:
        """The last span sent to a worker that holds a task; the spans before it are over."""
        sent = self._sent[worker]
        at = next(at for at in reversed(range(len(sent))) if sent[at].first <= first < sent[at].end)
        del sent[:at]
        return sent[0]

    def _forget(self, worker: int) -> None:
        self._sent.pop(worker, None)
        self._offsets.pop(worker, None)
