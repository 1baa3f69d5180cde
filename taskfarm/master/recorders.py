"""What recorders learn about tasks and workers: a log of events, passed on a little later."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from taskfarm.console import say
from taskfarm.master.clock_offset import ClockOffset
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.schedule.spans import Span

MAX_EVENTS = 512
"""Events that the log keeps before it passes them on."""

MAX_SENT = 10_000
"""Spans of one worker that the log keeps until their outcomes arrive."""


def say_switched_off(view: object, error: BaseException) -> None:
    """Say that a recorder or an observer has failed, and that the run continues without it."""
    name = getattr(view, "__qualname__", type(view).__qualname__)
    say(f"{name} has failed, and is switched off: {summarize(error)}; the run continues")


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
    cpu, core_wait : float
        CPU seconds of the calls, and seconds for which they could have run but had no core.
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
    cpu: float = 0.0
    core_wait: float = 0.0


class Recorder:
    """Learns what happens to tasks and workers; this one ignores it.

    Its methods are called under the master's lock, in the order of the events, and some time after them. If
    one raises, that is said once, and the recorder is not called any more: the run does not depend on it.
    Times are in seconds of the master's clock.
    """

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """A worker has started."""

    def worker_initialized(self, now: float, worker: int, seconds: float) -> None:
        """A worker has run an initializer, which took some seconds."""

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """A worker was lost."""

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """A batch was sent to a worker, one of `workers`."""

    def worker_held(self, now: float, worker: int, since: float) -> None:
        """A worker was idle until now because it was held for a task on several ranks."""

    def waiting_changed(self, now: float, some_wait: bool) -> None:
        """From now on, some tasks need results of others before they can start or go on, or none does."""

    def task_suspended(self, now: float, worker: int, task: int, queued: float, sent: float) -> None:
        """A task waits for tasks that it has submitted; its worker is free for these meanwhile."""

    def task_resumed(self, now: float, worker: int) -> None:
        """The task that was suspended last on a worker goes on.

        Not told if the worker has run another task since then.
        """

    def function_sent(self, function: RegisteredFunction, nbytes: int) -> None:
        """A worker was sent a function and what it refers to."""

    def calls_finished(self, calls: FinishedCalls) -> None:
        """The outcomes of some calls have arrived."""

    def task_depends(self, task: int, on: int) -> None:
        """A task that is about to be queued got the result of another one."""

    def tasks_dropped(self, first: int, count: int) -> None:
        """Tasks will not run: they were cancelled, or what they depend on has failed."""

    def member_finished(self, calls: FinishedCalls) -> None:
        """A worker has run its share of a task on several ranks, and is not the first of them."""

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Tasks have failed for a reason that was found on the master."""

    def flush(self) -> None:
        """Make what was recorded visible to others."""


class PartTiming(NamedTuple):
    """When a worker ran some calls, in seconds of its own clock; `cpu` and `core_wait` as in `Outcomes`."""

    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    started: float
    seconds: float
    cpu: float = 0.0
    core_wait: float = 0.0


class _Sent(NamedTuple):
    first: int
    end: int
    now: float
    batch: int


