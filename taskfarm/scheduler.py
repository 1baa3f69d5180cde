"""The state machine: an event in, actions out. No MPI, clock, pickle, thread or I/O; ids only."""

import math
from typing import NamedTuple

from taskfarm.backlog import Backlog
from taskfarm.batching import HORIZON, LOOK, Estimate, pace, patience
from taskfarm.load import Load
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


class Scheduler:
    """Decides which worker runs which tasks.

    Events are method calls; `assign`, `recall` and `fail_queued` return actions. Times are in seconds,
    of any clock that does not go back. First come,
    first served; an idle worker goes before one that gets work ahead of time, and the last one to
    fall idle before other idle ones.
    """

    def __init__(self) -> None:
        self._queue = Backlog()
        self._workers: dict[int, Load] = {}
        self._idle: dict[int, None] = {}
        self._short_of_work: dict[int, None] = {}
        self._estimates: dict[int, Estimate] = {}
        self._tasks = dict.fromkeys(TaskState, 0)
        self._submitted = self._batches = 0
        self._look = -math.inf

    def submit(self, span: Span, weight: int = 0) -> None:
        """Queue a span; `weight` is the bytes of arguments of one of its tasks."""
        self._move(span.count, None, TaskState.QUEUED)
        self._queue.append(span)
        if weight:
            self.estimate(span.function).weight = weight

    def submit_single(self, task: int, function: int, weight: int = 0) -> None:
        """Queue one task; tasks that are queued in a row travel in one span."""
        self._move(1, None, TaskState.QUEUED)
        self._queue.append_single(task, function)
        if weight:
            self.estimate(function).weight = weight

    def reject(self, count: int) -> None:
        """Count tasks that failed before they could be queued."""
        self._move(count, None, TaskState.QUEUED)
        self._move(count, TaskState.QUEUED, TaskState.FAILED)

    def cancel(self, first: int, count: int) -> list[Span]:
        """Cancel those of the `count` tasks from `first` on that are still queued, and return them."""
        cancelled = self._queue.cut_out(first, count)
        self._move(sum(span.count for span in cancelled), TaskState.QUEUED, TaskState.CANCELLED)
        return cancelled

    def cancel_queued(self) -> list[Span]:
        """Cancel all that is queued."""
        spans = self._queue.clear()
        self._move(sum(span.count for span in spans), TaskState.QUEUED, TaskState.CANCELLED)
        return spans

    def fail_queued(self) -> Fail:
        """Fail all that is queued: no worker can run it any more."""
        spans = self._queue.clear()
        self._move(sum(span.count for span in spans), TaskState.QUEUED, TaskState.FAILED)
        return Fail(spans)

    def add_worker(self, worker: int) -> None:
        """Take in a worker that is ready to run tasks."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} is there already")
        self._workers[worker] = Load()
        self._idle[worker] = None

    def remove_worker(self, worker: int) -> int:
        """Forget a lost worker; its tasks go back to the head of the queue. Returns how many."""
        state = self._workers.pop(worker, None)
        if state is None:
            return 0
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        spans = [span for span, _, _ in state.spans.values()]
        requeued = sum(span.count for span in spans)
        self._move(requeued, TaskState.ASSIGNED, TaskState.QUEUED)
        for span in reversed(spans):
            self._queue.put_back(span)
        return requeued

    def finish(
        self, worker: int, first: int, count: int, failed: int, seconds: float, nbytes: int, now: float
    ) -> bool:
        """Take in outcomes of the `count` tasks from `first` on, of which `failed` failed.

        They are the next ones of a span that the worker holds. Returns False, and changes nothing,
        if the worker holds no such span: a late word of a worker that was given up.
        """
        state = self._workers.get(worker)
        span = state.finish(first, count, now) if state else None
        if state is None or span is None:
            return False
        self._move(failed, TaskState.ASSIGNED, TaskState.FAILED)
        self._move(count - failed, TaskState.ASSIGNED, TaskState.DONE)
        self.estimate(span.function).learn(count, seconds, nbytes)
        self._rank(worker, state)
        return True

    def give_back(self, worker: int, first: int, count: int) -> bool:
        """Queue tasks again that a worker has not started; False if it holds no such tasks."""
        state = self._workers.get(worker)
        span = state.give_back(first, count) if state else None
        if state is None or span is None:
            return False
        self._move(count, TaskState.ASSIGNED, TaskState.QUEUED)
        self._queue.put_back(span)
        self._rank(worker, state)
        return True

    def take_back(
        self, worker: int, tasks: list[tuple[int, int]], running: tuple[int, int, float] | None
    ) -> bool:
        """Take in a worker's answer to a recall, as in `Returned`; False if it held not all of `tasks`."""
        if running is not None:
            function, count, seconds = running
            self.estimate(function).notice(count, seconds)
        return all([self.give_back(worker, first, count) for first, count in sorted(tasks, reverse=True)])

    def recall(self, now: float) -> list[int]:
        """Workers to ask for what they have not started: others are idle, and nothing is queued."""
        if self._queue or not self._idle or now < self._look:
            return []
        # With many workers, each look takes a while.
        self._look = now + max(LOOK, 1e-5 * len(self._workers))
        asked, patient = [], patience(len(self._workers))
        for worker, state in self._workers.items():
            if state.tasks > 1 and not state.recalled and now - state.heard > patient:
                state.recalled = True
                self._rank(worker, state)
                asked.append(worker)
        return asked

    def assign(self, now: float) -> list[Assign]:
        """Hand queued tasks to workers."""
        actions: list[Assign] = []
        while self._queue:
            worker = self._next_worker()
            if worker is None:
                break
            head = self._queue.head
            estimate = self.estimate(head.function)
            if not self._idle and not estimate.measured:
                break
            spans = self._take(head, estimate)
            state = self._workers[worker]
            self._batches += 1
            state.take(self._batches, spans, estimate.seconds, now)
            self._rank(worker, state)
            actions.append(Assign(worker, spans))
        return actions

    def _next_worker(self) -> int | None:
        """Who gets the next batch: who was at work last is awake, and answers soonest."""
        if self._idle:
            return next(reversed(self._idle))
        return next(iter(self._short_of_work), None)

    def _take(self, head: Span, estimate: Estimate) -> list[Span]:
        """Take the next batch off the head of the queue: spans of one function."""
        queued = self._tasks[TaskState.QUEUED]
        wanted = 1
        if queued > 1:
            wanted = head.chunk or estimate.size(queued, len(self._workers))
        spans = self._queue.take(wanted)
        self._move(sum([span.count for span in spans]), TaskState.QUEUED, TaskState.ASSIGNED)
        return spans

    def _rank(self, worker: int, state: Load) -> None:
        """Put a worker where its load belongs: idle, short of work, or neither."""
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        if not state.spans:
            self._idle[worker] = None
        elif state.wants_more(HORIZON * pace(len(self._workers))):
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
        estimate = self._estimates.get(function)
        if estimate is None:
            estimate = self._estimates[function] = Estimate()
        return estimate

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
    def has_idle(self) -> bool:
        """Whether some worker has nothing to do."""
        return bool(self._idle)

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
        held = sum(span.count for state in self._workers.values() for span, _, _ in state.spans.values())
        queued = self._queue.count
        if queued != self._tasks[TaskState.QUEUED] or held != self._tasks[TaskState.ASSIGNED]:
            raise AssertionError(f"{queued} queued and {held} assigned, but counted {self._tasks}")
        if sum(self._tasks.values()) != self._submitted or min(self._tasks.values()) < 0:
            raise AssertionError(f"{self._submitted} submitted, but counted {self._tasks}")
