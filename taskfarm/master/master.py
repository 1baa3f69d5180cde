"""The master: receives messages, feeds the scheduler, carries out its actions and delivers results."""

import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from concurrent.futures import CancelledError
from itertools import count
from typing import Any, cast

from taskfarm import interrupts
from taskfarm.errors import (
    InitializerFailed,
    TaskFarmError,
    TaskKilledWorkers,
    TaskTooLong,
    UsageError,
    WorkerLost,
)
from taskfarm.master.dependencies import Dependencies
from taskfarm.master.event_loop import EventLoop
from taskfarm.master.failure_detector import FailureDetector
from taskfarm.master.farms import OpenFarm
from taskfarm.master.gangs import GangRuns, check_ranks
from taskfarm.master.interfaces import AskingSink, Dependency, MapFeeder, Position, ResultSink
from taskfarm.master.keeping import Keeping
from taskfarm.master.kept_results import KeptResult
from taskfarm.master.nested_tasks import NestedTasks
from taskfarm.master.outstanding import OutstandingTasks
from taskfarm.master.regrouping import Regrouping
from taskfarm.master.result_places import ResultPlaces
from taskfarm.master.shared_data import SharedDataServer
from taskfarm.master.task_output import TaskOutput
from taskfarm.master.unseen_failures import UnseenFailures
from taskfarm.master.workers import WorkerTable
from taskfarm.protocol import messages
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.definitions import DEFINITIONS
from taskfarm.protocol.functions import FunctionTable, RegisteredFunction
from taskfarm.protocol.kept import MARK
from taskfarm.protocol.messages import (
    Abandon,
    Await,
    Blob,
    Cancel,
    Deliver,
    Failed,
    Fetch,
    GangResult,
    Goodbye,
    GoOn,
    Have,
    Held,
    Hello,
    Message,
    Outcomes,
    OutputLine,
    Pong,
    Ready,
    Recall,
    Regrouped,
    ReportStack,
    Results,
    Returned,
    SentKept,
    Spawn,
    Withdraw,
)
from taskfarm.protocol.outcomes import (
    Completed,
    group_consecutive,
    load_at_once,
    result_nbytes,
)
from taskfarm.protocol.sides import JOB, Installed
from taskfarm.schedule.amounts import shown_needs, shown_seconds
from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.scheduler import NOTHING, Scheduler
from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.transport.interface import Transport
from taskfarm.transport.waiting import CLOCK, MIN_SLEEP, Clock

START_SECONDS = 60.0
"""Seconds that a submit waits for the start of all workers, to know how many there are on each host."""

MAX_MESSAGES = 1000
"""Most messages that one run of the loop handles: a thread of a task may print for ever."""