class EventLog:
    """Collects events for recorders, and works out when things happened. True if there are recorders.

    Attributes
    ----------
    recorders : list of Recorder
        Who learns of the events.
    """

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []
        self._events: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._sent: dict[int, list[_Sent]] = {}
        self._offsets: dict[int, ClockOffset] = {}
        self._attempts: dict[int, int] = {}
        self._batches = 0
        self._some_wait = False

    def __bool__(self) -> bool:
        return bool(self.recorders)

    def add(self, recorder: Recorder) -> None:
        """Pass all later events to a recorder, too."""
        self.recorders.append(recorder)

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Log that a worker has started."""
        if self.recorders:
            self._append(self._tell, "worker_joined", now, worker, host)

    def worker_initialized(self, now: float, worker: int, seconds: float) -> None:
        """Log that a worker has run an initializer."""
        if self.recorders:
            self._append(self._tell, "worker_initialized", now, worker, seconds)

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Log that a worker was lost."""
        if self.recorders:
            self._append(self._forget, worker)
            self._append(self._tell, "worker_lost", now, worker, why)

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Log a batch that goes to one of `workers` workers."""
        self._append(self._dispatch_sent, now, worker, spans, workers)

    def gang_sent(self, now: float, members: Sequence[int], span: Span, workers: int) -> None:
        """Log a task that goes to several of `workers` workers."""
        self._append(self._dispatch_gang, now, members, span, workers)

    def worker_held(self, now: float, worker: int, since: float) -> None:
        """Log that a worker was idle because it was held."""
        if self.recorders:
            self._append(self._tell, "worker_held", now, worker, since)

    def waiting_changed(self, now: float, some_wait: bool) -> None:
        """Log whether some tasks wait for others from now on, if that has changed."""
        if some_wait is not self._some_wait and self.recorders:
            self._some_wait = some_wait
            self._append(self._tell, "waiting_changed", now, some_wait)

    def task_suspended(self, now: float, worker: int, task: int, queued: float) -> None:
        """Log that a task waits for tasks that it has submitted."""
        if self.recorders:
            self._append(self._dispatch_suspended, now, worker, task, queued)

    def task_resumed(self, now: float, worker: int) -> None:
        """Log that the task that was suspended last on a worker goes on."""
        if self.recorders:
            self._append(self._tell, "task_resumed", now, worker)

    def member_finished(
        self, now: float, worker: int, function: RegisteredFunction, timing: PartTiming
    ) -> None:
        """Log the share of a worker that is not the first one of its task."""
        nobody: dict[int, BaseException] = {}
        self._append(self._dispatch_member, now, worker, function, timing, nobody)

    def function_sent(self, function: RegisteredFunction, nbytes: int) -> None:
        """Log that a worker was sent a function and what it refers to."""
        if self.recorders:
            self._append(self._tell, "function_sent", function, nbytes)

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

    def task_depends(self, task: int, on: int) -> None:
        """Log that a task got the result of another one."""
        if self.recorders:
            self._append(self._tell, "task_depends", task, on)

    def tasks_dropped(self, first: int, count: int) -> None:
        """Log that tasks will not run."""
        if self.recorders:
            self._append(self._tell, "tasks_dropped", first, count)

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Log that tasks have failed on the master."""
        if self.recorders:
            self._append(self._tell, "tasks_failed", now, function, first, count, error)

    def flush(self, now: float = 0.0) -> None:
        """Pass the collected events on to the recorders."""
        events, self._events = self._events, []
        for notify, arguments in events:
            notify(*arguments)
        self._tell("flush")

    def _tell(self, what: str, *arguments: Any) -> None:
        """Call a method of all recorders; one that raises is not called again."""
        for recorder in list(self.recorders):
            try:
                getattr(recorder, what)(*arguments)
            except (Exception, SystemExit) as error:
                self.recorders.remove(recorder)
                say_switched_off(recorder, error)

    def _append(self, notify: Callable[..., None], *arguments: Any) -> None:
        # A caller may be waiting for these tasks: what takes time comes later.
        self._events.append((notify, arguments))
        if len(self._events) >= MAX_EVENTS:
            self.flush()

    def _dispatch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        self._batches += 1
        sent = self._sent.setdefault(worker, [])
        if len(sent) > MAX_SENT:
            # Of tasks that the worker has returned, and that have ended elsewhere.
            del sent[: MAX_SENT // 2]
        sent.extend(_Sent(span.first, span.end, now, self._batches) for span in spans)
        self._tell("batch_sent", now, worker, spans, workers)

    def _dispatch_gang(self, now: float, members: Sequence[int], span: Span, workers: int) -> None:
        self._dispatch_sent(now, members[0], [span], workers)
        for worker in members[1:]:
            sent = self._sent.setdefault(worker, [])
            sent.append(_Sent(span.first, span.end, now, self._batches))

    def _dispatch_suspended(self, now: float, worker: int, task: int, queued: float) -> None:
        at = self._index_of(worker, task)
        sent = now if at is None else self._sent[worker][at].now
        self._tell("task_suspended", now, worker, task, min(queued, sent), sent)

    def _dispatch_member(
        self,
        now: float,
        worker: int,
        function: RegisteredFunction,
        timing: PartTiming,
        failures: Mapping[int, BaseException],
    ) -> None:
        attempt = self._attempts.get(timing.first, 1)
        calls = self._finished(now, worker, function, now, timing, failures, (), 0, attempt)
        self._tell("member_finished", calls)

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
        first, count = timing[:2]
        attempt = self._attempts.pop(first, 1) if count == 1 else 1
        for task in retried:
            self._attempts[first + task] = attempt + 1
        calls = self._finished(now, worker, function, queued, timing, failures, retried, nbytes, attempt)
        self._tell("calls_finished", calls)

    def _finished(
        self,
        now: float,
        worker: int,
        function: RegisteredFunction,
        queued: float,
        timing: PartTiming,
        failures: Mapping[int, BaseException],
        retried: Collection[int],
        nbytes: int,
        attempt: int,
    ) -> FinishedCalls:
        """Calls in the master's time."""
        first, count, started, seconds, cpu, core_wait = timing
        _, _, sent, batch = self._find(worker, first, count, started)
        offset = self._offsets.setdefault(worker, ClockOffset())
        offset.update(sent, started, started + seconds, now)
        started = max(sent, min(started + offset.seconds, now - seconds))
        return FinishedCalls(
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
            cpu=cpu,
            core_wait=core_wait,
        )

    def _find(self, worker: int, first: int, count: int, now: float) -> _Sent:
        """The last span sent to a worker that holds a task; the `count` tasks from `first` on are over.

        Outcomes may come in another order than the spans, since some are unpickled while others arrive.
        """
        at = self._index_of(worker, first)
        if at is None:
            return _Sent(first, first + count, now, 0)
        sent = self._sent[worker]
        found = sent[at]
        rest = found._replace(first=first + count)
        sent[at : at + 1] = [rest] if rest.first < rest.end else []
        return found

    def _index_of(self, worker: int, task: int) -> int | None:
        """Where the last span sent to a worker that holds a task stands in its list."""
        sent = self._sent.get(worker, ())
        for at in reversed(range(len(sent))):
            found = sent[at]
            if found.first <= task < found.end:
                return at
        return None

    def _forget(self, worker: int) -> None:
        self._sent.pop(worker, None)
        self._offsets.pop(worker, None)
