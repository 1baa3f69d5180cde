"""The state machine: events in, actions out. No MPI, clock, pickle, thread or I/O; ids only."""

import math
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from itertools import chain
from typing import TypeAlias

from taskfarm.schedule.actions import Assign, Fail, Help
from taskfarm.schedule.attempts import Attempts
from taskfarm.schedule.batching import (
    BATCH_SECONDS,
    PREFETCH_BATCHES,
    RECALL_CHAIN,
    RECALL_INTERVAL,
    Estimate,
    aligned_size,
    batch_seconds,
    recall_after,
)
from taskfarm.schedule.chaining import ChainedTasks, may_chain
from taskfarm.schedule.choice import LaneChooser, Round
from taskfarm.schedule.farm_queue import FarmQueue
from taskfarm.schedule.gangs import Gang, GangChoice, Gangs
from taskfarm.schedule.lanes import PLAIN, Demand, LaneQueue, SortedQueue, remove_from
from taskfarm.schedule.nested_queue import NestedQueue, nested_size
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.resources import Resources
from taskfarm.schedule.spans import SINGLES, Span, new_tuple
from taskfarm.schedule.states import Counts, StateCounts, TaskState
from taskfarm.schedule.walltime import Walltime
from taskfarm.schedule.worker_load import WorkerLoad

# An enum looks its members up by name, which takes a call of Python.
QUEUED, ASSIGNED, DONE = TaskState.QUEUED, TaskState.ASSIGNED, TaskState.DONE

NOTHING: Mapping[int, Collection[int]] = {}
NO_NEEDS: Mapping[int, frozenset[int]] = {}

Chosen: TypeAlias = tuple[FarmQueue, int, TaskQueue, bool, float] | GangChoice
"""What the fields of a `Choice` are; without lanes, a plain tuple of them. Or a task on several ranks."""


