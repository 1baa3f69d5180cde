"""The state machine: events in, actions out. No MPI, clock, pickle, thread or I/O; ids only."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from taskfarm.schedule.actions import Assign, Fail
from taskfarm.schedule.attempts import Attempts
from taskfarm.schedule.batching import (
    BATCH_SECONDS,
    PREFETCH_BATCHES,
    RECALL_INTERVAL,
    Estimate,
    aligned_size,
    batch_seconds,
    recall_after,
)
from taskfarm.schedule.farm_queue import FarmQueue
from taskfarm.schedule.locality import Locality
from taskfarm.schedule.spans import Span
from taskfarm.schedule.states import Counts, StateCounts, TaskState
from taskfarm.schedule.worker_load import WorkerLoad

NOTHING: Mapping[int, Collection[int]] = {}


class Scheduler:
    """Decides which worker runs which tasks.

    Events are method calls; some return actions. Times are in seconds, of any monotonic clock. Farms
    share the workers' time (`FarmQueue`); the tasks of one farm are served first come, first served. Idle
    workers come before workers that prefetch, and the worker that fell idle last comes first.

    A task belongs to the farm of its function; functions that nobody has assigned belong to farm 0.

    Attributes
    ----------
    attempts : Attempts
        Failures and worker deaths per task, and the limits on them.
    preparing : int
        Initializers that workers have still to run.
    reductions : set of int
        Functions whose results workers combine: their batches end at round places.
    """

    def __init__(self) -> None:
        self._default = FarmQueue()
        self._farms = {self._default.id: self._default}
        self._farm_of: dict[int, FarmQueue] = {}
        # The farms that have tasks in their queue.
        self._backlogged: dict[int, FarmQueue] = {}
        self._virtual_time = 0.0
        self.attempts = Attempts()
        self.preparing = 0
        self.reductions: set[int] = set()
        self._draining = False
        self._workers: dict[int, WorkerLoad] = {}
        self._locality = Locality()
        self._idle: dict[int, None] = {}
        self._short_of_work: dict[int, None] = {}
        self._estimates: dict[int, Estimate] = {}
        self._states = StateCounts()
        self._waiting = 0
        self._batches = 0
        self._next_recall = -math.inf

    def open_farm(self, farm: int, needs_ready: bool = False, max_workers: int | None = None) -> FarmQueue:
        """Add a farm; returns its tasks.

        Parameters
        ----------
        farm : int
            Its id.
        needs_ready : bool
            Whether a worker runs its tasks only after `ready`.
        max_workers : int or None
            Most workers that hold its tasks at a time.
        """
        queue = self._farms[farm] = FarmQueue(farm, needs_ready, max_workers)
        return queue

    def forget_farm(self, farm: int) -> None:
        """Drop a farm whose tasks have all ended."""
        if (queue := self._farms.pop(farm)).unfinished:
            raise AssertionError(f"farm {farm} has {queue.unfinished} unfinished tasks")

    def assign_function(self, function: int, farm: int) -> None:
        """Let the tasks of a function belong to a farm."""
        self._farm_of[function] = self._farms[farm]

    def submit(self, span: Span, argument_bytes: int = 0) -> None:
        """Queue a span; `argument_bytes` is the size of the arguments of one of its tasks."""
        self._states.transition(span.count, None, TaskState.QUEUED)
        farm = self._farm_of.get(span.function, self._default)
        farm.queue.append(span)
        farm.queued += span.count
        self._backlogged[farm.id] = farm
        if argument_bytes:
            self.estimate(span.function).argument_bytes = argument_bytes

    def submit_single(self, task: int, function: int, argument_bytes: int = 0) -> None:
        """Queue one task; consecutive tasks of one function form one span."""
        self._states.transition(1, None, TaskState.QUEUED)
        farm = self._farm_of.get(function, self._default)
        farm.queue.append_single(task, function)
        farm.queued += 1
        self._backlogged[farm.id] = farm
        if argument_bytes:
            self.estimate(function).argument_bytes = argument_bytes

    def submit_waiting(self, span: Span, needs: Collection[int], argument_bytes: int = 0) -> None:
        """Let a span wait for the results of tasks of the same farm; `resolve` will queue it."""
        self._states.transition(span.count, None, TaskState.WAITING)
        self._waiting += span.count
        self._farm(span).waiting.add(span, needs)
        if argument_bytes:
            self.estimate(span.function).argument_bytes = argument_bytes

    def dependents(self, task: int, farm: int) -> list[Span]:
        """Return the spans that wait for a task of a farm."""
        queue = self._farms.get(farm)
        return [] if queue is None else queue.waiting.dependents(task)

    def resolve(self, task: int, farm: int) -> list[Span]:
        """Note that a task of a farm has a result: queue and return what has waited for this one last."""
        queue = self._farms.get(farm)
        if queue is None:
            return []
        ready = queue.waiting.resolve(task)
        for span in ready:
            self._end_waiting([span], TaskState.QUEUED)
            queue.queue.append_next(span)
            queue.queued += span.count
            self._backlogged[farm] = queue
        return ready

    def drop_dependents(self, task: int, farm: int, cancelled: bool = False) -> list[Span]:
        """Count the spans that wait for a task without a result as not run, or cancelled; returns them.

        What waits for these in turn still waits: it follows when their own outcomes are known.
        """
        queue = self._farms.get(farm)
        if queue is None:
            return []
        spans = queue.waiting.remove_dependents(task)
        state = TaskState.CANCELLED if cancelled else TaskState.NOT_RUN
        self._end_waiting(spans, state)
        return spans

    def _end_waiting(self, spans: list[Span], state: TaskState) -> None:
        count = sum([span.count for span in spans])
        self._states.transition(count, TaskState.WAITING, state)
        self._waiting -= count
        if state is not TaskState.QUEUED:
            for span in spans:
                self._locality.forget(span.first, span.count)

    def reject(self, count: int) -> None:
        """Count tasks that failed before they could be queued."""
        self._states.transition(count, None, TaskState.FAILED)

    def restore(self, count: int) -> None:
        """Count tasks whose results an earlier run has left."""
        self._states.transition(count, None, TaskState.DONE)

    def cancel(self, first: int, count: int, farm: int = 0) -> list[Span]:
        """Cancel and return those of the `count` tasks of a farm from `first` on that no worker has."""
        queue = self._farms[farm]
        waiting: list[Span] = []
        if queue.waiting.count:
            waiting = queue.waiting.remove(first, count)
            self._end_waiting(waiting, TaskState.CANCELLED)
        cancelled = queue.queue.remove(first, count)
        self._unqueue(queue, cancelled, TaskState.CANCELLED)
        return cancelled + waiting

    def cancel_queued(self, farm: int | None = None) -> list[Span]:
        """Cancel and return all tasks that are queued or wait, of one farm or of all."""
        return self._clear(farm, TaskState.CANCELLED)

    def fail_queued(self, farm: int | None = None) -> Fail:
        """Fail all tasks that are queued or wait, of one farm or of all: no worker can run them."""
        return Fail(self._clear(farm, TaskState.FAILED))

    def _clear(self, farm: int | None, state: TaskState) -> list[Span]:
        cleared: list[Span] = []
        for queue in list(self._farms.values()):
            if farm not in (None, queue.id):
                continue
            waiting, spans = queue.waiting.clear(), queue.queue.clear()
            self._end_waiting(waiting, state)
            self._unqueue(queue, spans, state)
            cleared += spans + waiting
        return cleared

    def _unqueue(self, farm: FarmQueue, spans: list[Span], state: TaskState) -> None:
        """Count spans that have left the queue of a farm for an end state."""
        count = sum([span.count for span in spans])
        for span in spans:
            self._locality.forget(span.first, span.count)
        self._states.transition(count, TaskState.QUEUED, state)
        farm.queued -= count
        if not farm.queue:
            self._backlogged.pop(farm.id, None)
        if not farm.unfinished:
            farm.is_active = False

    def _requeue(self, farm: FarmQueue, span: Span, worker: int) -> None:
        """Put tasks that a worker held back at the head of their queue."""
        farm.take_from(worker, span.count)
        farm.queued += span.count
        farm.queue.push_front(span)
        self._backlogged[farm.id] = farm

    def prefer(self, task: int, worker: int, nbytes: int) -> None:
        """Let a task, which is not queued yet, run on the host of a worker, which has data that it needs.

        Once only: if that host has no worker for it soon, any other runs it.
        """
        self._locality.prefer(task, worker, nbytes)

    def add_worker(self, worker: int, host: str = "") -> None:
        """Add a worker that has started on a host."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} has already been added")
        self._locality.add_worker(worker, host)
        self._workers[worker] = WorkerLoad()
        self._idle[worker] = None

    def prepare(self, worker: int) -> None:
        """Record that a worker has to run an initializer: until it has, it is sent no more tasks."""
        load = self._workers[worker]
        load.preparing += 1
        self.preparing += 1
        self._reclassify(worker, load)

    def prepared(self, worker: int, farm: int | None = None) -> None:
        """Record that a worker has run an initializer, and so may run the tasks of `farm`, if not None."""
        load = self._workers.get(worker)
        if load is None:
            return
        load.preparing -= 1
        self.preparing -= 1
        self._reclassify(worker, load)
        queue = self._farms.get(farm) if farm is not None else None
        if queue is not None and queue.ready is not None:
            queue.ready.add(worker)

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
        self.preparing -= load.preparing
        for farm in self._farms.values():
            if farm.ready is not None:
                farm.ready.discard(worker)
        running, waiting = load.split_running()
        requeued, failed = self.attempts.worker_died(running)
        self._states.transition(len(failed), TaskState.ASSIGNED, TaskState.FAILED)
        self._states.transition(load.tasks - len(failed), TaskState.ASSIGNED, TaskState.QUEUED)
        for span in failed:
            self._farm(span).take_from(worker, span.count)
        for span in reversed(requeued + waiting):
            self._requeue(self._farm(span), span, worker)
        return Fail(failed)

    def _farm(self, span: Span) -> FarmQueue:
        return self._farm_of.get(span.function, self._default)

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
        farm = self._farm_of.get(span.function, self._default)
        farm.take_from(worker, count)
        farm.answered += count
        farm.served += seconds
        self.estimate(span.function).update(count, seconds, nbytes)
        self._reclassify(worker, load)
        return span

    def hold(
        self, worker: int, first: int, count: int, seconds: float, nbytes: int, now: float
    ) -> Span | None:
        """Record that a worker has run tasks, but keeps their outcomes until it is asked for them.

        It may get another batch meanwhile. If it is lost, so are the outcomes. Returns the span, or None as
        `answer` does, which follows.
        """
        load = self._workers.get(worker)
        span = load.hold(first, count, now) if load else None
        if load is None or span is None:
            return None
        # The answer counts them again, which does not change the mean.
        self.estimate(span.function).update(count, seconds, nbytes)
        self._reclassify(worker, load)
        return span

    def holds_back(self, worker: int, first: int) -> bool:
        """Whether a worker keeps outcomes that begin with a task."""
        load = self._workers.get(worker)
        return load is not None and first in load.held

    def is_assigned(self, task: int) -> bool:
        """Whether a worker has a task; looks at all of them."""
        return any(
            span.first <= task < span.end
            for load in self._workers.values()
            for span, _, _ in load.spans.values()
        )

    def settle(
        self,
        worker: int,
        span: Span,
        first: int,
        count: int,
        failed: Collection[int],
        again: Mapping[int, Collection[int]] = NOTHING,
    ) -> list[int]:
        """Record the outcomes of tasks of a span that a worker has answered; returns which are retried.

        The tasks at the offsets `again` did not start: they wait for the results of others.
        """
        retried: list[int] = []
        farm = self._farm_of.get(span.function, self._default)
        farm.answered -= count
        if farm.abandoned:
            self._states.transition(count, TaskState.ASSIGNED, TaskState.CANCELLED)
            self.attempts.forget(first, count)
            return retried
        if again:
            failed = [offset for offset in failed if offset not in again]
            count -= len(again)
            for offset, needs in again.items():
                single = Span(span.source, first + offset, 1, span.function, span.chunk)
                farm.waiting.add(single, needs)
            self._states.transition(len(again), TaskState.ASSIGNED, TaskState.WAITING)
            self._waiting += len(again)
        if failed:
            may_retry = self.attempts.may_retry
            retried = [offset for offset in failed if may_retry(span.function, first + offset)]
            for offset in retried:
                single = Span(span.source, first + offset, 1, span.function, span.chunk)
                farm.queue.append_retry(single, worker)
                farm.queued += 1
                self._backlogged[farm.id] = farm
            self._states.retried += len(retried)
            self._states.transition(len(retried), TaskState.ASSIGNED, TaskState.QUEUED)
            self._states.transition(len(failed) - len(retried), TaskState.ASSIGNED, TaskState.FAILED)
        self._states.transition(count - len(failed), TaskState.ASSIGNED, TaskState.DONE)
        if self.attempts and not retried and not again:
            self.attempts.forget(first, count)
        return retried

    def requeue(self, worker: int, first: int, count: int) -> bool:
        """Queue again tasks that a worker has not started; False if it holds no such tasks."""
        load = self._workers.get(worker)
        span = load.remove_unstarted(first, count) if load else None
        if load is None or span is None:
            return False
        self._states.transition(count, TaskState.ASSIGNED, TaskState.QUEUED)
        self._requeue(self._farm(span), span, worker)
        self._reclassify(worker, load)
        return True

    def finish_recall(
        self, worker: int, tasks: list[tuple[int, int]], running: tuple[int, int, float] | None
    ) -> bool:
        """Record a worker's answer to a recall, as in `Returned`; False if it did not hold all `tasks`."""
        if running is not None:
            function, count, seconds = running
            # The farm of a late answer may be over.
            if (estimate := self._estimates.get(function)) is not None:
                estimate.update_running(count, seconds)
        elif tasks and (load := self._workers.get(worker)) is not None:
            load.recall_backoff *= 2
        all_held = True
        # Each requeued span goes to the head of the queue, so the last must come first.
        for first, count in sorted(tasks, reverse=True):
            if not self.requeue(worker, first, count):
                all_held = False
        return all_held

    def recall(self, now: float) -> list[int]:
        """Return the workers to recall unstarted tasks from, if others are idle and cannot be sent any."""
        if not self._idle or now < self._next_recall or self._draining:
            return []
        if self._next(spans_only=True) is not None:
            return []
        # The check takes time in proportion to the number of workers.
        self._next_recall = now + max(RECALL_INTERVAL, 1e-5 * len(self._workers))
        limit = recall_after(len(self._workers))

        def due(load: WorkerLoad) -> bool:
            return now - load.last_answer > limit * load.recall_backoff and any(
                farm.is_unrestricted or farm.first_accepted(self._idle) is not None
                for farm in {self._farm(span) for span, _, _ in load.spans.values()}
            )

        return self._mark_recalled(worker for worker, load in self._workers.items() if due(load))

    def drain(self, on: bool = True, farm: int | None = None) -> list[int]:
        """Stop or resume assigning the tasks of one farm or of all; returns the workers to recall from."""
        if farm is None:
            self._draining = on
            return self._mark_recalled(self._workers if on else ())
        queue = self._farms.get(farm)
        if queue is None:
            return []
        queue.draining = on
        return self._mark_recalled(worker for worker in self._workers if on and worker in queue.held)

    def _mark_recalled(self, workers: Iterable[int]) -> list[int]:
        recalled: list[int] = []
        for worker in workers:
            load = self._workers[worker]
            has_unfinished = len(load.spans) > len(load.held)
            if load.tasks > 1 and has_unfinished and not load.recalled:
                load.recalled = True
                self._reclassify(worker, load)
                recalled.append(worker)
        return recalled

    def assign(self, now: float) -> list[Assign]:
        """Assign queued tasks to workers."""
        actions: list[Assign] = []
        while self._backlogged and (self._idle or self._short_of_work):
            if (chosen := self._next()) is None:
                break
            farm, worker, is_retry = chosen
            if self._locality and not is_retry:
                worker = self._near_data(farm, worker)
            spans = self._take_retry(farm, worker) if is_retry else self._take(farm)
            count = spans[0].count if len(spans) == 1 else sum([span.count for span in spans])
            self._states.transition(count, TaskState.QUEUED, TaskState.ASSIGNED)
            farm.give_to(worker, count, self._virtual_time)
            self._virtual_time = max(self._virtual_time, farm.served)
            if not farm.queue:
                del self._backlogged[farm.id]
            seconds_each = self.estimate(spans[0].function).seconds
            farm.seconds_each = seconds_each if seconds_each < math.inf else BATCH_SECONDS
            load = self._workers[worker]
            self._batches += 1
            load.add(self._batches, spans, seconds_each, now)
            self._reclassify(worker, load)
            actions.append(Assign(worker, spans))
        return actions

    def _next(self, spans_only: bool = False) -> tuple[FarmQueue, int, bool] | None:
        """Return the farm of the next batch, its worker, and whether it is a retry; None: nothing fits.

        With `spans_only`, retries do not count.
        """
        if self._draining:
            return None
        farms = self._backlogged.values()
        if len(self._backlogged) > 1:
            now = self._virtual_time
            farms = sorted(farms, key=lambda farm: farm.start_tag(now))  # type: ignore[assignment]
        for farm in farms:
            if farm.draining:
                continue
            if farm.queue.retries and not spans_only:
                worker = self._next_for_retry(farm)
                if worker is not None:
                    return farm, worker, True
            head = farm.queue.head
            worker = self._next_worker(farm)
            if head is None or worker is None:
                continue
            if worker in self._idle or self.estimate(head.function).largest_measured:
                return farm, worker, False
            # Nobody prefetches before this one has had a worker that is idle.
            break
        return None

    def _is_alone(self, farm: FarmQueue) -> bool:
        """Whether a farm has one worker only, which must run its retries, too."""
        return farm.num_workers(len(self._workers)) == 1

    def _next_for_retry(self, farm: FarmQueue) -> int | None:
        """Return the worker for a farm's next retry: a free one on which the task has not failed."""
        retries = farm.queue.retries
        any_worker = self._is_alone(farm) or len(retries) > 1
        for worker in chain(reversed(self._idle), self._short_of_work):
            if (any_worker or worker not in retries) and farm.accepts(worker):
                return worker
        return None

    def _next_worker(self, farm: FarmQueue) -> int | None:
        """Return the worker for a farm's next batch: who fell idle last is awake and answers soonest."""
        if not farm.is_unrestricted:
            return farm.first_accepted(chain(reversed(self._idle), self._short_of_work))
        if self._idle:
            return next(reversed(self._idle))
        return next(iter(self._short_of_work), None)

    def _near_data(self, farm: FarmQueue, worker: int) -> int:
        """Return the worker for the head of a farm's queue: one that is near its data, if it can take it.

        A busy worker counts, too: what it has not started is recalled when others are idle.
        """
        head = farm.queue.head
        host = None if head is None else self._locality.take(head.first)
        if host is None:
            return worker
        at = self._locality.hosts
        near = (one for one in chain(reversed(self._idle), self._short_of_work) if at[one] == host)
        found = farm.first_accepted(near)
        return worker if found is None else found

    def _take_retry(self, farm: FarmQueue, worker: int) -> list[Span]:
        return farm.queue.take_retry(worker, self._is_alone(farm))

    def _take(self, farm: FarmQueue) -> list[Span]:
        """Take a farm's next batch off the head of its queue: spans of one function."""
        head = farm.queue.head
        assert head is not None
        size = 1
        if farm.queued > 1 and not self._locality.had(head.first):
            workers = farm.num_workers(len(self._workers))
            size = head.chunk or self.estimate(head.function).batch_size(farm.queued, workers)
            if head.function in self.reductions and not head.chunk:
                size = aligned_size(head.first - head.source, size)
        spans = farm.queue.take(size)
        if self._locality:
            for span in spans:
                self._locality.forget(span.first, span.count)
        return spans

    def _reclassify(self, worker: int, load: WorkerLoad) -> None:
        """File a worker by its load: idle, short of work, or neither, as while it runs an initializer."""
        self._idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        if load.preparing:
            return
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
        self._farm_of.pop(function, None)
        self.reductions.discard(function)
        self.attempts.retries.pop(function, None)

    @property
    def num_workers(self) -> int:
        """Number of workers, idle or busy."""
        return len(self._workers)

    def is_preparing(self, worker: int) -> bool:
        """Whether a worker holds no tasks, and has to run an initializer."""
        load = self._workers.get(worker)
        return load is not None and load.preparing > 0 and not load.spans

    def functions_of(self, worker: int) -> set[int] | None:
        """Return the functions whose tasks a worker still runs; None if an initializer comes first."""
        load = self._workers.get(worker)
        if load is None or self.is_preparing(worker):
            return None
        return {span.function for span, _, _ in load.spans.values() if span.first not in load.held}

    def running(self) -> list[tuple[int, Span, float]]:
        """Return each busy worker, the span that it should be running, and when it last answered."""
        busy: list[tuple[int, Span, float]] = []
        for worker, load in self._workers.items():
            span = next((span for span, _, _ in load.spans.values() if span.first not in load.held), None)
            if span is not None:
                busy.append((worker, span, load.last_answer))
        return busy

    @property
    def unfinished(self) -> int:
        """Number of tasks that have not ended: they wait, are queued or assigned."""
        tasks = self._states.tasks
        return self._waiting + tasks[TaskState.QUEUED] + tasks[TaskState.ASSIGNED]

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
        if not self._backlogged or not (self._idle or self._short_of_work) or self._draining:
            return False
        farm = next(iter(self._backlogged.values()))
        if farm.is_unrestricted and farm.queue.has_spans and not farm.draining:
            return True
        return self._next() is not None

    def counts(self) -> Counts:
        """Return the numbers of tasks by state, and of workers."""
        workers = len(self._workers)
        return self._states.counts(workers, workers - len(self._idle))

    def check(self) -> None:
        """Raise AssertionError unless every task submitted is in exactly one state."""
        held: Counter[tuple[int, int]] = Counter()
        for worker, load in self._workers.items():
            for span, _, _ in load.spans.values():
                held[self._farm(span).id, worker] += span.count
        for farm in self._farms.values():
            counted = farm.queue.count, {worker: held[farm.id, worker] for worker in farm.held}
            if counted != (farm.queued, farm.held) or farm.assigned != sum(farm.held.values()):
                raise AssertionError(f"farm {farm.id} has {farm.queued} and {farm.held}, not {counted}")
            if bool(farm.queue) != (farm.id in self._backlogged):
                raise AssertionError(f"farm {farm.id} is filed with the wrong farms")
        queued = sum(farm.queued for farm in self._farms.values())
        answered = sum(farm.answered for farm in self._farms.values())
        waiting = sum(farm.waiting.count for farm in self._farms.values())
        if waiting != self._waiting:
            raise AssertionError(f"{waiting} wait, but counted {self._waiting}")
        self._states.check(queued, sum(held.values()) + answered, waiting)
