"""The state machine: events in, actions out. No MPI, clock, pickle, thread or I/O; ids only."""

import math
from collections.abc import Callable, Collection
from itertools import chain

from taskfarm.schedule.actions import Assign, Fail
from taskfarm.schedule.attempts import Attempts
from taskfarm.schedule.batching import (
    PREFETCH_BATCHES,
    RECALL_INTERVAL,
    Estimate,
    batch_seconds,
    recall_after,
)
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.spans import Span
from taskfarm.schedule.states import Counts, StateCounts, TaskState
from taskfarm.schedule.worker_load import WorkerLoad


class Scheduler:
    """Decides which worker runs which tasks.

    Events are method calls; some return actions. Times are in seconds, of any monotonic clock. Tasks
    are served first come, first served. Idle workers come before workers that prefetch, and the worker
    that fell idle last comes first.

    Attributes
    ----------
    attempts : Attempts
        Failures and worker deaths per task, and the limits on them.
    """

    def __init__(self) -> None:
        self._queue = TaskQueue()
        self.attempts = Attempts()
        self._draining = False
        self._workers: dict[int, WorkerLoad] = {}
        self._idle: dict[int, None] = {}
        self._short_of_work: dict[int, None] = {}
        self._estimates: dict[int, Estimate] = {}
        self._states = StateCounts()
        self._batches = 0
        self._next_recall = -math.inf

    def submit(self, span: Span, argument_bytes: int = 0) -> None:
        """Queue a span; `argument_bytes` is the size of the arguments of one of its tasks."""
        self._states.transition(span.count, None, TaskState.QUEUED)
        self._queue.append(span)
        if argument_bytes:
            self.estimate(span.function).argument_bytes = argument_bytes

    def submit_single(self, task: int, function: int, argument_bytes: int = 0) -> None:
        """Queue one task; consecutive tasks of one function form one span."""
        self._states.transition(1, None, TaskState.QUEUED)
        self._queue.append_single(task, function)
        if argument_bytes:
            self.estimate(function).argument_bytes = argument_bytes

    def reject(self, count: int) -> None:
        """Count tasks that failed before they could be queued."""
        self._states.transition(count, None, TaskState.FAILED)

    def restore(self, count: int) -> None:
        """Count tasks whose results an earlier run has left."""
        self._states.transition(count, None, TaskState.DONE)

    def cancel(self, first: int, count: int) -> list[Span]:
        """Cancel and return those of the `count` tasks from `first` on that are still queued."""
        cancelled = self._queue.remove(first, count)
        self._states.transition(
            sum(span.count for span in cancelled), TaskState.QUEUED, TaskState.CANCELLED
        )
        return cancelled

    def cancel_queued(self) -> list[Span]:
        """Cancel and return all queued tasks."""
        spans = self._queue.clear()
        self._states.transition(sum(span.count for span in spans), TaskState.QUEUED, TaskState.CANCELLED)
        return spans

    def fail_queued(self) -> Fail:
        """Fail all queued tasks: no worker can run them any more."""
        spans = self._queue.clear()
        self._states.transition(sum(span.count for span in spans), TaskState.QUEUED, TaskState.FAILED)
        return Fail(spans)

    def add_worker(self, worker: int) -> None:
        """Add a worker that is ready to run tasks."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} has already been added")
        self._workers[worker] = WorkerLoad()
        self._idle[worker] = None

    def remove_worker(self, worker: int) -> Fail:
        """Remove a lost worker, and queue its tasks again at the head.

        Tasks that it may have been running are sent one by one from now on. Those that have reached the
        limit of worker deaths fail and are returned.
        """
        load = self._workers.pop(worker, None)
        if load is None:
            return Fail([])
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        running, waiting = load.split_running()
        requeued, failed = self.attempts.worker_died(running)
        self._states.transition(len(failed), TaskState.ASSIGNED, TaskState.FAILED)
        self._states.transition(load.tasks - len(failed), TaskState.ASSIGNED, TaskState.QUEUED)
        for span in reversed(requeued + waiting):
            self._queue.push_front(span)
        return Fail(failed)

    def finish(
        self,
        worker: int,
        first: int,
        count: int,
        failed: Collection[int],
        seconds: float,
        nbytes: int,
        now: float,
    ) -> list[int] | None:
        """Record the outcomes of the `count` tasks from `first` on; `failed` holds the offsets of failures.

        The tasks are the next ones of a span that the worker holds. Returns the offsets of the tasks that
        are retried. If the worker holds no such span, returns None and changes nothing: the outcomes are
        late, from a worker that was given up.
        """
        span = self.answer(worker, first, count, seconds, nbytes, now)
        return None if span is None else self.settle(worker, span, first, count, failed)

    def answer(
        self, worker: int, first: int, count: int, seconds: float, nbytes: int, now: float
    ) -> Span | None:
        """Record that a worker has run tasks whose outcomes `settle` records later; as `finish` otherwise.

        Until then it is not known which of them have failed, but the worker is free. Returns their span.
        """
        load = self._workers.get(worker)
        span = load.finish(first, count, now) if load else None
        if load is None or span is None:
            return None
        self.estimate(span.function).update(count, seconds, nbytes)
        self._reclassify(worker, load)
        return span

    def settle(self, worker: int, span: Span, first: int, count: int, failed: Collection[int]) -> list[int]:
        """Record the outcomes of tasks of a span that a worker has answered; returns which are retried."""
        retried: list[int] = []
        if failed:
            may_retry = self.attempts.may_retry
            retried = [offset for offset in failed if may_retry(span.function, first + offset)]
            for offset in retried:
                single = Span(span.source, first + offset, 1, span.function, span.chunk)
                self._queue.append_retry(single, worker)
            self._states.retried += len(retried)
            self._states.transition(len(retried), TaskState.ASSIGNED, TaskState.QUEUED)
            self._states.transition(len(failed) - len(retried), TaskState.ASSIGNED, TaskState.FAILED)
        self._states.transition(count - len(failed), TaskState.ASSIGNED, TaskState.DONE)
        if self.attempts and not retried:
            self.attempts.forget(first, count)
        return retried

    def requeue(self, worker: int, first: int, count: int) -> bool:
        """Queue again tasks that a worker has not started; False if it holds no such tasks."""
        load = self._workers.get(worker)
        span = load.remove_unstarted(first, count) if load else None
        if load is None or span is None:
            return False
        self._states.transition(count, TaskState.ASSIGNED, TaskState.QUEUED)
        self._queue.push_front(span)
        self._reclassify(worker, load)
        return True

    def finish_recall(
        self, worker: int, tasks: list[tuple[int, int]], running: tuple[int, int, float] | None
    ) -> bool:
        """Record a worker's answer to a recall, as in `Returned`; False if it did not hold all `tasks`."""
        if running is not None:
            function, count, seconds = running
            self.estimate(function).update_running(count, seconds)
        elif tasks and (load := self._workers.get(worker)) is not None:
            load.recall_backoff *= 2
        all_held = True
        # Each requeued span goes to the head of the queue, so the last must come first.
        for first, count in sorted(tasks, reverse=True):
            if not self.requeue(worker, first, count):
                all_held = False
        return all_held

    def recall(self, now: float) -> list[int]:
        """Return the workers to recall unstarted tasks from, if others are idle and nothing is queued."""
        if self._queue.has_spans or not self._idle or now < self._next_recall:
            return []
        # The check takes time in proportion to the number of workers.
        self._next_recall = now + max(RECALL_INTERVAL, 1e-5 * len(self._workers))
        limit = recall_after(len(self._workers))
        return self._mark_recalled(lambda load: now - load.last_answer > limit * load.recall_backoff)

    def drain(self, on: bool = True) -> list[int]:
        """Stop or resume assigning tasks; returns the workers to recall unstarted tasks from."""
        self._draining = on
        return self._mark_recalled(lambda load: on)

    def _mark_recalled(self, due: Callable[[WorkerLoad], bool]) -> list[int]:
        recalled: list[int] = []
        for worker, load in self._workers.items():
            if load.tasks > 1 and not load.recalled and due(load):
                load.recalled = True
                self._reclassify(worker, load)
                recalled.append(worker)
        return recalled

    def assign(self, now: float) -> list[Assign]:
        """Assign queued tasks to workers."""
        actions: list[Assign] = []
        queue = self._queue
        while (self._idle or self._short_of_work) and not self._draining:
            worker = self._next_for_retry() if queue.retries else None
            if worker is not None:
                spans = queue.take_retry(worker, len(self._workers) == 1)
                function = spans[0].function
            else:
                worker = self._next_worker()
                head = queue.head
                if worker is None or head is None:
                    break
                function = head.function
                if not self._idle and not self.estimate(function).largest_measured:
                    break
                spans = self._take(head, self.estimate(function))
            self._states.transition(
                sum([span.count for span in spans]), TaskState.QUEUED, TaskState.ASSIGNED
            )
            load = self._workers[worker]
            self._batches += 1
            load.add(self._batches, spans, self.estimate(function).seconds, now)
            self._reclassify(worker, load)
            actions.append(Assign(worker, spans))
        return actions

    def _next_for_retry(self) -> int | None:
        """Return the worker for the next retry: the first free one on which the task has not failed."""
        if not self._queue.retries:
            return None
        alone = len(self._workers) == 1
        for worker in chain(reversed(self._idle), self._short_of_work):
            if alone or len(self._queue.retries) > 1 or worker not in self._queue.retries:
                return worker
        return None

    def _next_worker(self) -> int | None:
        """Return the worker for the next batch: the last one to fall idle is awake and answers soonest."""
        if self._idle:
            return next(reversed(self._idle))
        return next(iter(self._short_of_work), None)

    def _take(self, head: Span, estimate: Estimate) -> list[Span]:
        """Take the next batch off the head of the queue: spans of one function."""
        queued = self._states.tasks[TaskState.QUEUED]
        size = 1
        if queued > 1:
            size = head.chunk or estimate.batch_size(queued, len(self._workers))
        return self._queue.take(size)

    def _reclassify(self, worker: int, load: WorkerLoad) -> None:
        """File a worker by its load: idle, short of work, or neither."""
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        if not load.spans:
            self._idle[worker] = None
        elif load.needs_work(PREFETCH_BATCHES * batch_seconds(len(self._workers))):
            self._short_of_work[worker] = None

    def estimate(self, function: int) -> Estimate:
        """Return the live estimate of a function's tasks."""
        estimate = self._estimates.get(function)
        if estimate is None:
            estimate = self._estimates[function] = Estimate()
        return estimate

    def forget_function(self, function: int) -> None:
        """Drop the estimate of a function that will not be called again under this id."""
        self._estimates.pop(function, None)
        self.attempts.retries.pop(function, None)

    @property
    def num_workers(self) -> int:
        """Number of workers, idle or busy."""
        return len(self._workers)

    def functions_of(self, worker: int) -> set[int] | None:
        """Return the functions whose tasks a worker holds; None if the worker is not ready."""
        load = self._workers.get(worker)
        if load is None:
            return None
        return {span.function for span, _, _ in load.spans.values()}

    def running(self) -> list[tuple[int, Span, float]]:
        """Return each busy worker, the span that it should be running, and when it last answered."""
        busy: list[tuple[int, Span, float]] = []
        for worker, load in self._workers.items():
            if load.spans:
                span, _, _ = next(iter(load.spans.values()))
                busy.append((worker, span, load.last_answer))
        return busy

    @property
    def unfinished(self) -> int:
        """Number of tasks queued or assigned."""
        return self._states.tasks[TaskState.QUEUED] + self._states.tasks[TaskState.ASSIGNED]

    @property
    def assigned(self) -> int:
        """Number of tasks that workers hold."""
        return self._states.tasks[TaskState.ASSIGNED]

    @property
    def has_idle(self) -> bool:
        """Whether any worker is idle."""
        return bool(self._idle)

    @property
    def can_assign(self) -> bool:
        """Whether any worker could get a queued task now."""
        if self._draining or not (self._idle or self._short_of_work):
            return False
        return self._queue.has_spans or self._next_for_retry() is not None

    def counts(self) -> Counts:
        """Return the numbers of tasks by state, and of workers."""
        workers = len(self._workers)
        return self._states.counts(workers, workers - len(self._idle))

    def check(self) -> None:
        """Raise AssertionError unless every task submitted is in exactly one state."""
        held = sum(span.count for load in self._workers.values() for span, _, _ in load.spans.values())
        self._states.check(self._queue.count, held)
