"""The state machine: an event in, actions out. No MPI, clock, pickle, thread or I/O; ids only."""

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

    Events are method calls; some return actions. Times are in seconds, of any clock that does not go
    back. First come, first served; an idle worker goes before one that gets work ahead of time, and
    the last one to fall idle before other idle ones.

    Attributes
    ----------
    attempts : Attempts
        How often which tasks may fail.
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

    def submit(self, span: Span, weight: int = 0) -> None:
        """Queue a span; `weight` is the bytes of arguments of one of its tasks."""
        self._states.transition(span.count, None, TaskState.QUEUED)
        self._queue.append(span)
        if weight:
            self.estimate(span.function).argument_bytes = weight

    def submit_single(self, task: int, function: int, weight: int = 0) -> None:
        """Queue one task; tasks that are queued in a row travel in one span."""
        self._states.transition(1, None, TaskState.QUEUED)
        self._queue.append_single(task, function)
        if weight:
            self.estimate(function).argument_bytes = weight

    def reject(self, count: int) -> None:
        """Count tasks that failed before they could be queued."""
        self._states.transition(count, None, TaskState.FAILED)

    def restore(self, count: int) -> None:
        """Count tasks whose results are there from an earlier run."""
        self._states.transition(count, None, TaskState.DONE)

    def cancel(self, first: int, count: int) -> list[Span]:
        """Cancel those of the `count` tasks from `first` on that are still queued, and return them."""
        cancelled = self._queue.remove(first, count)
        self._states.transition(
            sum(span.count for span in cancelled), TaskState.QUEUED, TaskState.CANCELLED
        )
        return cancelled

    def cancel_queued(self) -> list[Span]:
        """Cancel all that is queued."""
        spans = self._queue.clear()
        self._states.transition(sum(span.count for span in spans), TaskState.QUEUED, TaskState.CANCELLED)
        return spans

    def fail_queued(self) -> Fail:
        """Fail all that is queued: no worker can run it any more."""
        spans = self._queue.clear()
        self._states.transition(sum(span.count for span in spans), TaskState.QUEUED, TaskState.FAILED)
        return Fail(spans)

    def add_worker(self, worker: int) -> None:
        """Take in a worker that is ready to run tasks."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} is there already")
        self._workers[worker] = WorkerLoad()
        self._idle[worker] = None

    def remove_worker(self, worker: int) -> Fail:
        """Forget a lost worker; its tasks go back to the head of the queue.

        Those that it may have been running go alone from now on, unless they fail: they are returned.
        """
        state = self._workers.pop(worker, None)
        if state is None:
            return Fail([])
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        running, others = state.split_running()
        again, over = self.attempts.worker_died(running)
        self._states.transition(len(over), TaskState.ASSIGNED, TaskState.FAILED)
        self._states.transition(state.tasks - len(over), TaskState.ASSIGNED, TaskState.QUEUED)
        for span in reversed(again + others):
            self._queue.push_front(span)
        return Fail(over)

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
        """Take in outcomes of the `count` tasks from `first` on, of which those at `failed` failed.

        They are the next ones of a span that the worker holds. Returns the offsets of those that will
        be tried again; None, and changes nothing, if the worker holds no such span: a late word of a
        worker that was given up.
        """
        state = self._workers.get(worker)
        span = state.finish(first, count, now) if state else None
        if state is None or span is None:
            return None
        again: list[int] = []
        if failed:
            again = [o for o in failed if self.attempts.may_retry(span.function, first + o)]
            for offset in again:
                single = Span(span.source, first + offset, 1, span.function, span.chunk)
                self._queue.append_retry(single, worker)
            self._states.retried += len(again)
            self._states.transition(len(again), TaskState.ASSIGNED, TaskState.QUEUED)
            self._states.transition(len(failed) - len(again), TaskState.ASSIGNED, TaskState.FAILED)
        self._states.transition(count - len(failed), TaskState.ASSIGNED, TaskState.DONE)
        if self.attempts and not again:
            self.attempts.forget(first, count)
        self.estimate(span.function).update(count, seconds, nbytes)
        self._reclassify(worker, state)
        return again

    def requeue(self, worker: int, first: int, count: int) -> bool:
        """Queue tasks again that a worker has not started; False if it holds no such tasks."""
        state = self._workers.get(worker)
        span = state.remove_unstarted(first, count) if state else None
        if state is None or span is None:
            return False
        self._states.transition(count, TaskState.ASSIGNED, TaskState.QUEUED)
        self._queue.push_front(span)
        self._reclassify(worker, state)
        return True

    def finish_recall(
        self, worker: int, tasks: list[tuple[int, int]], running: tuple[int, int, float] | None
    ) -> bool:
        """Take in a worker's answer to a recall, as in `Returned`; False if it held not all of `tasks`."""
        if running is not None:
            function, count, seconds = running
            self.estimate(function).update_running(count, seconds)
        elif tasks and (state := self._workers.get(worker)) is not None:
            state.patience *= 2
        return all([self.requeue(worker, first, count) for first, count in sorted(tasks, reverse=True)])

    def recall(self, now: float) -> list[int]:
        """Workers to ask for what they have not started: others are idle, and nothing is queued."""
        if self._queue.has_spans or not self._idle or now < self._next_recall:
            return []
        # With many workers, each look takes a while.
        self._next_recall = now + max(RECALL_INTERVAL, 1e-5 * len(self._workers))
        limit = recall_after(len(self._workers))
        return self._mark_recalled(lambda state: now - state.last_answer > limit * state.patience)

    def drain(self, on: bool = True) -> list[int]:
        """Hand out nothing, or again; returns the workers to ask for what they have not started."""
        self._draining = on
        return self._mark_recalled(lambda state: on)

    def _mark_recalled(self, due: Callable[[WorkerLoad], bool]) -> list[int]:
        asked = []
        for worker, state in self._workers.items():
            if state.tasks > 1 and not state.recalled and due(state):
                state.recalled = True
                self._reclassify(worker, state)
                asked.append(worker)
        return asked

    def assign(self, now: float) -> list[Assign]:
        """Hand queued tasks to workers."""
        actions: list[Assign] = []
        queue = self._queue
        while (self._idle or self._short_of_work) and not self._draining:
            worker = self._next_for_retry() if queue.retries else None
            if worker is not None:
                spans = queue.take_retry(worker, len(self._workers) == 1)
                function = spans[0].function
            else:
                worker, head = self._next_worker(), queue.head
                if worker is None or head is None:
                    break
                function = head.function
                if not self._idle and not self.estimate(function).largest_measured:
                    break
                spans = self._take(head, self.estimate(function))
            self._states.transition(
                sum([span.count for span in spans]), TaskState.QUEUED, TaskState.ASSIGNED
            )
            state = self._workers[worker]
            self._batches += 1
            state.add(self._batches, spans, self.estimate(function).seconds, now)
            self._reclassify(worker, state)
            actions.append(Assign(worker, spans))
        return actions

    def _next_for_retry(self) -> int | None:
        """Who gets the next second try: the first free worker on which it has not failed."""
        if not self._queue.retries:
            return None
        alone = len(self._workers) == 1
        for worker in chain(reversed(self._idle), self._short_of_work):
            if alone or len(self._queue.retries) > 1 or worker not in self._queue.retries:
                return worker
        return None

    def _next_worker(self) -> int | None:
        """Who gets the next batch: who was at work last is awake, and answers soonest."""
        if self._idle:
            return next(reversed(self._idle))
        return next(iter(self._short_of_work), None)

    def _take(self, head: Span, estimate: Estimate) -> list[Span]:
        """Take the next batch off the head of the queue: spans of one function."""
        queued = self._states.tasks[TaskState.QUEUED]
        wanted = 1
        if queued > 1:
            wanted = head.chunk or estimate.batch_size(queued, len(self._workers))
        return self._queue.take(wanted)

    def _reclassify(self, worker: int, state: WorkerLoad) -> None:
        """Put a worker where its load belongs: idle, short of work, or neither."""
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        if not state.spans:
            self._idle[worker] = None
        elif state.needs_work(PREFETCH_BATCHES * batch_seconds(len(self._workers))):
            self._short_of_work[worker] = None

    def estimate(self, function: int) -> Estimate:
        """What is known of a function's tasks; kept up to date."""
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
        """Workers that are ready or at work."""
        return len(self._workers)

    def functions_of(self, worker: int) -> set[int] | None:
        """Functions whose tasks a worker has in hand; None if it is not ready."""
        state = self._workers.get(worker)
        return None if state is None else {span.function for span, _, _ in state.spans.values()}

    def running(self) -> list[tuple[int, Span, float]]:
        """Busy workers, each with the span that it should be at, and since when it has not answered."""
        return [
            (w, next(iter(s.spans.values()))[0], s.last_answer) for w, s in self._workers.items() if s.spans
        ]

    @property
    def unfinished(self) -> int:
        """Tasks queued or assigned."""
        return self._states.tasks[TaskState.QUEUED] + self._states.tasks[TaskState.ASSIGNED]

    @property
    def assigned(self) -> int:
        """Tasks at a worker."""
        return self._states.tasks[TaskState.ASSIGNED]

    @property
    def has_idle(self) -> bool:
        """Whether some worker has nothing to do."""
        return bool(self._idle)

    @property
    def can_assign(self) -> bool:
        """Whether some worker could take a queued task now."""
        if self._draining or not (self._idle or self._short_of_work):
            return False
        return self._queue.has_spans or self._next_for_retry() is not None

    def counts(self) -> Counts:
        """Tasks by state, and workers."""
        workers = len(self._workers)
        return self._states.counts(workers, workers - len(self._idle))

    def check(self) -> None:
        """Raise AssertionError unless every task submitted is in exactly one state."""
        held = sum(span.count for state in self._workers.values() for span, _, _ in state.spans.values())
        self._states.check(self._queue.count, held)