class Scheduler:
    """Decides which worker runs which tasks.

    Events are method calls; some return actions. Times are in seconds, of any monotonic clock. Farms
    share the workers' time (`FarmQueue`); the tasks of one farm are served first come, first served, unless
    they have priorities or needs (`LaneQueue`, `LaneChooser`). Idle workers come before workers that
    prefetch, and the worker that fell idle last comes first.

    A task belongs to the farm of its function; functions that nobody has assigned belong to farm 0.

    Attributes
    ----------
    attempts : Attempts
        Failures and worker deaths per task, and the limits on them.
    preparing : int
        Initializers that workers have still to run.
    now : float
        The current time, as far as anybody has told it.
    walltime : Walltime or None
        When the run ends; None: when all tasks have.
    demands : dict of int to Demand
        The priority, needs and expected duration of functions that have any.
    idle : dict of int to None
        The idle workers, in the order in which they fell idle; the last one gets the next task.
    farm_of : dict of int to FarmQueue
        The farm of each function that was assigned.
    expected : dict of int to float
        Expected seconds of unfinished tasks, where each has its own.
    longest_possible : float
        Seconds that were left of the walltime when the first task could start.
    has_too_long : bool
        Whether there are tasks that take longer than that.
    gangs : Gangs
        The tasks on several ranks.
    reductions : set of int
        Functions whose results workers combine: their batches end at round places.
    chained : ChainedTasks
        The tasks that were sent together with others whose results they need.
    sent_alone : set of int
        Functions whose tasks are never sent so.
    has_waited : bool
        Whether any task has ever waited for another one.
    """

    def __init__(self) -> None:
        self._default = FarmQueue()
        self._farms = {self._default.id: self._default}
        self.farm_of: dict[int, FarmQueue] = {}
        # The farms that have tasks in their queue.
        self._backlogged: dict[int, FarmQueue] = {}
        self._virtual_time = 0.0
        self.attempts = Attempts()
        self.preparing = 0
        self.reductions: set[int] = set()
        self.chained = ChainedTasks()
        self.sent_alone: set[int] = set()
        self.has_waited = False
        # The worker on which a task has failed that waits before it is retried.
        self._failed_on: dict[int, int] = {}
        self._draining = False
        self._workers: dict[int, WorkerLoad] = {}
        self.idle: dict[int, None] = {}
        self._short_of_work: dict[int, None] = {}
        # The workers whose task waits, each with that task and its farm: they run descendants of it.
        self._suspended: dict[int, tuple[int, FarmQueue]] = {}
        # The tasks that have returned futures, and wait for what these stand for.
        self._joined: set[int] = set()
        # The functions whose tasks have submitted tasks.
        self._spawning: set[int] = set()
        self._estimates: dict[int, Estimate] = {}
        self._states = StateCounts()
        self._batches = 0
        self._next_recall = -math.inf
        self.now = 0.0
        self.walltime: Walltime | None = None
        self.demands: dict[int, Demand] = {}
        self.expected: dict[int, float] = {}
        self.longest_possible = math.inf
        self.has_too_long = False
        self.lanes = LaneChooser(
            self._workers,
            self.idle,
            self._short_of_work,
            self.demands,
            self.seconds_of_next,
            self.may_follow,
        )
        self.gangs: Gangs = self.lanes.gangs
        self._locality = self.lanes.locality
        self._claims = self.lanes.resources.claims

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
        if self.gangs.used:
            queue.queue = self._with_lanes(queue.queue)
        return queue

    def forget_farm(self, farm: int) -> None:
        """Drop a farm whose tasks have all ended."""
        if (queue := self._farms.pop(farm)).unfinished:
            raise AssertionError(f"farm {farm} has {queue.unfinished} unfinished tasks")

    def assign_function(self, function: int, farm: int) -> None:
        """Let the tasks of a function belong to a farm."""
        self.farm_of[function] = self._farms[farm]

    def set_demand(self, function: int, demand: Demand) -> None:
        """Let the tasks of a function have a priority, needs, or an expected duration."""
        farm = self.farm_of.get(function, self._default)
        self.demands[function] = demand
        farms: Iterable[FarmQueue] = [farm]
        if demand.ranks > 1 and not self.gangs.used:
            # The tasks of all farms may wait for them.
            self.gangs.used = True
            farms = self._farms.values()
        for one in farms:
            if one.queue.lanes is None:
                one.queue = self._with_lanes(one.queue)

    def _with_lanes(self, queue: TaskQueue) -> TaskQueue:
        return queue.with_lanes(lambda queue: LaneQueue(queue, self.demands, self.expected))

    def expect(self, first: int, seconds: Iterable[float], without: Container[int]) -> None:
        """Let tasks that are about to be queued have these durations: from the task `first` on.

        The offsets in `without` are not queued.
        """
        for offset, each in enumerate(seconds):
            if offset not in without:
                self.expected[first + offset] = each

    @property
    def resources(self) -> Resources:
        """What workers, hosts and the run offer, and who holds it."""
        return self.lanes.resources

    @resources.setter
    def resources(self, resources: Resources) -> None:
        self.lanes.resources = resources
        self._claims = resources.claims

    def submit(self, span: Span, argument_bytes: int = 0) -> None:
        """Queue a span; `argument_bytes` is the size of the arguments of one of its tasks."""
        self._states.transition(span.count, None, QUEUED)
        farm = self.farm_of.get(span.function, self._default)
        farm.queue.append(span)
        farm.queued += span.count
        self._backlogged[farm.id] = farm
        if argument_bytes:
            self.estimate(span.function).argument_bytes = argument_bytes

    def submit_single(self, task: int, function: int, argument_bytes: int = 0) -> None:
        """Queue one task; consecutive tasks of one function form one span."""
        self._states.transition(1, None, QUEUED)
        farm = self.farm_of.get(function, self._default)
        farm.queue.append_single(task, function)
        farm.queued += 1
        self._backlogged[farm.id] = farm
        if argument_bytes:
            estimate = self._estimates.get(function) or self.estimate(function)
            estimate.argument_bytes = argument_bytes

    def assign_single(
        self, task: int, function: int, argument_bytes: int, now: float
    ) -> tuple[int, list[Span]] | None:
        """Assign one task, which is not queued yet, to an idle worker, if nothing else decides on that.

        It does the same as `submit_single` and `assign`, at less cost. Returns None, and changes nothing,
        if other tasks are queued, or if there are rules about who runs what and when.

        Returns
        -------
        worker, spans : int, list of Span
            As in `Assign`.
        """
        farm = self.farm_of.get(function, self._default)
        if (
            not self.idle
            or self._backlogged
            or self._draining
            or self.walltime is not None
            or farm.draining
            or not farm.is_unrestricted
            or type(farm.queue) is not TaskQueue
        ):
            return None
        self.now = now
        worker = next(reversed(self.idle))
        spans = [new_tuple(Span, (SINGLES, task, 1, function, 0))]
        self._states.transition(1, None, ASSIGNED)
        if argument_bytes:
            estimate = self._estimates.get(function) or self.estimate(function)
            estimate.argument_bytes = argument_bytes
        self._give(farm, worker, spans, 1, now)
        return worker, spans

    def spawn(self, span: Span, parent: int, parent_source: int, needs: Collection[int] = ()) -> None:
        """Queue tasks that a task of the same farm has submitted, or let them wait for the results `needs`.

        Parameters
        ----------
        span : Span
            The tasks; its source is the id of the first.
        parent, parent_source : int
            The id of the task that has submitted them, and the source of its span.
        needs : collection of int
            As for `submit_waiting`.
        """
        farm = self.farm_of[span.function]
        if not isinstance(farm.queue, NestedQueue):
            farm.queue = NestedQueue(farm.queue)
        farm.queue.add(span, parent, parent_source, bool(needs))
        if needs:
            self.submit_waiting(span, needs)
            return
        self._states.transition(span.count, None, QUEUED)
        farm.queued += span.count
        self._backlogged[farm.id] = farm

    def note_spawning(self, function: int) -> None:
        """Note that tasks of a function submit tasks: few of them are sent together from now on."""
        self._spawning.add(function)

    def wait(self, worker: int, task: int, function: int) -> None:
        """Record that a task on a worker waits for tasks that it has submitted, or for theirs.

        Until it goes on, the worker gets no other tasks than descendants of this one.
        """
        load = self._workers.get(worker)
        self.has_waited = True
        if load is not None:
            load.suspended.add(task)
            self._suspended[worker] = (task, self.farm_of[function])
            self._reclassify(worker, load)

    def go_on(self, worker: int) -> None:
        """Record that the task on a worker that waited goes on."""
        self._suspended.pop(worker, None)

    def end_spawning(self, worker: int, task: int, farm: int) -> None:
        """Record that a task that has submitted tasks has ended, or left its worker."""
        queue = self._farms[farm].queue
        if isinstance(queue, NestedQueue):
            queue.end(task)
        load = self._workers.get(worker)
        if load is not None and task in load.suspended:
            load.suspended.discard(task)
            if (waiting := self._suspended.get(worker)) is not None and waiting[0] == task:
                del self._suspended[worker]
            self._reclassify(worker, load)

    def join(self, task: int, function: int) -> None:
        """Let a task that its worker has answered wait for the tasks whose futures it has returned.

        `settle` ends it, or `cancel_joined`.
        """
        farm = self.farm_of[function]
        farm.answered -= 1
        farm.waiting.count += 1
        self._states.transition(1, ASSIGNED, TaskState.WAITING)
        self._joined.add(task)
        self.chained.end(task, 1)

    def cancel_joined(self, task: int, function: int) -> None:
        """Count a task that waits for tasks whose futures it has returned as cancelled."""
        self.farm_of[function].waiting.count -= 1
        self._joined.discard(task)
        self._states.transition(1, TaskState.WAITING, TaskState.CANCELLED)
        self.attempts.forget(task, 1)
        self._forget_expected(task, 1)

    def forget_spawned(self, source: int, farm: int) -> None:
        """Drop what is kept of tasks that a task has submitted together, and that have all ended."""
        queue = self._farms[farm].queue
        if isinstance(queue, NestedQueue):
            queue.forget_source(source)

    def help(self, now: float) -> list[Help]:
        """Assign queued tasks to workers whose task waits for them, or for their descendants."""
        actions: list[Help] = []
        for worker, (task, farm) in list(self._suspended.items()):
            queue, load = farm.queue, self._workers[worker]
            if load.preparing or not isinstance(queue, NestedQueue):
                continue
            head = queue.head_below(task)
            if head is None:
                continue
            size = self._batch_size(farm, head)
            spans = queue.take_below(task, size)
            del self._suspended[worker]
            self._give(farm, worker, spans, self._count_taken(farm, spans), now)
            actions.append(Help(worker, spans, task))
        return actions

    def submit_waiting(self, span: Span, needs: Collection[int], argument_bytes: int = 0) -> None:
        """Let a span wait for the results of tasks of the same farm; `resolve` will queue it."""
        self.has_waited = True
        self._states.transition(span.count, None, TaskState.WAITING)
        self._farm(span).waiting.add(span, needs)
        if argument_bytes:
            self.estimate(span.function).argument_bytes = argument_bytes

    def is_needed(self, task: int, farm: int) -> bool:
        """Whether anything waits for a task of a farm."""
        queue = self._farms.get(farm)
        return queue is not None and queue.waiting.needs(task)

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
            self._end_waiting([span], QUEUED)
            if self.attempts and span.first in self.attempts:
                # It travels alone, and not to the worker on which it has failed.
                queue.queue.append_retry(span, self._failed_on.pop(span.first, 0))
            else:
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
        if state is not QUEUED:
            for span in spans:
                self._failed_on.pop(span.first, None)
                self._locality.forget(span.first, span.count)
                if self.expected:
                    self._forget_expected(span.first, span.count)

    def reject(self, count: int) -> None:
        """Count tasks that failed before they could be queued."""
        self._states.transition(count, None, TaskState.FAILED)

    def restore(self, count: int) -> None:
        """Count tasks whose results an earlier run has left."""
        self._states.transition(count, None, DONE)

    def cancel(self, first: int, count: int, farm: int = 0) -> list[Span]:
        """Cancel and return those of the `count` tasks of a farm from `first` on that no worker has."""
        queue = self._farms[farm]
        waiting: list[Span] = []
        if queue.waiting.count:
            waiting = queue.waiting.remove(first, count)
            self._end_waiting(waiting, TaskState.CANCELLED)
        cancelled = queue.queue.remove(first, count)
        if queue.late:
            cancelled += remove_from(queue.late, first, count)
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
            waiting, spans = queue.waiting.clear(), queue.queue.clear() + queue.late
            queue.late = []
            self._end_waiting(waiting, state)
            self._unqueue(queue, spans, state)
            cleared += spans + waiting
        return cleared

    def _unqueue(self, farm: FarmQueue, spans: list[Span], state: TaskState) -> None:
        """Count spans that have left the queue of a farm for an end state."""
        count = sum([span.count for span in spans])
        for span in spans:
            self._locality.forget(span.first, span.count)
        self._states.transition(count, QUEUED, state)
        farm.queued -= count
        if not farm.queue:
            self._backlogged.pop(farm.id, None)
        if not farm.unfinished:
            farm.is_active = False
        if self.expected:
            for span in spans:
                self._forget_expected(span.first, span.count)

    def _forget_expected(self, first: int, count: int) -> None:
        for task in range(first, first + count):
            self.expected.pop(task, None)

    def _requeue(self, farm: FarmQueue, span: Span, worker: int) -> None:
        """Put tasks that a worker held back at the head of their queue; chained ones wait again."""
        farm.take_from(worker, span.count)
        if self.chained:
            for part, needs in self.chained.take_back(span):
                if needs is None:
                    self._put_back(farm, part)
                else:
                    self._wait_again(farm, part, (), ASSIGNED, needs)
        else:
            self._put_back(farm, span)

    def _put_back(self, farm: FarmQueue, span: Span) -> None:
        self._states.transition(span.count, ASSIGNED, QUEUED)
        farm.queued += span.count
        farm.queue.put_back(span)
        self._backlogged[farm.id] = farm

    def _wait_again(
        self,
        farm: FarmQueue,
        single: Span,
        needs: Collection[int],
        old: TaskState,
        chained: Collection[int] | None,
    ) -> None:
        """Let a task wait for the results `needs`, and for those without which it was sent if it was."""
        self._states.transition(1, old, TaskState.WAITING)
        if chained is not None:
            needs = {*needs, *chained}
            self.chained.returned.append(single)
        farm.waiting.add(single, needs)

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
        self.gangs.add_worker(worker, host)
        self._workers[worker] = WorkerLoad()
        self.idle[worker] = None

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
        load = self._workers.get(worker)
        if load is None:
            return Fail([])
        if load.gang is not None:
            self._lose_member(worker, load.gang)
        del self._workers[worker]
        self.gangs.remove_worker(worker)
        self.idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        self._suspended.pop(worker, None)
        self.preparing -= load.preparing
        for farm in self._farms.values():
            if farm.ready is not None:
                farm.ready.discard(worker)
        running, waiting = load.split_running()
        requeued, failed = self.attempts.worker_died(running)
        self._states.transition(len(failed), ASSIGNED, TaskState.FAILED)
        for span in failed:
            self._farm(span).take_from(worker, span.count)
            self.chained.end(span.first, span.count)
        for span in reversed(requeued + waiting):
            self._requeue(self._farm(span), span, worker)
        self.resources.remove(worker)
        return Fail(failed)

    def fail_unmet(self, workers: int | None = None) -> Fail:
        """Fail the queued tasks whose needs no worker can meet any more; `workers` as for `unmet`."""
        lacking = {one for one, demand in self.demands.items() if self.unmet(demand, workers)}
        failed: list[Span] = []
        for farm in self._farms.values() if lacking else ():
            lanes = farm.queue.lanes
            if lanes is None:
                continue
            spans = lanes.clear() + farm.late
            farm.late = []
            failing = [span for span in spans if span.function in lacking]
            for span in spans:
                if span.function not in lacking:
                    lanes.append(span)
            self._unqueue(farm, failing, TaskState.FAILED)
            failed += failing
        return Fail(failed)

    def unmet(self, demand: Demand, workers: int | None = None) -> str:
        """Why tasks can never start, as a part of a sentence; empty if they can.

        Parameters
        ----------
        demand : Demand
            Of their function.
        workers : int, optional
            Number of workers, if some have not started.
        """
        why = self.resources.unmet(demand.needs) if demand.needs else ""
        return why or (self.gangs.unmet(demand, workers) if demand.ranks > 1 else "")

    def _farm(self, span: Span) -> FarmQueue:
        return self.farm_of.get(span.function, self._default)

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
        farm = self.farm_of.get(span.function, self._default)
        farm.take_from(worker, count)
        farm.answered += count
        farm.served += seconds
        estimate = self._estimates.get(span.function) or self.estimate(span.function)
        estimate.update(count, seconds, nbytes)
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
        return self.holder(task) is not None

    def settle(
        self,
        worker: int,
        span: Span,
        first: int,
        count: int,
        failed: Collection[int],
        cancelled: bool = False,
        again: Mapping[int, Collection[int]] = NOTHING,
    ) -> list[int]:
        """Record the outcomes of tasks of a span that a worker has answered; returns which are retried.

        If they were `cancelled`, they failed for that reason. The tasks at the offsets `again` did not
        start: they wait for the results of others.
        """
        retried: list[int] = []
        farm = self.farm_of.get(span.function, self._default)
        old = ASSIGNED
        if self._joined and first in self._joined:
            self._joined.discard(first)
            farm.waiting.count -= 1
            old = TaskState.WAITING
        else:
            farm.answered -= count
        chained = self.chained.end(first, count) if self.chained else NO_NEEDS
        if farm.abandoned or cancelled:
            self._states.transition(count, old, TaskState.CANCELLED)
            self.attempts.forget(first, count)
            return retried
        if again:
            failed = [offset for offset in failed if offset not in again]
            for offset, needs in again.items():
                single = Span(span.source, first + offset, 1, span.function, span.chunk)
                self._wait_again(farm, single, needs, old, chained.get(single.first))
        if failed:
            may_retry = self.attempts.may_retry
            retried = [offset for offset in failed if may_retry(span.function, first + offset)]
            for offset in retried:
                # It travels alone, also after it came back to the queue: a batch has one attempt number.
                single = Span(span.source, first + offset, 1, span.function, chunk=1)
                self._retry(farm, single, worker, old, chained.get(single.first))
            self._states.retried += len(retried)
            self._states.transition(len(failed) - len(retried), old, TaskState.FAILED)
        self._states.transition(count - len(failed) - len(again), old, DONE)
        if not retried and not again:
            if self.attempts:
                self.attempts.forget(first, count)
            if self.expected:
                self._forget_expected(first, count)
        return retried

    def _retry(
        self, farm: FarmQueue, single: Span, worker: int, old: TaskState, chained: Collection[int] | None
    ) -> None:
        """Queue a task again that has failed on a worker; a chained one was not given what it needs."""
        if chained is not None:
            self._failed_on[single.first] = worker
            self._wait_again(farm, single, (), old, chained)
            return
        self._states.transition(1, old, QUEUED)
        farm.queue.append_retry(single, worker)
        farm.queued += 1
        self._backlogged[farm.id] = farm

    def requeue(self, worker: int, first: int, count: int) -> bool:
        """Queue again tasks that a worker has not started; False if it holds no such tasks."""
        load = self._workers.get(worker)
        span = load.remove_unstarted(first, count) if load else None
        if load is None or span is None:
            return False
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
        self.now = now
        if now < self._next_recall or self._draining:
            return []
        overtaken: list[int] = []
        if self.demands:
            overtaken = self._mark_recalled(
                worker
                for farm in self._backlogged.values()
                if farm.queue.lanes is not None and not farm.draining
                for worker in self.lanes.overtaken(farm)
            )
            self._next_recall = now + max(RECALL_INTERVAL, 1e-5 * len(self._workers))
        if not self.idle or self._next(spans_only=True) is not None:
            return overtaken
        # The check takes time in proportion to the number of workers.
        self._next_recall = now + max(RECALL_INTERVAL, 1e-5 * len(self._workers))
        limit = recall_after(len(self._workers))

        def due(load: WorkerLoad) -> bool:
            patience = limit * load.recall_backoff
            if self.chained and self._holds_a_line(load):
                patience *= RECALL_CHAIN
            return now - load.last_answer > patience and any(
                self._fits_idle(function)
                for function in {span.function for span, _, _ in load.spans.values()}
            )

        return overtaken + self._mark_recalled(
            worker for worker, load in self._workers.items() if due(load)
        )

    def _holds_a_line(self, load: WorkerLoad) -> bool:
        """Whether each task of a worker needs the one before it, so that no other could run any of them."""
        return sum(span.count for span, _, _ in load.spans.values() if span.first not in self.chained) < 2

    def _fits_idle(self, function: int) -> bool:
        """Whether an idle worker may be sent tasks of a function."""
        farm = self.farm_of.get(function, self._default)
        held = self.gangs.held_since
        if held and self.idle.keys() <= held.keys():
            return False
        if function not in self.demands:
            return farm.is_unrestricted or farm.first_accepted(self.idle) is not None
        return any(self.lanes.may_take(worker, function) for worker in filter(farm.accepts, self.idle))

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
        self.now = now
        while self._backlogged and (self.idle or self._short_of_work):
            if (chosen := self._next()) is None:
                break
            if isinstance(chosen, GangChoice):
                self._start_gang(chosen)
                continue
            farm, worker, queue, is_retry, limit = chosen
            if self._locality and not is_retry:
                worker = self._near_data(farm, queue, worker)
            spans = (
                self._take_retry(farm, queue, worker)
                if is_retry
                else self._take(farm, queue, limit, worker)
            )
            self._give(farm, worker, spans, self._count_taken(farm, spans), now)
            if farm.waiting.count and not is_retry:
                spans = self._with_chained(farm, worker, spans)
            actions.append(Assign(worker, spans))
        return actions

    def _count_taken(self, farm: FarmQueue, spans: list[Span]) -> int:
        """Count spans that have left the queue of a farm for a worker; returns their number of tasks."""
        count = spans[0].count if len(spans) == 1 else sum([span.count for span in spans])
        self._states.transition(count, QUEUED, ASSIGNED)
        farm.queued -= count
        if not farm.queue:
            self._backlogged.pop(farm.id, None)
        if self._locality:
            for span in spans:
                self._locality.forget(span.first, span.count)
        return count

    def _give(self, farm: FarmQueue, worker: int, spans: list[Span], count: int, now: float) -> None:
        """Let a worker hold spans of a farm, which have `count` tasks."""
        load = self._workers[worker]
        farm.give_to(worker, count, self._virtual_time)
        self._virtual_time = max(self._virtual_time, farm.served)
        function = spans[0].function
        seconds_each = (self._estimates.get(function) or self.estimate(function)).seconds
        if self.demands:
            seconds_each = self._seconds_each(spans, seconds_each)
        farm.seconds_each = seconds_each if seconds_each < math.inf else BATCH_SECONDS
        self._batches += 1
        load.add(self._batches, spans, seconds_each, now)
        if function in self.demands:
            self._claim(worker, load)
        self._reclassify(worker, load)

    def _with_chained(self, farm: FarmQueue, worker: int, spans: list[Span]) -> list[Span]:
        """A batch that was given to a worker just now, with waiting tasks that need nothing else."""
        head, workers = spans[0], farm.num_workers(len(self._workers))
        if farm.queue.lanes is not None or self._locality or not all(map(may_chain, spans)):
            return spans
        if self.walltime is not None and self.walltime.ends - self.now < batch_seconds(workers):
            return spans

        def share(span: Span) -> float:
            """The part of a batch that a task takes."""
            function = span.function
            if not may_chain(span) or function in self.sent_alone or function in self._spawning:
                return math.inf
            estimate = self.estimate(function)
            if not estimate.largest_measured or span.first in self.attempts:
                return math.inf
            return 1 / estimate.target_size(workers)

        room = 1 - share(head) * sum(span.count for span in spans)
        chained = self.chained.extend(spans, farm.waiting, room, share) if room > 0 else []
        load = self._workers[worker]
        for span in chained:
            self._states.transition(span.count, TaskState.WAITING, ASSIGNED)
            farm.give_to(worker, span.count, self._virtual_time)
            load.extend(self._batches, span, self.estimate(span.function).seconds)
        if chained:
            self._reclassify(worker, load)
        return spans + chained

    def _next(self, spans_only: bool = False) -> Chosen | None:
        """Return the next batch as in `Choice`: its farm, worker and queue, and what it may be.

        With `spans_only`, retries do not count.
        """
        if self._draining:
            return None
        chosen: Chosen | None
        so_far: Round | None = None
        for farm in self._in_turn():
            if farm.draining:
                continue
            chosen, others_may = None, True
            lanes = farm.queue.lanes
            if lanes is None or farm.queue.has_nested:
                chosen, others_may = self._next_of(farm, spans_only)
            if chosen is None and others_may and lanes is not None:
                alone = self._is_alone(farm)
                if so_far is None or not self.gangs.used:
                    so_far = Round(self.now)
                chosen, others_may = self.lanes.choose(farm, so_far, spans_only, alone)
            if chosen is not None or not others_may:
                return chosen
        if so_far is None or not so_far.holds:
            self.gangs.drop_reservation()
        return None

    def _in_turn(self) -> list[FarmQueue]:
        """The farms that have tasks in their queue, in the order in which they are served."""
        farms = list(self._backlogged.values())
        if len(farms) > 1:
            now = self._virtual_time
            farms.sort(key=lambda farm: farm.start_tag(now))
        if self.walltime is not None:
            farms = [farm for farm in farms if self._set_late_aside(farm)]
        return farms

    def _next_of(self, farm: FarmQueue, spans_only: bool) -> tuple[Chosen | None, bool]:
        """As `LaneChooser.choose`, for a farm without lanes."""
        if farm.queue.retries and not spans_only:
            worker = self._next_for_retry(farm)
            if worker is not None:
                return (farm, worker, farm.queue, True, math.inf), True
        head = farm.queue.head
        worker = self._next_worker(farm)
        if head is None or worker is None:
            return None, True
        if worker in self.idle or self.may_follow(worker, head):
            return (farm, worker, farm.queue, False, math.inf), True
        # Nobody prefetches before this one has had a worker that is idle.
        return None, False

    def _is_alone(self, farm: FarmQueue) -> bool:
        """Whether a farm has one worker only, which must run its retries, too."""
        return farm.num_workers(len(self._workers)) == 1

    def _next_for_retry(self, farm: FarmQueue) -> int | None:
        """Return the worker for a farm's next retry: a free one on which the task has not failed."""
        retries = farm.queue.retries
        any_worker = self._is_alone(farm) or len(retries) > 1
        for worker in chain(reversed(self.idle), self._short_of_work):
            if (any_worker or worker not in retries) and farm.accepts(worker):
                return worker
        return None

    def _next_worker(self, farm: FarmQueue) -> int | None:
        """Return the worker for a farm's next batch: who fell idle last is awake and answers soonest."""
        if not farm.is_unrestricted:
            return farm.first_accepted(chain(reversed(self.idle), self._short_of_work))
        if self.idle:
            return next(reversed(self.idle))
        return next(iter(self._short_of_work), None)

    def _near_data(self, farm: FarmQueue, queue: TaskQueue, worker: int) -> int:
        """Return the worker for the head of a queue: one that is near its data, if it can take it.

        A busy worker counts, too: what it has not started is recalled when others are idle. For a lane,
        `LaneChooser` has chosen the worker with regard to this.
        """
        head = queue.head
        host = None if head is None else self._locality.take(head.first)
        if host is None or queue is not farm.queue:
            return worker
        at = self._locality.hosts
        near = (one for one in chain(reversed(self.idle), self._short_of_work) if at[one] == host)
        found = farm.first_accepted(near)
        return worker if found is None else found

    def _take_retry(self, farm: FarmQueue, queue: TaskQueue, worker: int) -> list[Span]:
        # It may be the only worker that can run this one.
        return queue.take_retry(worker, self._is_alone(farm) or queue.retries.keys() == {worker})

    def _take(self, farm: FarmQueue, queue: TaskQueue, limit: float, worker: int) -> list[Span]:
        """Take a farm's next batch off the head of a queue: spans of one function, of `limit` seconds."""
        head = queue.head
        assert head is not None
        size = self._batch_size(farm, head)
        if self.walltime is not None:
            limit = min(limit, self.walltime.ends - self.now - self._workers[worker].seconds)
        if isinstance(queue, SortedQueue):
            most = math.inf if head.chunk else batch_seconds(farm.num_workers(len(self._workers)))
            return queue.take(size, min(limit, most))
        if limit < math.inf and size > 1 and (seconds := self.expected_seconds(head)):
            size = min(size, max(1, int(limit / seconds)))
        return queue.take(size)

    def _batch_size(self, farm: FarmQueue, head: Span) -> int:
        """How many tasks of the span at the head of a queue make a batch."""
        size = 1
        if farm.queued > 1 and not self._locality.had(head.first):
            workers = farm.num_workers(len(self._workers))
            size = head.chunk or self.estimate(head.function).batch_size(farm.queued, workers)
            if self._spawning and head.function in self._spawning:
                size = nested_size(size, farm.queued, workers)
            if head.function in self.reductions and not head.chunk:
                size = aligned_size(head.first - head.source, size)
        return size

    def _reclassify(self, worker: int, load: WorkerLoad) -> None:
        """File a worker by its load: idle, short of work, or neither, as while it runs an initializer."""
        if worker in self._claims:
            self._claim(worker, load)
        self.idle.pop(worker, None)
        self._short_of_work.pop(worker, None)
        if load.preparing or load.suspended or load.gang is not None:
            return
        if not load.spans:
            self.idle[worker] = None
            if self.gangs.reservation is not None:
                self.gangs.note_idle(worker, self.now)
        elif load.needs_work(PREFETCH_BATCHES * batch_seconds(len(self._workers))):
            self._short_of_work[worker] = None

    def estimate(self, function: int) -> Estimate:
        """Return the live estimate of a function's tasks."""
        estimate = self._estimates.get(function)
        if estimate is None:
            estimate = self._estimates[function] = Estimate()
        return estimate

    # Tasks on several ranks

    def _start_gang(self, chosen: GangChoice) -> None:
        """Take a task on several ranks off its queue, and let its members hold it."""
        farm, members, queue, is_retry = chosen
        (span,) = queue.take_retry(0, True) if is_retry else queue.take(1)
        lead = members[0]
        self._states.transition(1, QUEUED, ASSIGNED)
        farm.queued -= 1
        for worker in members[1:]:
            farm.held.setdefault(worker, 0)
        farm.give_to(lead, 1, self._virtual_time)
        self._virtual_time = max(self._virtual_time, farm.served)
        if not farm.queue:
            del self._backlogged[farm.id]
        seconds = self._seconds_each([span], self.estimate(span.function).seconds)
        farm.seconds_each = (seconds if seconds < math.inf else BATCH_SECONDS) * len(members)
        self._batches += 1
        self._workers[lead].add(self._batches, [span], seconds, self.now)
        gang = self.gangs.add(members, span, farm, self.now, seconds)
        gang.needs = self.demands[span.function].needs
        self._locality.forget(span.first, 1)
        for worker in members:
            load = self._workers[worker]
            load.last_answer = self.now
            if gang.needs:
                self._claim(worker, load)
            self._reclassify(worker, load)

    @property
    def num_gangs(self) -> tuple[int, int, int]:
        """Number of tasks on several ranks that run, and that are queued, and of workers held for one."""
        waiting = 0
        for farm in self._backlogged.values() if self.gangs.used else ():
            lanes = farm.queue.lanes
            waiting += sum(lane.queue.count for lane in (lanes.ranked() if lanes else ()) if lane.ranks > 1)
        return len(self.gangs.running), waiting, len(self.gangs.held_since)

    def end_gang(self, gang: int) -> None:
        """Let the members of a gang do other things; the outcome of its task is recorded after that."""
        ended = self.gangs.running.pop(gang)
        lead = ended.members[0]
        ended.farm.served += (len(ended.members) - 1) * max(0.0, self.now - ended.started)
        for worker in ended.members:
            if not ended.farm.held.get(worker, 1):
                del ended.farm.held[worker]
            load = self._workers.get(worker)
            if load is None or load.gang is not ended:
                continue
            load.gang = None
            load.recalled = False
            # The first one answers for its task.
            if worker != lead or not load.spans:
                self._reclassify(worker, load)

    def _lose_member(self, worker: int, gang: Gang) -> None:
        """Let a member that is lost be the one that holds the task of its gang, if nobody has lost it."""
        lead = gang.members[0]
        load = self._workers.get(lead)
        if worker == lead or load is None or load.gang is not gang:
            return
        span = load.remove_unstarted(gang.span.first, 1)
        if span is None:
            return
        self._workers[worker].add(self._batches, [span], 0.0, self.now)
        gang.farm.held[lead] = 0
        gang.farm.held[worker] = 1

    def recall_for_gang(self, now: float) -> list[int]:
        """Return the workers to recall unstarted tasks from, because they are held for a gang."""
        self.now = now
        if not self._backlogged or self._draining:
            return []
        self._next()
        return self._mark_recalled(self.gangs.take_to_recall())

    # Priorities, needs and durations

    def _claim(self, worker: int, load: WorkerLoad) -> None:
        """Let a worker hold what its tasks need."""
        needs = {self.demands.get(span.function, PLAIN).needs for span in load.unfinished()}
        if load.gang is not None:
            needs.add(load.gang.needs)
        self.resources.claim(worker, needs)

    def units(self, worker: int, function: int) -> dict[str, tuple[int, ...]]:
        """Which units of what they need the tasks of a function have on a worker that holds some."""
        return self.resources.units(worker, self.demands[function].needs)

    def may_follow(self, worker: int, span: Span) -> bool:
        """Whether a task may be sent to a worker that holds others: it is known when it would end."""
        if not self.estimate(span.function).largest_measured:
            return False
        if self.walltime is None:
            return True
        seconds = self._workers[worker].seconds + (self.expected_seconds(span) or 0.0)
        return self.now + seconds <= self.walltime.ends

    def expected_seconds(self, span: Span) -> float | None:
        """How long the first task of a span should take: as its function says, or as measured; or None."""
        own = self.expected.get(span.first) if self.expected else None
        if own is not None:
            return own
        demand = self.demands.get(span.function, PLAIN)
        return self.estimate(span.function).quantile if demand.seconds is None else demand.seconds

    def seconds_of_next(self, queue: TaskQueue) -> float | None:
        """How long the next task of a queue should take; None if nobody knows."""
        head = queue.head
        return None if head is None else self.expected_seconds(head)

    def _seconds_each(self, spans: list[Span], measured: float) -> float:
        """The mean duration of the tasks of a batch: those of their own, if they have any."""
        demand = self.demands.get(spans[0].function, PLAIN)
        if demand.by_call:
            tasks = chain.from_iterable(range(span.first, span.end) for span in spans)
            own = [self.expected.get(task, 0.0) for task in tasks]
            return sum(own) / len(own)
        return measured if measured < math.inf or demand.seconds is None else demand.seconds

    # The walltime

    def _set_late_aside(self, farm: FarmQueue) -> bool:
        """Set aside the next tasks of a farm that would not end in time; whether others are queued."""
        queue = farm.queue
        if self.longest_possible == math.inf and self.walltime is not None:
            # Nothing could start sooner, and it would not in another run either.
            self.longest_possible = self.walltime.ends - self.now
        for one in queue.parts():
            while (head := one.head) is not None and self._is_late(head):
                farm.late += one.take(head.count)
                self.has_too_long = self.has_too_long or self._is_too_long(head)
            for spans in list(one.retries.values()):
                for span in [span for span in spans if self._is_late(span)]:
                    farm.late += one.remove(span.first, 1)
        if not queue:
            self._backlogged.pop(farm.id, None)
            return False
        return True

    def _is_late(self, span: Span) -> bool:
        seconds = self.expected_seconds(span)
        return self.walltime is not None and seconds is not None and self.now + seconds > self.walltime.ends

    def fail_too_long(self) -> list[tuple[Span, float]]:
        """Fail and return the tasks that no run with this walltime could end, with their seconds."""
        failed: list[tuple[Span, float]] = []
        for farm in self._farms.values():
            in_time: list[Span] = []
            too_long: list[Span] = []
            for span in farm.late:
                (too_long if self._is_too_long(span) else in_time).append(span)
            failed += [(span, self.expected_seconds(span) or 0.0) for span in too_long]
            farm.late = in_time
            if too_long:
                self._unqueue(farm, too_long, TaskState.FAILED)
        self.has_too_long = False
        return failed

    def _is_too_long(self, span: Span) -> bool:
        seconds = self.expected_seconds(span)
        return seconds is not None and seconds > self.longest_possible

    def num_late(self, now: float) -> int:
        """Number of tasks that would not end in time if nothing else is left to do; else 0."""
        self.now = now
        late = sum(span.count for farm in self._farms.values() for span in farm.late)
        if not late or self.assigned or self._states.tasks[QUEUED] > late:
            return 0
        for farm in self._farms.values():
            in_time = sorted(span for span in farm.late if not self._is_late(span))
            for span in in_time:
                # The estimate has fallen.
                farm.late.remove(span)
                farm.queue.append(span)
                self._backlogged[farm.id] = farm
                late = 0
        # What waits for their results does not start either.
        return late and late + self._states.tasks[TaskState.WAITING]

    def forget_function(self, function: int) -> None:
        """Drop the estimate of a function that will not be called again under this id."""
        self.demands.pop(function, None)
        self._estimates.pop(function, None)
        self.farm_of.pop(function, None)
        self._spawning.discard(function)
        self.sent_alone.discard(function)
        self.reductions.discard(function)
        self.attempts.retries.pop(function, None)

    @property
    def workers(self) -> Collection[int]:
        """The workers that have started."""
        return self._workers.keys()

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
        if load.gang is not None:
            return {load.gang.span.function}
        return {span.function for span, _, _ in load.spans.values() if span.first not in load.held}

    def find(self, task: int) -> tuple[FarmQueue, Span, int] | None:
        """The farm and span of a task that is queued, and how many of its queue come first; else None."""
        for farm in self._farms.values():
            before = 0
            for span in chain(farm.queue.spans(), farm.late):
                if span.first <= task < span.end:
                    return farm, span, before + task - span.first
                before += span.count
        return None

    def missing(self, task: int) -> list[int]:
        """The tasks whose results a task waits for."""
        return [one for farm in self._farms.values() for one in farm.waiting.missing(task)]

    def load_of(self, worker: int) -> WorkerLoad:
        """What a worker holds."""
        return self._workers[worker]

    @property
    def is_draining(self) -> bool:
        """Whether nothing starts any more."""
        return self._draining

    def holder(self, task: int) -> int | None:
        """The worker that holds a task; None if none does."""
        for worker, load in self._workers.items():
            if any(span.first <= task < span.end for span, _, _ in load.spans.values()):
                return worker
        return None

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
        return tasks[TaskState.WAITING] + tasks[QUEUED] + tasks[ASSIGNED]

    @property
    def some_wait(self) -> bool:
        """Whether some tasks need results of others before they can start or go on.

        Those that have only returned futures do not count: no worker has to run them again.
        """
        if self._suspended or self._states.tasks[TaskState.WAITING] > len(self._joined):
            return True
        # Their workers run tasks that they have submitted.
        return bool(self._spawning) and any(
            load.suspended and load.tasks > 1 for load in self._workers.values()
        )

    @property
    def assigned(self) -> int:
        """Number of tasks that workers hold."""
        return self._states.tasks[ASSIGNED]

    @property
    def may_recall(self) -> bool:
        """Whether to ask `recall`, when nothing can be assigned."""
        assigned = self._states.tasks[ASSIGNED]
        return assigned > 1 and (bool(self.idle) or bool(self.demands))

    @property
    def can_assign(self) -> bool:
        """Whether any worker could get a queued task now."""
        if self._suspended and self._backlogged and self.can_help:
            return True
        if not self._backlogged or not (self.idle or self._short_of_work) or self._draining:
            return False
        farm = next(iter(self._backlogged.values()))
        if farm.is_unrestricted and farm.queue.has_spans and not farm.draining:
            return True
        return self._next() is not None

    @property
    def can_help(self) -> bool:
        """Whether a worker whose task waits could get a descendant of it now."""
        return any(
            isinstance(farm.queue, NestedQueue) and farm.queue.head_below(task) is not None
            for task, farm in self._suspended.values()
        )

    def counts(self) -> Counts:
        """Return the numbers of tasks by state, and of workers."""
        workers = len(self._workers)
        return self._states.counts(workers, workers - len(self.idle))

    def check(self) -> None:
        """Raise AssertionError unless every task submitted is in exactly one state."""
        held: Counter[tuple[int, int]] = Counter()
        for worker, load in self._workers.items():
            for span, _, _ in load.spans.values():
                held[self._farm(span).id, worker] += span.count
        for farm in self._farms.values():
            late = sum(span.count for span in farm.late)
            counted = farm.queue.count + late, {worker: held[farm.id, worker] for worker in farm.held}
            if counted != (farm.queued, farm.held) or farm.assigned != sum(farm.held.values()):
                raise AssertionError(f"farm {farm.id} has {farm.queued} and {farm.held}, not {counted}")
            if bool(farm.queue) != (farm.id in self._backlogged):
                raise AssertionError(f"farm {farm.id} is filed with the wrong farms")
        queued = sum(farm.queued for farm in self._farms.values())
        answered = sum(farm.answered for farm in self._farms.values())
        waiting = sum(farm.waiting.count for farm in self._farms.values())
        self._states.check(queued, sum(held.values()) + answered, waiting)
        spans = (span for load in self._workers.values() for span, _, _ in load.spans.values())
        self.chained.check({task for span in spans for task in range(span.first, span.end)}, answered)
