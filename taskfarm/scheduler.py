"""The state machine: an event in, actions out. No MPI, clock, pickle, thread or I/O; ids only."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from taskfarm.batching import HORIZON, Estimate
from taskfarm.task import Counts, Span, TaskState

TRANSITIONS: dict[TaskState | None, frozenset[TaskState]] = {
    None: frozenset({TaskState.QUEUED}),
    TaskState.QUEUED: frozenset({TaskState.ASSIGNED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.ASSIGNED: frozenset({TaskState.QUEUED, TaskState.DONE, TaskState.FAILED}),
    TaskState.DONE: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}
"""Which state may follow which; None is "not yet submitted"."""


class Assign(NamedTuple):
    """Action: send these spans to this worker as one batch."""

    worker: int
    spans: list[Span]


class Fail(NamedTuple):
    """Action: tell the owners of these spans that no worker can run them."""

    spans: list[Span]


@dataclass(slots=True)
class _Worker:
    """A worker's unfinished spans by first id, each with its estimated seconds at assignment."""

    spans: dict[int, tuple[Span, float]] = field(default_factory=dict)
    seconds: float = 0.0


class Scheduler:
    """Decides which worker runs which tasks.

    Events are method calls; `assign`, `remove_worker` and `fail_queued` return actions. First come,
    first served; an idle worker goes before one that gets work ahead of time.
    """

    def __init__(self) -> None:
        self._queue: OrderedDict[int, Span] = OrderedDict()
        self._workers: dict[int, _Worker] = {}
        self._idle: dict[int, None] = {}
        self._short_of_work: dict[int, None] = {}
        self._estimates: dict[int, Estimate] = {}
        self._tasks = dict.fromkeys(TaskState, 0)
        self._submitted = 0

    def submit(self, span: Span, weight: int = 0) -> None:
        """Queue a span; `weight` is the bytes of arguments of one of its tasks."""
        self._move(span.count, None, TaskState.QUEUED)
        self._queue[span.first] = span
        if weight:
            self.estimate(span.function).weight = weight

    def reject(self, count: int) -> None:
        """Count tasks that failed before they could be queued."""
        self._move(count, None, TaskState.QUEUED)
        self._move(count, TaskState.QUEUED, TaskState.FAILED)

    def cancel(self, first: int, count: int) -> list[Span]:
        """Cancel those of the `count` tasks from `first` on that are still queued, and return them."""
        span = self._queue.get(first)
        if span and span.count == count:
            del self._queue[first]
            cancelled = [span]
        else:
            cancelled = self._cut_out(first, first + count)
        self._move(sum(span.count for span in cancelled), TaskState.QUEUED, TaskState.CANCELLED)
        return cancelled

    def _cut_out(self, first: int, last: int) -> list[Span]:
        """Take the tasks from `first` up to `last` out of the queue, wherever spans begin and end."""
        kept: OrderedDict[int, Span] = OrderedDict()
        taken = []
        for span in self._queue.values():
            low, high = max(span.first, first), min(span.first + span.count, last)
            if low >= high:
                kept[span.first] = span
                continue
            before, rest = span.split(low - span.first)
            inside, after = rest.split(high - low)
            taken.append(inside)
            kept.update((part.first, part) for part in (before, after) if part.count)
        self._queue = kept
        return taken

    def cancel_queued(self) -> list[Span]:
        """Cancel all that is queued."""
        spans = list(self._queue.values())
        self._queue.clear()
        self._move(sum(span.count for span in spans), TaskState.QUEUED, TaskState.CANCELLED)
        return spans

    def fail_queued(self) -> Fail:
        """Fail all that is queued: no worker can run it any more."""
        spans = list(self._queue.values())
        self._queue.clear()
        self._move(sum(span.count for span in spans), TaskState.QUEUED, TaskState.FAILED)
        return Fail(spans)

    def add_worker(self, worker: int) -> None:
        """Take in a worker that is ready to run tasks."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} is there already")
        self._workers[worker] = _Worker()
        self._idle[worker] = None

    def remove_worker(self, worker: int) -> int:
        """Forget a lost worker; its tasks go back to the head of the queue. Returns how many."""
        state = self._workers.pop(worker, None)
        if state is None:
            return 0
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        spans = [span for span, _ in state.spans.values()]
        requeued = sum(span.count for span in spans)
        self._move(requeued, TaskState.ASSIGNED, TaskState.QUEUED)
        for span in reversed(spans):
            self._requeue(span)
        return requeued

    def finish(self, worker: int, first: int, count: int, failed: int, seconds: float, nbytes: int) -> bool:
        """Take in outcomes of the `count` tasks from `first` on, of which `failed` failed.

        They are the next ones of a span that the worker holds. Returns False, and changes nothing,
        if the worker holds no such span: a late word of a worker that was given up.
        """
        state = self._workers.get(worker)
        held = state.spans.pop(first, None) if state else None
        if state is None or held is None:
            return False
        span, estimate = held
        spent = estimate * count / span.count
        if count < span.count:
            rest = span.split(count)[1]
            state.spans[rest.first] = (rest, estimate - spent)
        self._move(failed, TaskState.ASSIGNED, TaskState.FAILED)
        self._move(count - failed, TaskState.ASSIGNED, TaskState.DONE)
        self.estimate(span.function).learn(count, seconds, nbytes)
        state.seconds = state.seconds - spent if state.spans else 0.0
        self._rank(worker, state)
        return True

    def assign(self) -> list[Assign]:
        """Hand queued tasks to workers."""
        actions: list[Assign] = []
        while self._queue:
            worker = next(iter(self._idle or self._short_of_work), None)
            if worker is None:
                break
            estimate = self.estimate(next(iter(self._queue.values())).function)
            if not self._idle and not estimate.measured:
                break
            spans = self._take(estimate)
            state = self._workers[worker]
            for span in spans:
                seconds = span.count * estimate.seconds
                state.spans[span.first] = (span, seconds)
                state.seconds += seconds
            self._rank(worker, state)
            actions.append(Assign(worker, spans))
        return actions

    def _take(self, estimate: Estimate) -> list[Span]:
        """Take the next batch off the head of the queue: spans of one function."""
        head = next(iter(self._queue.values()))
        wanted = head.chunk or estimate.size(self._tasks[TaskState.QUEUED], len(self._workers))
        spans: list[Span] = []
        room = wanted
        while room and self._queue:
            span = self._queue.popitem(last=False)[1]
            if span.function != head.function or span.chunk != head.chunk:
                self._requeue(span)
                break
            if span.count > room:
                span, rest = span.split(room)
                self._requeue(rest)
            spans.append(span)
            room -= span.count
        self._move(wanted - room, TaskState.QUEUED, TaskState.ASSIGNED)
        return spans

    def _requeue(self, span: Span) -> None:
        self._queue[span.first] = span
        self._queue.move_to_end(span.first, last=False)

    def _rank(self, worker: int, state: _Worker) -> None:
        """Put a worker where its load belongs: idle, short of work, or neither."""
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        if not state.spans:
            self._idle[worker] = None
        elif state.seconds < HORIZON:
            self._short_of_work[worker] = None

    def _move(self, count: int, old: TaskState | None, new: TaskState) -> None:
        if new not in TRANSITIONS[old]:
            raise AssertionError(f"no task goes from {old} to {new}")
        if old is None:
            self._submitted += count
        else:
            self._tasks[old] -= count
        self._tasks[new] += count

    def estimate(self, function: int) -> Estimate:
        """What is known of a function's tasks; kept up to date."""
        return self._estimates.setdefault(function, Estimate())

    def forget(self, function: int) -> None:
        """Drop the estimate of a function that will not be called again under this id."""
        self._estimates.pop(function, None)

    @property
    def workers(self) -> int:
        """Workers that are ready or at work."""
        return len(self._workers)

    @property
    def unfinished(self) -> int:
        """Tasks queued or assigned."""
        return self._tasks[TaskState.QUEUED] + self._tasks[TaskState.ASSIGNED]

    @property
    def assigned(self) -> int:
        """Tasks at a worker."""
        return self._tasks[TaskState.ASSIGNED]

    @property
    def can_assign(self) -> bool:
        """Whether some worker could take a queued task now."""
        return bool(self._queue and (self._idle or self._short_of_work))

    def counts(self) -> Counts:
        """Tasks by state, and workers."""
        tasks = self._tasks
        return Counts(
            queued=tasks[TaskState.QUEUED],
            assigned=tasks[TaskState.ASSIGNED],
            done=tasks[TaskState.DONE],
            failed=tasks[TaskState.FAILED],
            cancelled=tasks[TaskState.CANCELLED],
            workers=len(self._workers),
            busy=len(self._workers) - len(self._idle),
        )

    def check(self) -> None:
        """Raise AssertionError unless every task submitted is in exactly one state."""
        held = sum(span.count for state in self._workers.values() for span, _ in state.spans.values())
        queued = sum(span.count for span in self._queue.values())
        if queued != self._tasks[TaskState.QUEUED] or held != self._tasks[TaskState.ASSIGNED]:
            raise AssertionError(f"{queued} queued and {held} assigned, but counted {self._tasks}")
        if sum(self._tasks.values()) != self._submitted or min(self._tasks.values()) < 0:
            raise AssertionError(f"{self._submitted} submitted, but counted {self._tasks}")
