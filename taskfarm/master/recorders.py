"""What recorders are told of tasks: gathered while somebody waits for them, passed on a little later."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from taskfarm.master.clock_offset import Offset
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.schedule.spans import Span

KEPT = 512
"""Events that are gathered before they are passed on."""


class Ran(NamedTuple):
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
        1 for the first try; calls that were tried before travel alone.
    batch : int
        The batch in which they were sent; batches are numbered from 1 on.
    failures : mapping of int to BaseException
        What calls raised, by offset.
    again : collection of int
        Offsets of those calls that will be tried again: their tasks have not ended.
    queued, sent, started, received : float
        When the tasks were queued and sent, when the first call started, and when the outcomes came.
    seconds : float
        How long the calls took together.
    nbytes : int
        Bytes of arguments and results, about.
    """

    worker: int
    function: RegisteredFunction
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    attempt: int
    batch: int
    failures: Mapping[int, BaseException]
    again: Collection[int]
    queued: float
    sent: float
    started: float
    seconds: float
    received: float
    nbytes: int


class Recorder:
    """Who is told what happens to tasks and workers; this one does nothing.

    Called under the master's lock, in the order of the events, which may be some while ago. Times are in
    seconds of the master's clock.
    """

    def joined(self, now: float, worker: int, host: str) -> None:
        """A worker has started."""

    def left(self, now: float, worker: int, why: str) -> None:
        """A worker was lost."""

    def sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """A batch was sent to a worker, which is one of so many."""

    def ended(self, ran: Ran) -> None:
        """Outcomes of some calls have come."""

    def failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Tasks have failed for a reason that was found on the master."""

    def flush(self) -> None:
        """What is to be seen from outside should be so now."""


class _Sent(NamedTuple):
    first: int
    end: int
    now: float
    batch: int


class Records:
    """Gathers events for recorders, and works out when things happened. True if there are recorders."""

    def __init__(self) -> None:
        self._recorders: list[Recorder] = []
        self._news: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._sent: dict[int, list[_Sent]] = {}
        self._offsets: dict[int, Offset] = {}
        self._attempts: dict[int, int] = {}
        self._batches = 0

    def __bool__(self) -> bool:
        return bool(self._recorders)

    def add(self, recorder: Recorder) -> None:
        """Tell a recorder, too, from now on."""
        self._recorders.append(recorder)

    def joined(self, now: float, worker: int, host: str) -> None:
        """Take in that a worker has started."""
        for recorder in self._recorders:
            self._take(recorder.joined, now, worker, host)

    def left(self, now: float, worker: int, why: str) -> None:
        """Take in that a worker was lost."""
        if self._recorders:
            self._take(self._forget, worker)
        for recorder in self._recorders:
            self._take(recorder.left, now, worker, why)

    def sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Take in a batch that goes to one of so many workers."""
        self._take(self._tell_sent, now, worker, spans, workers)

    def ended(
        self, now: float, worker: int, function: RegisteredFunction, queued: float, run: tuple[int, int, float, float],
        failures: Mapping[int, BaseException], again: Collection[int], nbytes: int,
    ) -> None:  # fmt: skip
        """Take in outcomes; `run` is first id, count, and start and seconds by the worker's clock."""
        self._take(self._tell_ended, now, worker, function, queued, run, failures, again, nbytes)

    def failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Take in that tasks have failed on the master."""
        for recorder in self._recorders:
            self._take(recorder.failed, now, function, first, count, error)

    def flush(self, now: float = 0.0) -> None:
        """Tell the recorders what has been gathered."""
        news, self._news = self._news, []
        for tell, arguments in news:
            tell(*arguments)
        for recorder in self._recorders:
            recorder.flush()

    def _take(self, tell: Callable[..., None], *arguments: Any) -> None:
        # A caller may be waiting for these tasks: what takes time comes later.
        self._news.append((tell, arguments))
        if len(self._news) >= KEPT:
            self.flush()

    def _tell_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        self._batches += 1
        sent = self._sent.setdefault(worker, [])
        sent.extend(_Sent(span.first, span.end, now, self._batches) for span in spans)
        for recorder in self._recorders:
            recorder.sent(now, worker, spans, workers)

    def _tell_ended(
        self, now: float, worker: int, function: RegisteredFunction, queued: float, run: tuple[int, int, float, float],
        failures: Mapping[int, BaseException], again: Collection[int], nbytes: int,
    ) -> None:  # fmt: skip
        first, count, started, seconds = run
        _, _, sent, batch = self._find(worker, first)
        offset = self._offsets.setdefault(worker, Offset())
        offset.learn(sent, started, started + seconds, now)
        started = max(sent, min(started + offset.seconds, now - seconds))
        attempt = self._attempts.pop(first, 1) if count == 1 else 1
        for task in again:
            self._attempts[first + task] = attempt + 1
        ran = Ran(
            worker, function, first, count, attempt, batch, failures, again,
            min(queued, sent), sent, started, seconds, now, nbytes,
        )  # fmt: skip
        for recorder in self._recorders:
            recorder.ended(ran)

    def _find(self, worker: int, first: int) -> _Sent:
        """The span with a task that was sent to a worker last; those before it are over."""
        sent = self._sent[worker]
        at = next(at for at in reversed(range(len(sent))) if sent[at].first <= first < sent[at].end)
        del sent[:at]
        return sent[0]

    def _forget(self, worker: int) -> None:
        self._sent.pop(worker, None)
        self._offsets.pop(worker, None)
