"""The master: poll, feed the scheduler, carry out its actions, tell the owners and the observers."""

import secrets
import threading
from concurrent.futures import CancelledError
from typing import Any

from taskfarm.errors import InitializerFailed, TaskFarmError, TaskKilledWorkers
from taskfarm.master.event_loop import Driver
from taskfarm.master.failure_detector import Watch
from taskfarm.master.interfaces import Entered, Owner
from taskfarm.master.outstanding import Accounts, runs
from taskfarm.master.task_output import Output
from taskfarm.master.workers import Crew
from taskfarm.protocol import messages
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import FunctionTable, RegisteredFunction
from taskfarm.protocol.messages import (
    Blob,
    Goodbye,
    Hello,
    OutputLine,
    Pong,
    Ready,
    Recall,
    Results,
    Returned,
    Work,
)
from taskfarm.protocol.outcomes import Completed, load_outcomes
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.transport.interface import Received, Transport
from taskfarm.transport.waiting import CLOCK, Clock


class Master(Driver):
    """Runs the farm over one transport; whoever waits calls `drive`, from any thread."""

    def __init__(self, transport: Transport, clock: Clock = CLOCK) -> None:
        super().__init__(transport, clock)
        self.scheduler = Scheduler()
        self.functions = FunctionTable()
        self.output = Output()
        self.undrawn = 0
        self.seed = secrets.randbits(128)
        self.accepting = False
        self.accounts = Accounts(clock)
        self.crew = Crew(transport)
        self.losses = self.crew.losses
        self.watch = Watch(self.crew, self.scheduler, self.functions, clock.now())
        self._farm = 0
        self._initializer: Blob | None = None
        self._broken: TaskFarmError | None = None

    # What users of the master call

    def open(self, initializer: Blob | None) -> None:
        """Begin a farm: every worker runs the initializer before any task of it."""
        with self.lock:
            self._farm += 1
            self._initializer = initializer
            self._broken = self.crew.trouble
            for worker in self.crew.present:
                self.scheduler.remove_worker(worker)
                self._prepare(worker)

    def queue(
        self, function: RegisteredFunction, arguments: Arguments, owner: Owner, chunk: int = 0
    ) -> int:
        """Queue calls of a function; returns the id of the first, which the others follow.

        Parameters
        ----------
        function : RegisteredFunction
            The function, as `functions.lookup` gave it.
        arguments : Arguments
            Their arguments.
        owner : Owner
            Who is told what becomes of them.
        chunk : int
            Tasks to send at once; 0 leaves it to the farm.
        """
        with self.lock:
            first, entered = self._enter(function, arguments, owner, single=False)
            whole = Span(first, first, arguments.count, function.id, chunk)
            self._queue_around(whole, arguments, entered.values)
            if self.scheduler.can_assign:
                self._dispatch()
        return first

    def queue_single(self, function: RegisteredFunction, arguments: Arguments, owner: Owner) -> int:
        """Queue one call of a function; returns its id."""
        with self.lock:
            task, entered = self._enter(function, arguments, owner, single=True)
            if entered.values:
                self.scheduler.restore(1)
                self.accounts.give(SINGLES, Completed(task, [entered.values[0]], {}, 0))
            else:
                self.scheduler.submit_single(task, function.id, arguments.call_nbytes)
                if self.scheduler.has_idle:
                    self._dispatch()
        return task

    def _enter(
        self, function: RegisteredFunction, arguments: Arguments, owner: Owner, single: bool
    ) -> tuple[int, Entered]:
        """Give calls their ids; returns the first, and the results that the journal has, by offset."""
        if self._broken is not None:
            raise type(self._broken)(*self._broken.args)
        first, entered = self.accounts.enter(function, arguments, owner, single)
        if function.policy.retries:
            self.scheduler.attempts.retries[function.id] = function.policy.retries
        if self.functions.forgotten:
            self._forget()
        return first, entered

    def cancel(self, first: int, count: int) -> int:
        """Cancel those of these tasks that no worker has yet; returns how many."""
        with self.lock:
            spans = self.scheduler.cancel(first, count)
            for span in spans:
                self.accounts.sources.release(span.source, span.first, span.count)
        return sum(span.count for span in spans)

    def cancel_of(self, owner: Owner) -> int:
        """Cancel what an owner has queued and no worker has yet; returns how many tasks."""
        with self.lock:
            return sum(self.cancel(first, count) for first, count in self.accounts.sources.of(owner))

    def turn(self, deliver: bool = True) -> bool:
        """Take what has arrived, decide, send, tell the owners. True if anything happened."""
        with self.lock:
            # Where tasks run inside this turn, they may be interrupted.
            self.turner = None if self.transport.inline else threading.get_ident()
            try:
                moved = self._turn()
            finally:
                self.turner = None
        self.raise_pending()
        if deliver:
            self.accounts.deliver()
        return moved

    def _turn(self) -> bool:
        moved = False
        if self.closed:
            return moved
        while (received := self.transport.poll()) is not None:
            self._take(received)
            moved = True
        for rank in self.transport.lost():
            self._lose(rank, "it died")
            moved = True
        now = self.clock.now()
        if self.watch.pulse.due(now):
            for rank, why in self.watch.look(now):
                self._lose(rank, why)
        if self.scheduler.can_assign:
            self._dispatch()
        elif self.scheduler.has_idle and self.scheduler.assigned > 1:
            for worker in self.scheduler.recall(now):
                self.crew.send(worker, Recall())
        if self.accounts.keeper is not None:
            self.accounts.commit(now)
            self._break(self.accounts.broken)
        self.show(now)
        return moved

    def cancel_all(self) -> None:
        """Cancel all that no worker has yet."""
        with self.lock:
            error = CancelledError("cancelled before it started")
            for span in self.scheduler.cancel_queued():
                self.accounts.fail(span, error)

    def drain(self, on: bool = True) -> None:
        """Hand out nothing, and ask for what the workers have not started; or hand out again."""
        with self.lock:
            for worker in self.scheduler.drain(on):
                self.crew.send(worker, Recall())

    def pause(self) -> None:
        """Say that no farm is open for now."""
        with self.lock:
            self.watch.pause()

    def stop(self, seconds: float) -> bool:
        """Send every worker the poison pill; False if some has not said goodbye in time."""
        with self.lock:
            self.crew.stop()
        return self.drive(lambda: not (self.crew.left or self.transport.unsent()), self.deadline(seconds))

    def deliver_restored(self) -> None:
        """Tell owners at once what a journal knew; called without the lock."""
        if self.accounts.keeper is not None:
            self.accounts.deliver()

    @property
    def delivering(self) -> bool:
        return self.accounts.delivering

    @property
    def workers(self) -> int:
        """Workers that this farm has, started or starting."""
        return self.crew.left

    # Carrying out what the scheduler decides

    def _queue_around(self, whole: Span, arguments: Arguments, ready: dict[int, Any]) -> None:
        """Queue what lies between the calls that cannot be sent, and those whose results are there."""
        start = 0
        for completed in runs(ready, arguments.errors):
            if completed.first > start:
                span = whole.split(start)[1].split(completed.first - start)[0]
                self.scheduler.submit(span, arguments.call_nbytes)
            count = len(completed.values)
            self.scheduler.reject(len(completed.failures))
            self.scheduler.restore(count - len(completed.failures))
            self.accounts.give(whole.source, completed._replace(first=whole.first + completed.first))
            start = completed.first + count
        if start < whole.count:
            self.scheduler.submit(whole.split(start)[1], arguments.call_nbytes)

    def _dispatch(self) -> None:
        now = self.clock.now()
        for worker, spans in self.scheduler.assign(now):
            if self.accounts.records:
                self.accounts.records.sent(now, worker, spans, self.scheduler.num_workers)
            self.crew.define(worker, self.accounts.sources.function_of(spans[0]))
            attempt, part = self.scheduler.attempts.attempt, self.accounts.sources.part
            self.crew.send(worker, Work([part(span, attempt(span.first)) for span in spans]))

    def _forget(self) -> None:
        """Drop what is kept of functions that will not be called again under their ids."""
        for function in self.functions.forgotten:
            self.scheduler.forget_function(function)
            self.crew.forget(function)
        self.functions.forgotten.clear()

    def _prepare(self, worker: int) -> None:
        """Make a worker ready for the present farm."""
        isolate = self.functions.defaults.isolate
        self.watch.begin(worker, self.clock.now())
        self.crew.prepare(worker, self._farm, self._initializer, isolate, self.seed)
        if self._initializer is None:
            self._admit(worker)

    def _admit(self, worker: int) -> None:
        self.scheduler.add_worker(worker)
        self.watch.pulse.ready(worker)

    # Events

    def _take(self, received: Received) -> None:
        worker = received.source
        if worker in self.crew.gone:
            return  # It was given up too soon; its tasks are with others.
        self.watch.pulse.received(worker)
        match messages.decode(received.parcel):
            case Results(parts):
                now = self.clock.now()
                for outcomes in parts:
                    completed = load_outcomes(outcomes)
                    _, first, count, _, _, seconds, _ = outcomes
                    ended = (first, count, completed.failures, seconds, completed.nbytes)
                    again = self.scheduler.finish(worker, *ended, now)
                    if again is not None:
                        self.accounts.complete(worker, outcomes, completed, again)
            case Returned(tasks, running):
                self.scheduler.finish_recall(worker, tasks, running)
            case Hello() as hello:
                self.accounts.records.joined(self.clock.now(), worker, hello.host)
                if not self.crew.welcome(worker, hello):
                    self._break(self.crew.trouble)
                elif self._farm:
                    self._prepare(worker)
            case Ready(farm, failure):
                if farm == self._farm and self._initializer is not None:
                    if failure is None:
                        self._admit(worker)
                    else:
                        self._break(InitializerFailed(f"the initializer failed: {failure.trace}"))
            case OutputLine() as said:
                self.output(worker, said)
            case Pong():
                pass
            case Goodbye():
                self.crew.dismiss(worker)
                self.watch.pulse.remove(worker)
            case other:
                raise AssertionError(f"not for the master: {other!r}")

    def _lose(self, worker: int, why: str) -> None:
        """A worker is lost: its tasks go to others, or fail if there are none."""
        if worker in self.crew.gone:
            return
        self.crew.lose(worker, why)
        self.accounts.records.left(self.clock.now(), worker, why)
        self.watch.pulse.remove(worker)
        for span in self.scheduler.remove_worker(worker).spans:
            error = TaskKilledWorkers(
                f"task {span.first} {self.accounts.sources.function_of(span).name} was being run when "
                f"{self.scheduler.attempts.max_kills} workers died, so it is not tried again"
            )
            self.accounts.fail(span, error, as_wished=True)
        self._break(self.crew.trouble)

    def _break(self, error: TaskFarmError | None) -> None:
        """Fail all that is queued, and all that will be queued in this farm; nothing if all is well."""
        if error is None:
            return
        self._broken = error
        for span in self.scheduler.fail_queued().spans:
            self.accounts.fail(span, error)
