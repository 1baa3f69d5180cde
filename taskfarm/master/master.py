"""The master: receives messages, feeds the scheduler, carries out its actions and delivers results."""

import secrets
import threading
from concurrent.futures import CancelledError
from typing import Any

from taskfarm.environment import current_folder
from taskfarm.errors import InitializerFailed, TaskFarmError, TaskKilledWorkers
from taskfarm.master.event_loop import EventLoop
from taskfarm.master.failure_detector import FailureDetector
from taskfarm.master.interfaces import JournalEntry, ResultSink
from taskfarm.master.outstanding import OutstandingTasks
from taskfarm.master.task_output import TaskOutput
from taskfarm.master.workers import WorkerTable
from taskfarm.protocol import messages
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.definitions import DEFINITIONS
from taskfarm.protocol.functions import FunctionTable, RegisteredFunction
from taskfarm.protocol.messages import (
    Blob,
    Goodbye,
    Hello,
    Message,
    Outcomes,
    OutputLine,
    Pong,
    Ready,
    Recall,
    Results,
    Returned,
)
from taskfarm.protocol.outcomes import Completed, group_consecutive, load_outcomes
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.transport.interface import Transport
from taskfarm.transport.waiting import CLOCK, Clock


class Master(EventLoop):
    """Runs the farm over one transport. Any thread may call its methods.

    Attributes
    ----------
    scheduler : Scheduler
        Decides which worker runs which tasks.
    functions : FunctionTable
        The functions that tasks call.
    outstanding : OutstandingTasks
        The tasks whose outcomes have not been delivered.
    workers : WorkerTable
        The other ranks.
    failure_detector : FailureDetector
        Finds workers that have been silent for too long.
    output : TaskOutput
        Prints what tasks print.
    undrawn : int
        Arguments that maps of known length have still to draw.
    seed : int
        The seed of `taskfarm.rng`.
    accepting : bool
        Whether a farm is open and takes tasks.
    """

    def __init__(self, transport: Transport, clock: Clock = CLOCK) -> None:
        super().__init__(transport, clock)
        self.scheduler = Scheduler()
        self.functions = FunctionTable()
        self.output = TaskOutput()
        self.undrawn = 0
        self.seed = secrets.randbits(128)
        self.accepting = False
        self.outstanding = OutstandingTasks(clock)
        self.workers = WorkerTable(transport)
        self.failure_detector = FailureDetector(self.workers, self.scheduler, self.functions, clock.now())
        self._farm = 0
        self._initializer: Blob | None = None
        self._folder = ""
        self._dropped = DEFINITIONS.dropped
        self._broken: TaskFarmError | None = None

    # What farms, futures and maps call

    def open_farm(self, initializer: Blob | None) -> None:
        """Begin a farm: every worker runs the initializer before any task of it."""
        with self.lock:
            self._farm += 1
            self._initializer = initializer
            self._folder = current_folder()
            self._broken = self.workers.error
            for worker in self.workers.connected:
                self.scheduler.remove_worker(worker)
                self._prepare(worker)

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
            first, entry = self._add(function, arguments, sink, single=False)
            whole = Span(first, first, arguments.count, function.id, chunk)
            self._queue_around(whole, arguments, entry.values)
            if self.scheduler.can_assign:
                self._dispatch()
        return first

    def queue_call(self, function: RegisteredFunction, arguments: Arguments, sink: ResultSink) -> int:
        """Queue one call of a function; returns the id of its task."""
        with self.lock:
            task, entry = self._add(function, arguments, sink, single=True)
            if entry.values:
                self.scheduler.restore(1)
                completed = Completed(task, [entry.values[0]], {}, 0)
                self.outstanding.complete_without_worker(SINGLES, completed)
            else:
                self.scheduler.submit_single(task, function.id, arguments.call_nbytes)
                if self.scheduler.has_idle:
                    self._dispatch()
        return task

    def cancel(self, first: int, count: int) -> int:
        """Cancel those of `count` tasks that are still in the queue; returns how many."""
        with self.lock:
            spans = self.scheduler.cancel(first, count)
            for span in spans:
                self.outstanding.pending.release(span.source, span.first, span.count)
        return sum(span.count for span in spans)

    def cancel_all_of(self, sink: ResultSink) -> int:
        """Cancel the tasks of a sink that are still in the queue; returns how many."""
        with self.lock:
            pending = self.outstanding.pending
            return sum(self.cancel(first, count) for first, count in pending.of_sink(sink))

    def cancel_all(self) -> None:
        """Cancel everything that is still in the queue."""
        with self.lock:
            error = CancelledError("cancelled before it started")
            for span in self.scheduler.cancel_queued():
                self.outstanding.fail(span, error)

    def drain(self, on: bool = True) -> None:
        """Assign no tasks, and recall what the workers have not started; or assign tasks again."""
        with self.lock:
            for worker in self.scheduler.drain(on):
                self.workers.send(worker, Recall())

    def pause(self) -> None:
        """Note that no farm is open."""
        with self.lock:
            self.failure_detector.pause()

    def stop_workers(self, seconds: float) -> bool:
        """Send every worker the poison pill; False if some have not stopped in time."""
        with self.lock:
            self.workers.send_stop()
        return self.run_until(
            lambda: not (self.workers.remaining or self.transport.unsent()), self.deadline(seconds)
        )

    def deliver_restored(self) -> None:
        """Deliver results from the journal at once; called without the lock."""
        if self.outstanding.journal is not None:
            self.outstanding.deliver()

    @property
    def num_workers(self) -> int:
        """Workers that this farm has, started or starting."""
        return self.workers.remaining

    # The event loop

    def run_once(self, deliver: bool = True) -> bool:
        """Receive what has arrived, decide, send, and deliver results. True if anything happened."""
        with self.lock:
            # If tasks run inside this call, they may be interrupted.
            self.running_thread = None if self.transport.inline else threading.get_ident()
            try:
                moved = self._run_once()
            finally:
                self.running_thread = None
        self.raise_pending()
        if deliver:
            self.outstanding.deliver()
        return moved

    @property
    def delivering(self) -> bool:
        return self.outstanding.delivering

    def _run_once(self) -> bool:
        moved = False
        if self.closed:
            return moved
        while (received := self.transport.poll()) is not None:
            # A worker that was given up too soon may still send; its tasks are with others.
            if received.source not in self.workers.gone:
                self.failure_detector.heartbeats.received(received.source)
                self._handle(received.source, messages.decode(received.parcel))
            moved = True
        now = self.clock.now()
        if self._find_lost(now):
            moved = True
        if self.scheduler.can_assign:
            self._dispatch()
        elif self.scheduler.has_idle and self.scheduler.assigned > 1:
            for worker in self.scheduler.recall(now):
                self.workers.send(worker, Recall())
        if self.outstanding.journal is not None:
            self.outstanding.commit(now)
            self._fail_farm(self.outstanding.journal_error)
        self.notify_observers(now)
        return moved

    # Queueing and sending

    def _add(
        self, function: RegisteredFunction, arguments: Arguments, sink: ResultSink, single: bool
    ) -> tuple[int, JournalEntry]:
        """Number calls; returns the id of the first task, and what the journal knows of them."""
        if self._broken is not None:
            raise type(self._broken)(*self._broken.args)
        first, entry = self.outstanding.add(function, arguments, sink, single)
        if function.policy.retries:
            self.scheduler.attempts.retries[function.id] = function.policy.retries
        if self.functions.forgotten or DEFINITIONS.dropped != self._dropped:
            self._forget_functions()
        return first, entry

    def _queue_around(self, whole: Span, arguments: Arguments, ready: dict[int, Any]) -> None:
        """Queue what lies between calls that cannot be sent and calls whose results are known."""
        start = 0
        for completed in group_consecutive(ready, arguments.errors):
            if completed.first > start:
                span = whole.split(start)[1].split(completed.first - start)[0]
                self.scheduler.submit(span, arguments.call_nbytes)
            count = len(completed.values)
            self.scheduler.reject(len(completed.failures))
            self.scheduler.restore(count - len(completed.failures))
            start = completed.first + count
            completed = completed._replace(first=whole.first + completed.first)
            self.outstanding.complete_without_worker(whole.source, completed)
        if start < whole.count:
            self.scheduler.submit(whole.split(start)[1], arguments.call_nbytes)

    def _dispatch(self) -> None:
        now = self.clock.now()
        for worker, spans in self.scheduler.assign(now):
            if self.outstanding.events:
                self.outstanding.events.batch_sent(now, worker, spans, self.scheduler.num_workers)
            pending, attempt = self.outstanding.pending, self.scheduler.attempts.attempt
            parts = [pending.make_part(span, attempt(span.first)) for span in spans]
            function = pending.function_of(spans[0])
            if nbytes := self.workers.send_work(worker, function, parts):
                self.outstanding.events.function_sent(function, nbytes)

    def _forget_functions(self) -> None:
        """Drop what is kept of functions that will not be called again under their ids."""
        functions, self.functions.forgotten = self.functions.forgotten, []
        for function in functions:
            self.scheduler.forget_function(function)
        self._dropped = DEFINITIONS.dropped
        self.workers.forget(functions, DEFINITIONS.ids())

    def _prepare(self, worker: int) -> None:
        """Prepare a worker for the farm that is open."""
        isolate = self.functions.defaults.isolate
        self.failure_detector.await_ready(worker, self.clock.now())
        self.workers.initialize(worker, self._farm, self._initializer, isolate, self.seed, self._folder)
        if self._initializer is None:
            self._admit(worker)

    def _admit(self, worker: int) -> None:
        self.scheduler.add_worker(worker)
        self.failure_detector.heartbeats.ready(worker)

    # What workers send

    def _handle(self, worker: int, message: Message) -> None:
        match message:
            case Results(parts):
                self._handle_results(worker, parts)
            case Returned(tasks, running):
                self.scheduler.finish_recall(worker, tasks, running)
            case Hello():
                self._handle_hello(worker, message)
            case Ready():
                self._handle_ready(worker, message)
            case OutputLine():
                self.output(worker, message)
            case Pong():
                pass
            case Goodbye():
                self.workers.remove(worker)
                self.failure_detector.heartbeats.remove(worker)
            case _:
                raise AssertionError(f"not for the master: {message!r}")

    def _handle_results(self, worker: int, parts: list[Outcomes]) -> None:
        now = self.clock.now()
        for outcomes in parts:
            completed = load_outcomes(outcomes)
            _, first, count, _, _, seconds, _ = outcomes
            retried = self.scheduler.finish(
                worker, first, count, completed.failures, seconds, completed.nbytes, now
            )
            if retried is not None:
                self.outstanding.complete(worker, outcomes, completed, retried)

    def _handle_hello(self, worker: int, hello: Hello) -> None:
        self.outstanding.events.worker_joined(self.clock.now(), worker, hello.host)
        if not self.workers.register(worker, hello):
            self._fail_farm(self.workers.error)
        elif self._farm:
            self._prepare(worker)

    def _handle_ready(self, worker: int, ready: Ready) -> None:
        if ready.farm != self._farm or self._initializer is None:
            return
        if ready.failure is None:
            self._admit(worker)
        else:
            self._fail_farm(InitializerFailed(f"the initializer failed: {ready.failure.trace}"))

    # Losses

    def _find_lost(self, now: float) -> bool:
        """Give up workers that died, and those that have been silent for too long; True if any died."""
        dead = self.transport.lost()
        for rank in dead:
            self._lose(rank, "it died")
        if self.failure_detector.heartbeats.due(now):
            for rank, why in self.failure_detector.find_silent(now):
                self._lose(rank, why)
        return bool(dead)

    def _lose(self, worker: int, why: str) -> None:
        """Give up a worker: its tasks go to others, or fail if there are none."""
        if worker in self.workers.gone:
            return
        self.workers.mark_lost(worker, why)
        self.outstanding.events.worker_lost(self.clock.now(), worker, why)
        self.failure_detector.heartbeats.remove(worker)
        for span in self.scheduler.remove_worker(worker).spans:
            error = TaskKilledWorkers(
                f"task {span.first} {self.outstanding.pending.function_of(span).name} was running when "
                f"{self.scheduler.attempts.max_kills} workers died, so it is not retried"
            )
            self.outstanding.fail(span, error, use_policy=True)
        self._fail_farm(self.workers.error)

    def _fail_farm(self, error: TaskFarmError | None) -> None:
        """Fail all queued tasks, and all that this farm gets later; do nothing if `error` is None."""
        if error is None:
            return
        self._broken = error
        for span in self.scheduler.fail_queued().spans:
            self.outstanding.fail(span, error)
