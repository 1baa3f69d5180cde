"""The master: poll, feed the scheduler, carry out its actions, tell the owners and the observers."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

from taskfarm import messages
from taskfarm.arguments import Arguments
from taskfarm.crew import Crew
from taskfarm.errors import InitializerFailed, TaskFarmError
from taskfarm.functions import FunctionTable, Known
from taskfarm.messages import Goodbye, Hello, Ready, Recall, Results, Returned, Work
from taskfarm.outcomes import Settled, read
from taskfarm.owners import Feeder, Observer, Owner, Post
from taskfarm.scheduler import Scheduler
from taskfarm.sources import Source, Sources
from taskfarm.task import Blob, Span
from taskfarm.transport import Received, Transport
from taskfarm.waiting import CLOCK, Clock, Waiter

TURN, SPARE = 100e-6, 8
"""While its caller only submits, the farm turns after so many seconds, and so many times the last turn."""

LATELY = 5e-3
"""Seconds after a submit for which its caller is expected to submit more."""


class Master:
    """Runs the farm over one transport; whoever waits calls `drive`, from any thread."""

    def __init__(self, transport: Transport, clock: Clock = CLOCK) -> None:
        self.transport = transport
        self.clock = clock
        self.waiter = Waiter(clock, transport)
        self.scheduler = Scheduler()
        self.functions = FunctionTable()
        self.observers: list[Observer] = []
        self.feeders: dict[int, Feeder] = {}
        self.undrawn = 0
        self.accepting = False
        self.lock = threading.RLock()
        self._sources = Sources()
        self._next_id = 0
        self._crew = Crew(transport)
        self._farm = 0
        self._initializer: Blob | None = None
        self._broken: TaskFarmError | None = None
        self._post = Post()
        self._drivers: set[int] = set()
        self._due = self._poked = -LATELY

    # What users of the master call

    def open(self, initializer: Blob | None) -> None:
        """Begin a farm: every worker runs the initializer before any task of it."""
        with self.lock:
            self._farm += 1
            self._initializer = initializer
            self._broken = self._crew.trouble
            for worker in self._crew.present:
                self.scheduler.remove_worker(worker)
                self._prepare(worker)

    def queue(self, known: Known, arguments: Arguments, owner: Owner, chunk: int = 0) -> int:
        """Queue calls of a function.

        Parameters
        ----------
        known : Known
            The function, as `functions.lookup` gave it.
        arguments : Arguments
            Their arguments.
        owner : Owner
            Who is told what becomes of them.
        chunk : int
            Tasks to send at once; 0 leaves it to the farm.

        Returns
        -------
        int
            The id of the first call; the others follow it.
        """
        with self.lock:
            first = self._enter(Source(arguments, owner, known), single=False)
            whole = Span(first, first, arguments.count, known.id, chunk)
            if arguments.errors:
                self._queue_around(whole, arguments)
            else:
                self.scheduler.submit(whole, arguments.weight)
            if self.scheduler.can_assign:
                self._dispatch()
        return first

    def queue_single(self, known: Known, arguments: Arguments, owner: Owner) -> int:
        """Queue one call of a function; returns its id."""
        with self.lock:
            task = self._enter(Source(arguments, owner, known), single=True)
            self.scheduler.submit_single(task, known.id, arguments.weight)
            if self.scheduler.has_idle:
                self._dispatch()
        return task

    def _enter(self, source: Source, single: bool) -> int:
        """Give a source its ids; returns the first."""
        if self._broken is not None:
            raise type(self._broken)(*self._broken.args)
        first = self._next_id
        self._next_id += source.arguments.count
        self._sources.add(first, source, single)
        if self.functions.forgotten:
            self._forget()
        return first

    def cancel(self, first: int, count: int) -> int:
        """Cancel those of these tasks that no worker has yet; returns how many."""
        with self.lock:
            spans = self.scheduler.cancel(first, count)
            for span in spans:
                self._sources.release(span.source, span.first, span.count)
        return sum(span.count for span in spans)

    def cancel_of(self, owner: Owner) -> int:
        """Cancel what an owner has queued and no worker has yet; returns how many tasks."""
        with self.lock:
            return sum(self.cancel(first, count) for first, count in self._sources.of(owner))

    def drive(self, until: Callable[[], bool], deadline: float | None = None) -> bool:
        """Turn the farm until `until()` is true; False if the deadline passes first."""
        me = threading.get_ident()
        self._drivers.add(me)
        try:
            since = self.clock.now()
            while not until():
                moved = self.turn()
                now = self.clock.now()
                if moved:
                    self.waiter.heard(now - since)
                    since = now
                    self.feed()
                elif deadline is not None and now >= deadline:
                    return False
                else:
                    self.waiter.rest(now - since)
            return True
        finally:
            self._drivers.discard(me)

    def deadline(self, timeout: float | None) -> float | None:
        """When `timeout` seconds from now are over."""
        return None if timeout is None else self.clock.now() + timeout

    def poke(self) -> None:
        """Turn the farm once if that is due: keeps it going while its caller only submits."""
        self._poked = now = self.clock.now()
        if now >= self._due:
            self.turn(deliver=not self._post.busy)
            ended = self.clock.now()
            self._due = ended + max(TURN, SPARE * (ended - now))

    def turn(self, deliver: bool = True) -> bool:
        """Take what has arrived, decide, send, tell the owners. True if anything happened."""
        with self.lock:
            moved = False
            while (received := self.transport.poll()) is not None:
                self._take(received)
                moved = True
            for rank in self.transport.lost():
                self._lose(rank)
                moved = True
            if self.scheduler.can_assign:
                self._dispatch()
            elif self.scheduler.has_idle and self.scheduler.assigned > 1:
                for worker in self.scheduler.recall(self.clock.now()):
                    self._crew.send(worker, Recall())
            if moved and self.observers:
                counts = self.scheduler.counts()
                for observer in self.observers:
                    observer(counts, self.undrawn)
        if deliver:
            self._post.deliver()
        return moved

    def feed(self) -> None:
        """Let the maps of this thread draw more arguments."""
        me = threading.get_ident()
        for feeder in list(self.feeders.values()):
            if feeder.thread == me:
                feeder.feed()

    def finish_maps(self) -> None:
        """Let the maps draw the rest of what is finite."""
        for feeder in list(self.feeders.values()):
            feeder.finish()

    def cancel_all(self) -> None:
        """Cancel all that no worker has yet."""
        with self.lock:
            for span in self.scheduler.cancel_queued():
                error = CancelledError("cancelled before it started")
                self._settle(span.source, Settled.failed(span.first, error, span.count))

    def stop(self, seconds: float) -> bool:
        """Send every worker the poison pill; False if some has not said goodbye in time."""
        with self.lock:
            self._crew.stop()
        ended = self.deadline(seconds)
        return self.drive(lambda: not (self._crew.left or self.transport.unsent()), ended)

    @property
    def workers(self) -> int:
        """Workers that this farm has, started or starting."""
        return self._crew.left

    @property
    def driven(self) -> bool:
        """Whether some thread waits, and so drives, or submits all the time."""
        return bool(self._drivers) or self.clock.now() - self._poked < LATELY

    # Carrying out what the scheduler decides

    def _queue_around(self, whole: Span, arguments: Arguments) -> None:
        """Queue what lies between the calls that cannot be sent, and fail those."""
        start = 0
        for offset in [*sorted(arguments.errors), whole.count]:
            if offset > start:
                span = whole.split(start)[1].split(offset - start)[0]
                self.scheduler.submit(span, arguments.weight)
            if offset < whole.count:
                self.scheduler.reject(1)
                self._settle(whole.source, Settled.failed(whole.first + offset, arguments.errors[offset]))
            start = offset + 1

    def _dispatch(self) -> None:
        for worker, spans in self.scheduler.assign(self.clock.now()):
            self._crew.define(worker, self._sources.known(spans[0]))
            self._crew.send(worker, Work([self._sources.part(span) for span in spans]))

    def _forget(self) -> None:
        """Drop what is kept of functions that will not be called again under their ids."""
        for function in self.functions.forgotten:
            self.scheduler.forget(function)
            self._crew.forget(function)
        self.functions.forgotten.clear()

    def _prepare(self, worker: int) -> None:
        """Make a worker ready for the present farm."""
        self._crew.prepare(worker, self._farm, self._initializer)
        if self._initializer is None:
            self.scheduler.add_worker(worker)

    # Events

    def _take(self, received: Received) -> None:
        worker = received.source
        match messages.decode(received.parcel):
            case Results(parts):
                now = self.clock.now()
                for outcomes in parts:
                    settled = read(outcomes)
                    _, first, count, _, _, seconds = outcomes
                    ended = (first, count, len(settled.failures), seconds, settled.nbytes)
                    if self.scheduler.finish(worker, *ended, now):
                        self._settle(outcomes.source, settled)
            case Returned(tasks, running):
                self.scheduler.take_back(worker, tasks, running)
            case Hello() as hello:
                if not self._crew.welcome(worker, hello):
                    self._break(self._crew.trouble)
                elif self._farm:
                    self._prepare(worker)
            case Ready(farm, failure):
                if farm == self._farm and self._initializer is not None:
                    if failure is None:
                        self.scheduler.add_worker(worker)
                    else:
                        self._break(InitializerFailed(f"the initializer failed: {failure.trace}"))
            case Goodbye():
                self._crew.dismiss(worker)
            case other:
                raise AssertionError(f"not for the master: {other!r}")

    def _lose(self, worker: int) -> None:
        """A worker is dead: its tasks go to others, or fail if there are none."""
        self._crew.dismiss(worker)
        self.scheduler.remove_worker(worker)
        self._break(self._crew.trouble)

    def _break(self, error: TaskFarmError | None) -> None:
        """Fail all that is queued, and all that will be queued in this farm; nothing if all is well."""
        if error is None:
            return
        self._broken = error
        for span in self.scheduler.fail_queued().spans:
            self._settle(span.source, Settled.failed(span.first, error, span.count))

    def _settle(self, source: int, settled: Settled) -> None:
        self._sources.settle(source, settled, self._post)
