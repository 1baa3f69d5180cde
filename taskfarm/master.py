"""The master: poll, feed the scheduler, carry out its actions, tell the owners and the observers."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import NamedTuple, Protocol

from taskfarm import messages
from taskfarm._version import __version__
from taskfarm.arguments import Arguments
from taskfarm.errors import InitializerFailed, LaunchError, TaskFarmError, WorkerLost
from taskfarm.functions import FunctionTable, Known
from taskfarm.messages import Define, Goodbye, Hello, Initialize, Part, Ready, Results, Work
from taskfarm.outcomes import Settled, read
from taskfarm.scheduler import Scheduler
from taskfarm.task import Blob, Counts, Span
from taskfarm.transport import Received, Transport
from taskfarm.waiting import rest


class Owner(Protocol):
    """Who queued a source: a future, or a map."""

    def start(self) -> None:
        """Some of the tasks are on their way to a worker; called under the master's lock."""

    def settle(self, settled: Settled) -> None:
        """Take outcomes; called without the lock, from whichever thread drives."""


class Feeder(Protocol):
    """A map that can draw more arguments."""

    thread: int

    def feed(self) -> None:
        """Draw as many as the farm should have at hand now."""

    def finish(self) -> None:
        """Draw the rest, if there is an end to it."""


class _Source(NamedTuple):
    """What was queued together: its arguments, its owner, and the function."""

    arguments: Arguments
    owner: Owner
    known: Known