class Master(EventLoop):
    """Runs farms, which share the workers, over one transport. Any thread may call its methods.

    Attributes
    ----------
    scheduler : Scheduler
        Decides which worker runs which tasks.
    farms : dict of int to OpenFarm
        The farms that are open or have unfinished tasks, by id.
    dropped_farms : deque of OpenFarm
        Farms to which the job refers no more, for the event loop to close. The garbage collector, which
        notices that, may run at any moment and so does nothing else.
    functions : FunctionTable
        The settings of the farms' own tables.
    outstanding : OutstandingTasks
        The tasks whose outcomes have not been delivered.
    dependencies : Dependencies
        Lets tasks wait for the results that they need.
    result_places : ResultPlaces
        Where the results of `map_array` are received.
    workers : WorkerTable
        The other ranks.
    gangs : GangRuns
        The tasks that run on several ranks.
    shared_data : SharedDataServer
        Gives workers the data of `taskfarm.share` and `taskfarm.build`.
    keeping : Keeping
        Follows results that stay with their workers, and makes lost ones again.
    failure_detector : FailureDetector
        Finds workers that have been silent for too long.
    output : TaskOutput
        Prints what tasks print.
    deliveries : Deliveries
        What has ended, and must be handed on outside of the lock.
    unseen : UnseenFailures
        Failures that the job has not looked at.
    undrawn : int
        Arguments that maps of known length have still to draw.
    seed : int
        The seed of `taskfarm.rng` in the farms that have none of their own.
    chosen_seed : int or None
        The same if the user chose it; None if it is a random one.
    """

    def __init__(self, transport: Transport, clock: Clock = CLOCK) -> None:
        super().__init__(transport, clock)
        self.scheduler = Scheduler()
        self.functions = FunctionTable()
        self.output = TaskOutput()
        self.unseen = UnseenFailures()
        self.undrawn = 0
        self.chosen_seed: int | None = None
        self.seed = secrets.randbits(128)
        self.outstanding = OutstandingTasks(clock)
        self.dependencies = Dependencies(self.scheduler, self.outstanding)
        self.result_places = ResultPlaces(self, self.outstanding.pending)
        self.workers = WorkerTable(transport)
        self.gangs = GangRuns(self)
        self._regrouping = Regrouping(transport, self.scheduler.gangs, self.workers)
        self.shared_data = SharedDataServer(self.workers)
        self.keeping = Keeping(self)
        self._nested: NestedTasks | None = None
        transport.run_meanwhile(self.run_for_task)
        self.failure_detector = FailureDetector(self.workers, self.scheduler, self.functions, clock.now())
        self.deliveries = self.outstanding.deliveries
        self.deliveries.settle = self._settle_loaded
        self._dropped = DEFINITIONS.dropped
        self.farms: dict[int, OpenFarm] = {}
        self._closing: list[OpenFarm] = []
        # Tasks that their workers were told to end.
        self._cancelled: set[int] = set()
        self.dropped_farms: deque[OpenFarm] = deque()
        self._farm_ids = count(1)
        # Farms without a seed of their own share these, so that no two of their tasks draw the same.
        self._submit_numbers, self._map_streams = count(), count(1)

    # What farms, futures and maps call

    def choose_seed(self, seed: int) -> None:
        """Set the seed of `taskfarm.rng`."""
        self.seed = self.chosen_seed = seed

    def open_farm(
        self,
        initializer: Blob | None = None,
        seed: int | None = None,
        max_workers: int | None = None,
        max_tasks: int = 0,
    ) -> OpenFarm:
        """Open a farm.

        Parameters
        ----------
        initializer : Blob or None
            The initializer and its arguments: every worker runs it before any task of the farm.
        seed : int or None
            The farm's own seed.
        max_workers : int or None
            Most workers that hold its tasks at a time.
        max_tasks : int
            If not 0, its tasks run in child processes, which are replaced after so many of them.
        """
        with self.lock:
            id = next(self._farm_ids)
            tasks = self.scheduler.open_farm(id, initializer is not None, max_workers)
            defaults = self.functions.defaults
            if max_tasks:
                defaults = defaults._replace(isolate=True, max_tasks=max_tasks)
            functions = self.functions.of_farm(id, defaults)
            numbers: tuple[Iterator[int], Iterator[int]] = self._submit_numbers, self._map_streams
            if seed is not None:
                numbers = count(), count(1)
            seed = self.seed if seed is None else seed
            farm = OpenFarm(tasks, functions, initializer, seed, *numbers)
            farm.error = self.workers.error
            is_first = not self.farms
            self.farms[id] = farm
            try:
                for worker in self.workers.connected:
                    if is_first:
                        self.failure_detector.resume(worker)
                    self._run_initializer(worker, farm)
            except BaseException:
                self.close_farm(farm)
                raise
        return farm

    def close_farm(self, farm: OpenFarm) -> None:
        """Accept no more tasks of a farm; it is forgotten when all have ended."""
        with self.lock:
            if farm.accepting:
                farm.accepting = False
                self._closing.append(farm)
                self._forget_ended_farms()

    def abandon_farm(self, farm: OpenFarm) -> None:
        """Wait no more for the tasks of a closed farm; workers break them off or return them."""
        with self.lock:
            if farm.tasks.assigned or farm.tasks.answered:
                farm.tasks.abandoned = True
                self.drain(True, farm.id)
                for worker in farm.tasks.held:
                    self.workers.send(worker, Abandon(farm.id))

    @property
    def unfinished(self) -> int:
        """Number of tasks that somebody waits for."""
        abandoned = sum(farm.tasks.unfinished for farm in self._closing if farm.tasks.abandoned)
        return self.scheduler.unfinished - abandoned

    @property
    def idle(self) -> bool:
        """Whether every task has ended, and every outcome has been delivered, callbacks included."""
        if self.unfinished:
            return False
        with self.lock:
            return not self.unfinished and self.deliveries.idle

    def is_idle(self, farm: OpenFarm) -> bool:
        """Whether every task of a farm has ended and was delivered, callbacks included."""
        if farm.is_busy:
            return False
        with self.lock:
            return not farm.is_busy and self.deliveries.idle

    def finish(self, farm: OpenFarm) -> None:
        """Run until every task of a farm was delivered, with what callbacks and maps add meanwhile."""
        finished: set[MapFeeder] = set()

        def done() -> bool:
            return self.is_idle(farm) and not any(feeder.finishing for feeder in self.feeders_of(farm.id))

        while True:
            self.finish_maps(farm.id)
            finished.update(self.feeders_of(farm.id))
            self.run_until(done)
            if finished.issuperset(self.feeders_of(farm.id)):
                break
        for feeder in self.feeders_of(farm.id):
            feeder.give_up()

    def farm_of(self, function: RegisteredFunction) -> OpenFarm:
        """The farm of a function.

        Raises
        ------
        UsageError
            The farm has ended.
        """
        farm = self.farms.get(function.farm)
        if farm is None:
            raise UsageError("cannot schedule new futures after shutdown")
        return farm

    def queue_calls(
        self, function: RegisteredFunction, arguments: Arguments, sink: ResultSink, chunk: int = 0
    ) -> int:
        """Queue calls of a function; returns the id of the first task, which the others follow.

        Parameters
        ----------
        function : RegisteredFunction
            The function, as `FunctionTable.register` returned it.
        arguments : Arguments
            The arguments of the calls.
        sink : ResultSink
            Where their outcomes go.
        chunk : int
            Tasks to send at once; 0 leaves it to the farm.
        """
        with self.lock:
            self.prepare_to_add(function)
            if arguments.futures:
                arguments.refuse_others(self, function.farm)
            first, entry = self.outstanding.add(function, arguments, sink, None)
            if arguments.expected:
                self.scheduler.expect(first, arguments.expected, {**entry.values, **arguments.errors})
            whole = Span(first, first, arguments.count, function.id, chunk)
            self.queue_around(
                whole,
                arguments,
                entry.values,
                lambda span: self.dependencies.queue(span, function, arguments),
            )
            if self.scheduler.can_assign:
                self._dispatch()
        return first

    def queue_call(self, function: RegisteredFunction, arguments: Arguments, sink: ResultSink) -> int:
        """Queue one call of a function; returns the id of its task."""
        with self.lock:
            farm = self.prepare_to_add(function)
            task, entry = self.outstanding.add(function, arguments, sink, farm.submit_numbers)
            if entry.values:
                self.scheduler.restore(1)
                completed = Completed(task, [self.keeping.restored(task, entry.values[0])], {}, 0)
                self.outstanding.complete_without_worker(SINGLES, completed)
            elif arguments.futures or function.futures:
                self.dependencies.queue(Span(SINGLES, task, 1, function.id), function, arguments)
            else:
                if arguments.expected:
                    self.scheduler.expect(task, arguments.expected, ())
                if self.scheduler.idle:
                    self._start_single(task, function, arguments.call_nbytes)
                else:
                    self.scheduler.submit_single(task, function.id, arguments.call_nbytes)
        return task

    def _start_single(self, task: int, function: RegisteredFunction, argument_bytes: int) -> None:
        """Send a call that waits for nothing to an idle worker, or queue it if that may not run it."""
        scheduler, now = self.scheduler, self.clock.now()
        assigned = scheduler.assign_single(task, function.id, argument_bytes, now)
        if assigned is not None:
            self._send(now, *assigned)
        else:
            scheduler.submit_single(task, function.id, argument_bytes)
            self._dispatch()

    def rouse_worker(self) -> None:
        """Wake the worker that will probably get the next call: it wakes up while that is made."""
        with self.lock:
            worker = next(reversed(self.scheduler.idle), None)
            if worker is not None and not self.closed:
                self.transport.rouse(worker)

    def queue_again(
        self, function: RegisteredFunction, arguments: Arguments, sink: ResultSink, place: Position
    ) -> None:
        """Queue a call that makes a lost result again; the caller has the lock."""
        self.prepare_to_add(function, self.farms[function.farm])
        task = self.outstanding.add_again(function, arguments, sink, place)
        if arguments.expected:
            self.scheduler.expect(task, arguments.expected, ())
        # It travels alone: those beside it are at other places in the random streams.
        self.dependencies.queue(Span(SINGLES, task, 1, function.id, chunk=1), function, arguments)
        if self.scheduler.can_assign:
            self._dispatch()

    def watch(self, function: RegisteredFunction, arguments: Arguments) -> None:
        """Learn when the futures end to which calls that were queued refer; called without the lock."""
        if not (arguments.futures or function.futures):
            return
        needed = dict(function.futures)
        for futures in arguments.futures.values():
            needed.update(futures)
        for future in needed.values():
            future.call_when_ended()

    def settle(self, future: Dependency) -> None:
        """Queue what waits only for a future that has ended, or end it; called without the lock."""
        if not self.scheduler.is_needed(future.key, future.farm):
            # Who lets a call wait for it after this look asks it again.
            return
        error = future.failure()
        if error is None:
            try:
                given = future.given()
            except BaseException as raised:
                if interrupts.is_interrupt(raised):
                    interrupts.postpone(raised)
                    self.deliveries.call(self.settle, future)
                    return
                error = raised
        with self.lock:
            if self.closed:
                return
            if error is None:
                self.dependencies.resolve(future, given)
            else:
                self.dependencies.drop(future, error)
            if self.scheduler.can_assign:
                self._dispatch()

    def cancel(self, first: int, count: int, joined: bool = False) -> int:
        """Cancel those of `count` tasks that are still in the queue; returns how many.

        With `joined`, also those that wait for tasks that they have submitted, and have returned.
        """
        with self.lock:
            if joined and self._nested is not None and (ended := self._nested.cancel_joined(first, count)):
                return ended
            farm = self.outstanding.pending.farm_of(first)
            if farm is None:
                return 0
            spans = self.scheduler.cancel(first, count, farm)
            for span in spans:
                self.outstanding.events.tasks_dropped(span.first, span.count)
                self.outstanding.pending.release(span.source, span.first, span.count)
        return sum(span.count for span in spans)

    def cancel_running(self, task: int) -> bool:
        """End a task that runs in a child process of its worker; False if it does not."""
        with self.lock:
            worker = self.scheduler.holder(task)
            if worker is None or self.transport.inline:
                return False
            if not self.outstanding.pending.source_of(task, task).function.policy.isolated:
                return False
            self._cancelled.add(task)
            self.workers.send(worker, Cancel(task))
        return True

    def _cancel_returned(self) -> None:
        """Cancel tasks that came back to the queue before their worker could end them."""
        for task in [task for task in self._cancelled if self.cancel(task, 1)]:
            self._cancelled.discard(task)

    def cancel_all_of(self, sink: ResultSink) -> int:
        """Cancel the tasks of a sink that are still in the queue; returns how many."""
        with self.lock:
            pending = self.outstanding.pending
            return sum(self.cancel(first, count) for first, count in pending.of_sink(sink))

    def cancel_all(self, farm: int | None = None) -> None:
        """Cancel everything that is still in the queue, of one farm or of all."""
        with self.lock:
            error = CancelledError("cancelled before it started")
            for span in self.scheduler.cancel_queued(farm):
                self.outstanding.fail(span, error)

    def drain(self, on: bool = True, farm: int | None = None) -> None:
        """Assign no tasks, of one farm or of all, and recall what has not started; or assign them again."""
        with self.lock:
            for worker in self.scheduler.drain(on, farm):
                self.workers.send(worker, Recall())

    def stop_workers(self, seconds: float) -> bool:
        """Send every worker the poison pill; False if some have not stopped in time."""
        with self.lock:
            self.workers.send_stop()
        deadline = self.deadline(seconds)
        return self.run_until(lambda: not (self.workers.remaining or self.transport.unsent()), deadline)

    def ask_for(self, worker: int, first: int) -> None:
        """Let a worker send results that it holds back."""
        with self.lock:
            if not self.closed:
                self.workers.send(worker, Deliver(first))

    def drop_freed(self) -> None:
        """Let the workers drop the shared data that the job has freed."""
        with self.lock:
            if not self.closed:
                self.shared_data.drop_freed()

    def deliver_restored(self) -> None:
        """Deliver results from the journal at once; called without the lock."""
        if self.outstanding.journal is not None and not self.delivering:
            self.deliveries.deliver()

    @property
    def num_workers(self) -> int:
        """Workers that there are, started or starting."""
        return self.workers.remaining

    def ask_for_stack(self, worker: int) -> None:
        """Ask a worker where it is; the answer will be among the stacks of `output`."""
        self.output.stacks.pop(worker, None)
        self.workers.send(worker, ReportStack())

    # The event loop

    def run_once(self, deliver: bool = True) -> bool:
        """Receive what has arrived, decide, send, and deliver results. True if anything happened."""
        with self.lock:
            moved = self._run_once()
            again = self.dependencies.take_returned() if self.scheduler.chained.returned else ()
            if self.scheduler.has_waited and self.outstanding.events.recorders:
                self.outstanding.events.waiting_changed(self.clock.now(), self.scheduler.some_wait)
        for future in again:
            future.call_when_ended()
            moved = True
        if self.output.waiting:
            self.output.write()
        if self.keeping.needed:
            self.keeping.make_needed()
        if deliver and self.deliveries.deliver():
            moved = True
        return moved

    @property
    def delivering(self) -> bool:
        return self.deliveries.delivering

    @property
    def threads_in_users_code(self) -> Set[int]:
        return self.deliveries.threads

    def _run_once(self) -> bool:
        if self.closed:
            return False
        # Most turns of the loop find nothing to do, as a look at a few attributes tells.
        if self.shared_data.freed or self.keeping.dropped:
            self._drop_unneeded()
        moved = self._receive()
        self.scheduler.now = now = self.clock.now()
        dead = self.transport.lost()
        if (dead or self.failure_detector.heartbeats.due(now)) and self._find_lost(now, dead):
            moved = True
        if self.gangs.failing:
            self.gangs.check(now)
        self._decide(now)
        if self.transport.inline:
            # What the worker has answered meanwhile: an interrupted task is in the queue again.
            moved = self._receive() or moved
        if self.scheduler.has_too_long:
            self._fail_too_long()
        if self.outstanding.journal is not None:
            self.outstanding.commit(now)
            self._break_all(self.outstanding.journal_error)
        if self._closing or self.dropped_farms:
            self._close_farms()
        if now >= self._next_observation:
            self.notify_observers(now)
        return moved

    def _drop_unneeded(self) -> None:
        """Let the workers drop shared data and kept results that nobody needs any more."""
        self.shared_data.drop_freed()
        self.keeping.release_dropped()

    def _decide(self, now: float) -> None:
        """Send out what the scheduler decides."""
        if self.transport.inline and interrupts.pending():
            # The job is to be interrupted, not to begin the next task.
            pass
        elif self.scheduler.can_assign:
            self._dispatch()
        elif self.scheduler.may_recall:
            for worker in self.scheduler.recall(now):
                self.workers.send(worker, Recall())
        if self.scheduler.gangs.used:
            if self._regrouping.check(now):
                self._fail_unmet()
            for worker in self.scheduler.recall_for_gang(now):
                self.workers.send(worker, Recall())

    def _receive(self) -> bool:
        """Handle the messages that have arrived, but not more than some; True if there were any."""
        moved = False
        for _ in range(MAX_MESSAGES):
            if (self.output.waiting and self.output.is_full) or (received := self.transport.poll()) is None:
                break
            # A worker that was given up too soon may still send; its tasks are with others.
            if received.source not in self.workers.gone:
                self.failure_detector.heartbeats.received(received.source)
                self._handle(received.source, messages.decode(received.parcel))
            moved = True
        return moved

    def run_for_task(self) -> bool:
        """Run the loop for a task that waits in this process; True if anything happened."""
        with self.lock, Installed(JOB):
            moved = self._run_once()
            if not moved:
                self.clock.sleep(MIN_SLEEP)
        return moved

    # Queueing and sending

    def prepare_to_add(
        self, function: RegisteredFunction, farm: OpenFarm | None = None, nested: bool = False
    ) -> OpenFarm:
        """Make sure that calls of a function can be queued; returns its farm.

        `farm` is given for calls that may also be queued when the job may submit no more. `nested` are
        those of tasks.
        """
        if farm is not None:
            farm.check_unbroken()
        elif (
            (farm := self.farms.get(function.farm)) is None or not farm.accepting or farm.error is not None
        ):
            farm = self.farm_of(function)
            farm.check_usable()
        if self.functions.forgotten or DEFINITIONS.dropped != self._dropped:
            self._forget_functions()
        if function.id not in self.scheduler.farm_of:
            self.scheduler.assign_function(function.id, farm.id)
            if function.policy.isolated or function.policy.keep or function.futures:
                self.scheduler.sent_alone.add(function.id)
            if function.policy.retries:
                self.scheduler.attempts.retries[function.id] = function.policy.retries
        if function.demand is not None:
            self.check_needs(function, nested=nested)
            self._set_demand(function.id, function.demand)
        if self.shared_data.freed:
            self.shared_data.drop_freed()
        return farm

    def check_needs(self, function: RegisteredFunction, nested: bool = False) -> None:
        """Make sure that a worker can meet the needs of a function, now or when others have done with it.

        Tasks that a task has submitted (`nested`) may have no needs: the worker whose task waits for them
        must be able to run them, whatever others hold.

        Raises
        ------
        UsageError, WorkerLost
            None can, or none that is left.
        """
        if function.policy.ranks > 1:
            self._check_ranks(function)
        demand, resources = function.demand, self.scheduler.resources
        if demand is None or not demand.needs or (self.transport.inline and not resources):
            # In one process tasks run one after the other anyway.
            return
        if why := resources.unmet(demand.needs):
            raise self._unmet(function, why)
        if nested:
            raise UsageError(
                f"a task cannot submit {function.name}, which needs {shown_needs(demand.needs)}: the "
                "worker that waits for it may not get that; let the job submit it"
            )

    def _check_ranks(self, function: RegisteredFunction) -> None:
        """Make sure that tasks of a function can run on several ranks."""
        check_ranks(self.transport, function, self.farms[function.farm].tasks.max_workers)
        assert function.demand is not None
        if why := self.scheduler.unmet(function.demand, self.workers.remaining):
            raise self._unmet(function, why)
        if why := self.gangs.exhausted():
            raise UsageError(f"{function.name} cannot start: {why}")

    def await_hosts(self, function: RegisteredFunction) -> None:
        """Wait until all workers have started, if a function needs several of a host; without the lock."""
        policy = function.policy
        if policy.ranks > 1 and policy.hosts is not None and not self.transport.in_process:
            limit = self.deadline(START_SECONDS)
            self.run_until(lambda: self.scheduler.num_workers >= self.workers.remaining, limit)

    def _set_demand(self, function: int, demand: Demand) -> None:
        if self.transport.inline and not self.scheduler.resources:
            demand = demand._replace(needs=())
        self.scheduler.set_demand(function, demand)

    def _unmet(self, function: RegisteredFunction, why: str) -> TaskFarmError:
        resources = self.scheduler.resources
        assert function.demand is not None
        if not (function.demand.needs and resources.unmet(function.demand.needs)):
            if self.workers.lost:
                return WorkerLost(f"{function.name} {why}; lost: {', '.join(map(str, self.workers.lost))}")
            return UsageError(f"{function.name} {why}: start with more ranks, or give the task fewer")
        text = f"{function.name} {why}; offered: {resources.describe()}"
        if resources.has_lost:
            return WorkerLost(f"{text}; lost: {resources.describe_lost(function.demand.needs)}")
        return UsageError(
            f"{text}; add --resource, such as `run --resource {resources.example(function.demand.needs)}`"
        )

    def _fail_unmet(self) -> None:
        """Fail tasks that only lost workers could run, or for which there were never enough."""
        workers = self.workers.remaining
        for span in self.scheduler.fail_unmet(workers).spans:
            function = self.outstanding.pending.function_of(span)
            assert function.demand is not None
            why = self.scheduler.unmet(function.demand, workers)
            self.outstanding.fail(span, self._unmet(function, why))

    def _fail_too_long(self) -> None:
        """Fail tasks that would take longer than the run may."""
        for span, seconds in self.scheduler.fail_too_long():
            name = self.outstanding.pending.function_of(span).name
            most = shown_seconds(self.scheduler.longest_possible)
            error = TaskTooLong(
                f"task {span.first} {name} is expected to take {shown_seconds(seconds)}, but the walltime "
                f"leaves tasks {most} at most: raise --walltime, or make the task shorter"
            )
            self.outstanding.fail(span, error, use_policy=True)

    def queue_around(
        self,
        whole: Span,
        arguments: Arguments,
        ready: dict[int, Any],
        queue: Callable[[Span], None],
    ) -> None:
        """Queue what lies between calls that cannot be sent and calls whose results are known."""
        start = 0
        for completed in group_consecutive(ready, arguments.errors):
            if completed.first > start:
                span = whole.split(start)[1].split(completed.first - start)[0]
                queue(span)
            count = len(completed.values)
            self.scheduler.reject(len(completed.failures))
            self.scheduler.restore(count - len(completed.failures))
            start = completed.first + count
            completed = completed._replace(first=whole.first + completed.first)
            self.outstanding.complete_without_worker(whole.source, completed)
        if start < whole.count:
            queue(whole.split(start)[1])

    def _dispatch(self) -> None:
        now = self.clock.now()
        if self._nested is not None:
            for worker, spans, task in self.scheduler.help(now):
                self._send(now, worker, spans, task)
        for worker, spans in self.scheduler.assign(now):
            self._send(now, worker, spans)
        if self.scheduler.gangs.used:
            self._start_gangs(now)

    def _start_gangs(self, now: float) -> None:
        """Send out the tasks on several ranks that the scheduler has started."""
        events = self.outstanding.events
        for worker, since in self.scheduler.gangs.take_released():
            events.worker_held(now, worker, since)
        for gang in self.scheduler.gangs.take_started():
            if events:
                events.gang_sent(now, gang.members, gang.span, self.scheduler.num_workers)
            attempt = self.scheduler.attempts.attempt(gang.span.first)
            part = self.outstanding.pending.make_part(gang.span, attempt)
            if nbytes := self.gangs.start(gang, part):
                events.function_sent(self.outstanding.pending.function_of(gang.span), nbytes)

    def _send(self, now: float, worker: int, spans: list[Span], helps: int = -1) -> None:
        if self.outstanding.events.recorders:
            self.outstanding.events.batch_sent(now, worker, spans, self.scheduler.num_workers)
        pending, attempts = self.outstanding.pending, self.scheduler.attempts
        function = pending.function_of(spans[0])
        chained: list[Span] = []
        if self.scheduler.chained:
            chained = [span for span in spans if span.first in self.scheduler.chained]
            spans = spans[: len(spans) - len(chained)]
        parts = [pending.make_part(span, attempts.attempt(span.first)) for span in spans]
        if chained:
            self._define(worker, chained)
            parts += self.dependencies.send_chained(chained)
        if function.demand is not None and function.demand.needs:
            units = self.scheduler.units(worker, function.id)
            parts = [part._replace(units=units) for part in parts]
        if nbytes := self.workers.send_work(worker, function, self.farms[function.farm], parts, helps):
            self.outstanding.events.function_sent(function, nbytes)

    def _define(self, worker: int, spans: list[Span]) -> None:
        """Send a worker the functions of some spans, unless it has them."""
        for span in spans:
            function = self.outstanding.pending.function_of(span)
            if nbytes := self.workers.define(worker, function, self.farms[function.farm]):
                self.outstanding.events.function_sent(function, nbytes)

    def _forget_functions(self) -> None:
        """Drop what is kept of functions that will not be called again under their ids."""
        # The garbage collector may add to them at any moment.
        functions = self.functions.forgotten[:]
        del self.functions.forgotten[: len(functions)]
        for function in functions:
            self.scheduler.forget_function(function)
        self._dropped = DEFINITIONS.dropped
        self.workers.forget(functions, DEFINITIONS.ids())

    def _close_farms(self) -> None:
        """Close the farms that were dropped, and forget those that have ended."""
        while self.dropped_farms:
            self.close_farm(self.dropped_farms.popleft())
        for farm in self._closing:
            # Workers have returned what they had not started.
            if farm.tasks.abandoned and (farm.tasks.queued or farm.tasks.waiting.count):
                self.cancel_all(farm.id)
        self._forget_ended_farms()

    def _forget_ended_farms(self) -> None:
        """Drop what is kept of the farms that are closed and whose tasks have ended."""
        ended = [farm for farm in self._closing if farm.has_ended]
        for farm in ended:
            self._closing.remove(farm)
            del self.farms[farm.id]
            farm.functions.clear()
            self._forget_functions()
            self.scheduler.forget_farm(farm.id)
            self.workers.forget_farm(farm.id)
            if self.outstanding.journal is not None:
                self.outstanding.journal.close_farm(farm.id)
        if ended and not self.farms:
            self.failure_detector.pause()

    def _run_initializer(self, worker: int, farm: OpenFarm) -> None:
        """Let a worker run the initializer of a farm, if there is one."""
        if farm.initializer is not None:
            self.workers.initialize(worker, farm)
            self.scheduler.prepare(worker)
            self.failure_detector.await_initializer(worker, self.clock.now())

    # What workers send

    def _handle(self, worker: int, message: Message) -> None:
        match message:
            case Results() | Held():
                self.handle_results(worker, message)
            case GangResult() | Regrouped():
                self._handle_of_gangs(worker, message)
            case Returned(tasks, running):
                self.scheduler.finish_recall(worker, tasks, running)
                self._cancel_returned()
                if self._nested is not None:
                    self._nested.returned(worker, tasks)
                self._await_initializer(worker)
            case Hello():
                self._handle_hello(worker, message)
            case Ready():
                self._handle_ready(worker, message)
            case OutputLine():
                self.output(worker, message)
            case Pong():
                pass
            case Goodbye():
                self._handle_goodbye(worker, message)
            case _:
                self._handle_of_task(worker, message)

    def _handle_of_gangs(self, worker: int, message: GangResult | Regrouped) -> None:
        """Handle what a worker says as a member of tasks on several ranks."""
        if isinstance(message, GangResult):
            self.gangs.handle(worker, message)
        elif self._regrouping.handle(worker, message):
            self._fail_unmet()

    def _handle_of_task(self, worker: int, message: Message) -> None:
        """Handle what a task asks for while it runs, and what is for one."""
        match message:
            case Fetch() | Have() | Failed() | SentKept():
                self._handle_data(worker, message)
            case Spawn() | Await() | GoOn() | Withdraw():
                self._nested = self._nested or NestedTasks(self)
                self._nested.handle(worker, message)
            case _:
                raise AssertionError(f"not for the master: {message!r}")

    def _handle_data(self, worker: int, message: Fetch | Have | Failed | SentKept) -> None:
        """Handle a message about shared data or a kept result."""
        if isinstance(message, SentKept):
            self.keeping.receive(message)
        elif message.token.startswith(MARK):
            self.keeping.handle(worker, message)
        else:
            self.shared_data.handle(worker, message)

    def _handle_goodbye(self, worker: int, goodbye: Goodbye) -> None:
        if goodbye.why:
            self._lose(worker, f"it left: {goodbye.why}", alive=True)
        self.workers.remove(worker)
        self.failure_detector.heartbeats.remove(worker)

    def handle_results(self, worker: int, message: Results | Held) -> None:
        """Record outcomes that a worker has sent, or holds back."""
        if isinstance(message, Held):
            self._handle_held(worker, message)
            return
        now = self.clock.now()
        for outcomes in message.parts:
            size = result_nbytes(outcomes)
            span = self.scheduler.answer(
                worker, outcomes.first, outcomes.count, outcomes.seconds, size, now
            )
            if span is None:
                # From a worker that was given up.
                continue
            if self._nested is not None and self._nested.concerns(outcomes):
                self._nested.results(worker, span, outcomes)
            else:
                self.pass_on(worker, span, outcomes)
        if self.scheduler.preparing:
            self._await_initializer(worker)

    def _handle_held(self, worker: int, held: Held) -> None:
        """Let the sink of results that a worker holds back ask for them."""
        first, count, seconds, nbytes = held
        span = self.scheduler.hold(worker, first, count, seconds, nbytes, self.clock.now())
        if span is not None:
            sink = self.outstanding.pending.source_of(span.source, first).sink
            cast(AskingSink, sink).offer(worker, held)

    def pass_on(self, worker: int, span: Span, outcomes: Outcomes) -> None:
        """Process outcomes that a worker has sent, at once if that calls no code of users."""
        completed = load_at_once(outcomes)
        if completed is None:
            self.deliveries.load_later(worker, span, outcomes)
        else:
            self.settle_outcomes(worker, span, outcomes, completed)

    def settle_outcomes(self, worker: int, span: Span, outcomes: Outcomes, completed: Completed) -> None:
        """Process outcomes of a span that are known."""
        first, count = outcomes.first, outcomes.count
        abandoned = self._closing and self.farms[self._farm_id(outcomes)].tasks.abandoned
        cancelled = first in self._cancelled
        if cancelled:
            self._cancelled.discard(first)
            cancelled = bool(completed.failures)
        again: dict[int, list[KeptResult]] = {}
        if outcomes.failures and not (abandoned or cancelled):
            again = self.keeping.given_back(outcomes)
        needs: Mapping[int, Collection[int]] = NOTHING
        if again:
            needs = {offset: [result.key for result in results] for offset, results in again.items()}
        retried = self.scheduler.settle(worker, span, first, count, completed.failures, cancelled, needs)
        if outcomes.kept:
            self.keeping.enter(outcomes, completed)
        if cancelled:
            self.outstanding.fail(Span(outcomes.source, first, 1, 0), CancelledError("it was cancelled"))
        elif abandoned:
            whole = Span(outcomes.source, first, count, 0)
            self.outstanding.fail(whole, CancelledError("it was abandoned"))
        else:
            self.outstanding.complete(worker, outcomes, completed, [*retried, *again] if again else retried)
        for results in again.values():
            for result in results:
                result.call_when_ended()

    def _farm_id(self, outcomes: Outcomes) -> int:
        return self.outstanding.pending.source_of(outcomes.source, outcomes.first).function.farm

    def _settle_loaded(self, worker: int, span: Span, outcomes: Outcomes, completed: Completed) -> None:
        """Process outcomes that were unpickled without the lock."""
        with self.lock:
            self.settle_outcomes(worker, span, outcomes, completed)
            if self.scheduler.can_assign:
                self._dispatch()
            if self.outstanding.journal is not None:
                self.outstanding.commit(self.clock.now())

    def _await_initializer(self, worker: int) -> None:
        """Begin to wait for an initializer once a worker has nothing else to do."""
        if self.scheduler.preparing:
            self.failure_detector.await_initializer(worker, self.clock.now())

    def _handle_hello(self, worker: int, hello: Hello) -> None:
        self.outstanding.events.worker_joined(self.clock.now(), worker, hello.host)
        if not self.workers.register(worker, hello):
            self._break_all(self.workers.error)
        else:
            self.scheduler.add_worker(worker, hello.host)
            if self.scheduler.gangs.used:
                self._fail_unmet()
            self.failure_detector.heartbeats.ready(worker)
            if self.farms:
                self.failure_detector.resume(worker)
            for farm in self.farms.values():
                self._run_initializer(worker, farm)
        self.workers.stop_late()

    def _handle_ready(self, worker: int, ready: Ready) -> None:
        self.outstanding.events.worker_initialized(self.clock.now(), worker, ready.seconds)
        succeeded = ready.failure is None
        self.scheduler.prepared(worker, ready.farm if succeeded else None)
        self.failure_detector.heartbeats.ready(worker)
        self._await_initializer(worker)
        farm = self.farms.get(ready.farm)
        if ready.failure is not None and farm is not None:
            self._break(farm, InitializerFailed(f"the initializer failed: {ready.failure.trace}"))

    # Losses

    def _find_lost(self, now: float, dead: list[int]) -> bool:
        """Give up workers that died, and those that have been silent for too long; True if any died."""
        for rank in dead:
            self._lose(rank, "it died")
        if self.failure_detector.heartbeats.due(now):
            for rank, why in self.failure_detector.find_silent(now):
                self._lose(rank, why)
        return bool(dead)

    def give_up(self, worker: int, why: str) -> None:
        """Give up a worker, which does not do what it should."""
        self._lose(worker, why)

    def _lose(self, worker: int, why: str, alive: bool = False) -> None:
        """Give up a worker: its tasks go to others, or fail if there are none."""
        if worker in self.workers.gone:
            return
        if alive:
            self.workers.mark_left(worker, why)
        else:
            self.workers.mark_lost(worker, why)
        self.outstanding.events.worker_lost(self.clock.now(), worker, why)
        self.failure_detector.heartbeats.remove(worker)
        self.shared_data.remove(worker)
        self.keeping.remove(worker)
        for span in self.scheduler.remove_worker(worker).spans:
            error = TaskKilledWorkers(
                f"task {span.first} {self.outstanding.pending.function_of(span).name} was running when "
                f"{self.scheduler.attempts.max_kills} workers died, so it is not retried"
            )
            self.outstanding.fail(span, error, use_policy=True)
        self.gangs.lose(worker)
        self._regrouping.lose(worker, alive, self.clock.now())
        self._cancel_returned()
        if self._nested is not None:
            self._nested.lost(worker)
        self._break_all(self.workers.error)
        if self.scheduler.resources.has_lost or self.scheduler.gangs.used:
            self._fail_unmet()

    def _break(self, farm: OpenFarm, error: TaskFarmError) -> None:
        """Fail all queued tasks of a farm, and all that it gets later."""
        farm.error = error
        for span in self.scheduler.fail_queued(farm.id).spans:
            self.outstanding.fail(span, error)

    def _break_all(self, error: TaskFarmError | None) -> None:
        """Break every farm; do nothing if `error` is None."""
        if error is not None:
            for farm in self.farms.values():
                self._break(farm, error)