class Master:
    """Runs the farm over one transport: what the scheduler decides, it does.

    Every method may be called from any thread. Nothing happens between calls: whoever waits calls
    `drive`, which turns the farm until what it waits for is there.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.scheduler = Scheduler()
        self.functions = FunctionTable()
        self.observers: list[Callable[[Counts, int], None]] = []
        self.feeders: dict[int, Feeder] = {}
        self.undrawn = 0
        self.accepting = False
        self.lock = threading.RLock()
        self._sources: dict[int, _Source] = {}
        self._left: dict[int, int] = {}
        self._next_id = 0
        self._present: set[int] = set()
        self._gone: set[int] = set()
        self._told: dict[int, set[int]] = {}
        self._stale: dict[int, list[int]] = {}
        self._farm = 0
        self._initializer: Blob | None = None
        self._broken: TaskFarmError | None = None
        self._deliveries: deque[tuple[Owner, Settled]] = deque()
        self._delivering: set[int] = set()
        self._drivers: set[int] = set()
        self._last_turn = 0.0

    # What users of the master call

    def open(self, initializer: Blob | None) -> None:
        """Begin a farm: every worker runs the initializer before any task of it."""
        with self.lock:
            self._farm += 1
            self._initializer = initializer
            self._broken = None
            for worker in self._present:
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
            if self._broken is not None:
                raise type(self._broken)(*self._broken.args)
            first, count = self._next_id, arguments.count
            self._next_id += count
            self._sources[first] = _Source(arguments, owner, known)
            self._left[first] = count
            known.users += 1
            if self.functions.forgotten:
                self._forget()
            whole = Span(first, first, count, known.id, chunk)
            if arguments.errors:
                self._queue_around(whole, arguments)
            else:
                self.scheduler.submit(whole, arguments.weight)
            if self.scheduler.can_assign:
                self._dispatch()
        return first

    def cancel(self, first: int, count: int) -> int:
        """Cancel those of these tasks that no worker has yet; returns how many."""
        with self.lock:
            spans = self.scheduler.cancel(first, count)
            for span in spans:
                self._release(span.source, span.count)
        return sum(span.count for span in spans)

    def drive(self, until: Callable[[], bool], deadline: float | None = None) -> bool:
        """Turn the farm until `until()` is true; False if the deadline (perf_counter) passes first."""
        me = threading.get_ident()
        self._drivers.add(me)
        try:
            since = time.perf_counter()
            while not until():
                moved = self.turn()
                now = time.perf_counter()
                if moved:
                    since = now
                    self.feed()
                elif deadline is not None and now >= deadline:
                    return False
                else:
                    rest(now - since)
            return True
        finally:
            self._drivers.discard(me)

    def poke(self) -> None:
        """Turn the farm once if that is due: keeps it going while its caller only submits."""
        if time.perf_counter() - self._last_turn > 100e-6:
            self.turn(nested=threading.get_ident() in self._delivering)

    def turn(self, nested: bool = False) -> bool:
        """Take what has arrived, decide, send, tell. True if anything happened."""
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
            if moved and self.observers:
                counts = self.scheduler.counts()
                for observer in self.observers:
                    observer(counts, self.undrawn)
            self._last_turn = time.perf_counter()
        if self._deliveries and not nested:
            self._deliver()
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
                failures: dict[int, BaseException] = dict.fromkeys(range(span.count), error)
                self._settle(span.source, Settled(span.first, [None] * span.count, failures, 0))

    def stop(self, seconds: float) -> bool:
        """Send every worker the poison pill; False if some has not said goodbye in time."""
        others = set(range(1, self.transport.size))
        with self.lock:
            for worker in others - self._gone:
                self.transport.send(worker, messages.encode(messages.Stop()))
        deadline = time.perf_counter() + seconds
        return self.drive(lambda: self._gone >= others and not self.transport.unsent(), deadline)

    @property
    def workers(self) -> int:
        """Workers that this farm has, started or starting."""
        return self.transport.size - 1 - len(self._gone)

    @property
    def driven(self) -> bool:
        """Whether some thread waits, and so drives."""
        return bool(self._drivers)

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
        for worker, spans in self.scheduler.assign():
            parts = []
            for source, first, count, function, _ in spans:
                arguments, owner, known = self._sources[source]
                if function not in self._told[worker]:
                    self._define(worker, known)
                owner.start()
                calls = arguments.cut(first - source, count)
                parts.append(Part(function, source, first, count, calls))
            self.transport.send(worker, messages.encode(Work(parts)))

    def _define(self, worker: int, known: Known) -> None:
        self._told[worker].add(known.id)
        define = Define(known.id, known.name, known.blob, self._stale.pop(worker, []))
        self.transport.send(worker, messages.encode(define))

    def _forget(self) -> None:
        """Drop what is kept of functions that will not be called again under their ids."""
        for function in self.functions.forgotten:
            self.scheduler.forget(function)
            for worker, told in self._told.items():
                if function in told:
                    told.discard(function)
                    self._stale.setdefault(worker, []).append(function)
        self.functions.forgotten.clear()

    def _prepare(self, worker: int) -> None:
        """Make a worker ready for the present farm."""
        initialize = Initialize(self._farm, sys.path, self._initializer)
        self.transport.send(worker, messages.encode(initialize))
        if self._initializer is None:
            self.scheduler.add_worker(worker)

    def _deliver(self) -> None:
        """Tell the owners. Their code may submit, or wait and so come here again."""
        me = threading.get_ident()
        nested = me in self._delivering
        self._delivering.add(me)
        try:
            while self._deliveries:
                try:
                    owner, settled = self._deliveries.popleft()
                except IndexError:
                    return
                owner.settle(settled)
        finally:
            if not nested:
                self._delivering.discard(me)

    # Events

    def _take(self, received: Received) -> None:
        worker = received.source
        match messages.decode(received.parcel):
            case Results(parts):
                for outcomes in parts:
                    settled = read(outcomes)
                    failed = len(settled.failures)
                    _, first, count, _, _, seconds = outcomes
                    if self.scheduler.finish(worker, first, count, failed, seconds, settled.nbytes):
                        self._settle(outcomes.source, settled)
            case Hello(version, python, host, _):
                self._welcome(worker, version, python, host)
            case Ready(farm, failure):
                if farm == self._farm and self._initializer is not None:
                    if failure is None:
                        self.scheduler.add_worker(worker)
                    else:
                        self._break(InitializerFailed(f"the initializer failed: {failure.trace}"))
            case Goodbye():
                self._gone.add(worker)
            case other:
                raise AssertionError(f"not for the master: {other!r}")

    def _welcome(self, worker: int, version: str, python: str, host: str) -> None:
        ours = ".".join(map(str, sys.version_info[:2]))
        if version != __version__ or not python.startswith(f"{ours}."):
            self._break(
                LaunchError(
                    f"rank {worker} on {host} runs taskfarm {version} on Python {python}, rank 0 "
                    f"taskfarm {__version__} on Python {ours}: start all ranks from one environment"
                )
            )
            return
        self._present.add(worker)
        self._told[worker] = set()
        if self._farm:
            self._prepare(worker)

    def _lose(self, worker: int) -> None:
        """A worker is dead: its tasks go to others, or fail if there are none."""
        self._gone.add(worker)
        self._present.discard(worker)
        self.scheduler.remove_worker(worker)
        if not self.workers:
            self._break(WorkerLost("all workers are lost; start the job again"))

    def _break(self, error: TaskFarmError) -> None:
        """Fail all that is queued, and all that will be queued in this farm."""
        self._broken = error
        for span in self.scheduler.fail_queued().spans:
            failures = dict.fromkeys(range(span.count), error)
            self._settle(span.source, Settled(span.first, [None] * span.count, failures, 0))

    def _settle(self, source: int, settled: Settled) -> None:
        self._deliveries.append((self._sources[source].owner, settled))
        self._release(source, len(settled.values))

    def _release(self, source: int, count: int) -> None:
        """Drop the arguments once the last of their tasks has ended."""
        self._left[source] -= count
        if not self._left[source]:
            del self._left[source]
            self._sources.pop(source).known.users -= 1
