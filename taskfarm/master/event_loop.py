"""The event loop of rank 0: whichever thread waits for the farm, or submits to it, runs the loop."""

import contextlib
import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Set
from typing import Any, NoReturn
from weakref import WeakSet

from taskfarm import interrupts
from taskfarm.errors import UsageError
from taskfarm.fork_hooks import in_forked_children
from taskfarm.master.farm_time import FarmTime
from taskfarm.master.interfaces import MapFeeder, Observer
from taskfarm.master.map_progress import MapProgress
from taskfarm.master.recorders import say_switched_off
from taskfarm.transport.interface import Transport
from taskfarm.transport.waiting import Clock, Waiter

OBSERVE_INTERVAL = 0.1
"""Seconds between two calls of the observers."""

MIN_INTERVAL, IDLE_FACTOR = 100e-6, 8
"""While the caller only submits, the loop pauses for this many seconds, or this many times its last run."""

WORKED = 100e-6
"""Seconds; a run of the loop that takes longer has worked, not waited."""

SUBMITTING = 5e-3
"""Seconds after a submit during which its caller is expected to submit more."""


class _LockOfParent:
    """Takes the place of the lock in a forked process, so that nothing there uses the farm."""

    def __enter__(self) -> NoReturn:
        raise UsageError(
            "this process was forked from one with a farm, which only that process can use: submit there, "
            "and wait for results there"
        )

    def __exit__(self, *_: object) -> None:
        """Do nothing: the parent's lock may have been held at the fork."""


class EventLoop(ABC):
    """Lets threads wait for the farm while they run it.

    Parameters
    ----------
    transport : Transport
        The way to the workers.
    clock : Clock
        The clock of the farm.

    Attributes
    ----------
    lock : threading.RLock
        Held around each use of the transport and of the master's tables.
    closed : bool
        Whether the transport has been released.
    forked : bool
        Whether this process was forked from the one that runs the farm; then it refuses to use it.
    feeders : dict of int to MapFeeder
        Maps that can draw more arguments.
    abandoned : deque of MapFeeder
        Maps whose iterators were dropped before their end. The garbage collector may find them at any
        moment, also while tables change, so they are closed later.
    num_maps : int
        Number of maps so far.
    maps : set of MapProgress
        The progress of each map, for as long as the map lives.
    observers : list of Observer
        Called ten times a second.
    asyncio_loops : set of asyncio.AbstractEventLoop
        Loops of asyncio that run this one.
    farm_time : FarmTime or None
        When the main thread was inside the farm, if anybody asks for that.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self.transport = transport
        self.clock = clock
        self.waiter = Waiter(clock, transport)
        self.lock: threading.RLock | _LockOfParent = threading.RLock()
        self.closed = self.forked = False
        in_forked_children(self._enter_forked_child)
        self.asyncio_loops: WeakSet[Any] = WeakSet()
        self.feeders: dict[int, MapFeeder] = {}
        self.abandoned: deque[MapFeeder] = deque()
        self.num_maps = 0
        self.maps: WeakSet[MapProgress] = WeakSet()
        self.observers: list[Observer] = []
        self.farm_time: FarmTime | None = None
        self._main_thread = threading.main_thread().ident
        self._next_observation = -math.inf
        # With the time at which each gives up.
        self._waiting_threads: dict[int | None, float | None] = {}
        self._due = self._last_submit = -SUBMITTING

    def _enter_forked_child(self) -> None:
        self.forked = True
        self.lock = _LockOfParent()

    def refuse_forked_child(self) -> None:
        """Raise UsageError if this process was forked from the one that runs the farm."""
        if self.forked:
            _LockOfParent().__enter__()

    @abstractmethod
    def run_once(self, deliver: bool = True) -> bool:
        """Receive what has arrived, decide, send, and deliver results. True if anything happened."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether every task has ended, and every outcome has been delivered, callbacks included."""

    @property
    @abstractmethod
    def delivering(self) -> bool:
        """Whether this thread runs users' code for the farm, further up its stack."""

    @property
    @abstractmethod
    def threads_in_users_code(self) -> Set[int]:
        """The threads that run users' code for the farm: callbacks, and what loads results."""

    def close(self) -> None:
        """Release the transport; a thread that still runs the loop finds nothing to do."""
        with self.lock:
            self.closed = True
            self.transport.close()

    def notify_observers(self, now: float) -> None:
        """Call the observers, if it is time; one that raises is not called again."""
        if now >= self._next_observation:
            self._next_observation = now + OBSERVE_INTERVAL
            for observer in list(self.observers):
                try:
                    observer(now)
                except (Exception, SystemExit) as error:
                    self.observers.remove(observer)
                    say_switched_off(observer, error)

    def run_until(self, done: Callable[[], bool], deadline: float | None = None) -> bool:
        """Run the loop until `done()` is true; False if the deadline passes first.

        This is where a thread waits, so an exception that a signal has brought is raised here.
        """
        interrupts.install()
        me = threading.get_ident()
        nested, outer = me in self._waiting_threads, self._waiting_threads.get(me)
        self._waiting_threads[me] = deadline
        farm_time = self._main_farm_time
        since = self.clock.now()
        if farm_time is not None:
            farm_time.enter("waiting")
        try:
            now = since
            while not done():
                turn = now
                interrupts.raise_pending()
                moved = self.run_once()
                now = self.clock.now()
                if moved:
                    if farm_time is not None and now - turn > WORKED:
                        farm_time.worked(turn, now)
                    self.waiter.received(now - since)
                    since = now
                    if self.feeders or self.abandoned:
                        self.feed_maps()
                elif deadline is not None and now >= deadline:
                    return False
                else:
                    self.waiter.pause(now - since)
            # What is submitted next need not run the loop at once.
            self._due = max(self._due, now + MIN_INTERVAL)
            return True
        finally:
            if nested:
                self._waiting_threads[me] = outer
            else:
                self._waiting_threads.pop(me, None)
            if farm_time is not None:
                farm_time.leave()

    @property
    def _main_farm_time(self) -> FarmTime | None:
        """What records the time inside the farm, if this is the main thread."""
        return self.farm_time if threading.get_ident() == self._main_thread else None

    def working(self) -> "contextlib.AbstractContextManager[None]":
        """While functions and arguments are pickled and queued, this thread works for the farm."""
        farm_time = self._main_farm_time
        return contextlib.nullcontext() if farm_time is None else farm_time.working()

    def drawing(self) -> "contextlib.AbstractContextManager[None]":
        """While arguments are drawn from an iterable of the job, the job's own code runs."""
        farm_time = self._main_farm_time
        return contextlib.nullcontext() if farm_time is None else farm_time.drawing()

    @property
    def main_thread_waits(self) -> bool:
        """Whether the main thread waits for the farm, for as long as it takes."""
        main = self._main_thread
        return self._waiting_threads.get(main, 0.0) is None and main not in self.threads_in_users_code

    def deadline(self, timeout: float | None) -> float | None:
        """The time `timeout` seconds from now."""
        return None if timeout is None else self.clock.now() + timeout

    def run_if_due(self) -> None:
        """Run the loop once if it is due: keeps the farm going while its caller only submits."""
        self._last_submit = now = self.clock.now()
        if now >= self._due:
            self.run_once(deliver=not self.delivering)
            ended = self.clock.now()
            if (farm_time := self._main_farm_time) is not None:
                farm_time.worked(now, ended)
            self._due = ended + max(MIN_INTERVAL, IDLE_FACTOR * (ended - now))

    def number_map(self) -> int:
        """The number of a map that begins now: 1 for the first."""
        with self.lock:
            self.num_maps += 1
            return self.num_maps

    def feed_maps(self) -> None:
        """Let the maps of this thread draw more arguments: those that it made, or began to consume."""
        self.close_abandoned()
        me = threading.get_ident()
        for feeder in list(self.feeders.values()):
            if feeder.thread == me:
                feeder.feed()

    def close_abandoned(self) -> None:
        """Close the maps whose iterators were dropped before their end."""
        while self.abandoned:
            try:
                feeder = self.abandoned.popleft()
            except IndexError:  # another thread was faster
                return
            feeder.close()

    def finish_maps(self, farm: int) -> None:
        """Let this thread draw all the arguments of a farm's maps that nobody has begun to consume."""
        self.close_abandoned()
        for feeder in self.feeders_of(farm):
            feeder.finish()

    def feeders_of(self, farm: int) -> list[MapFeeder]:
        """The maps of a farm that can draw more arguments."""
        return [feeder for feeder in list(self.feeders.values()) if feeder.farm == farm]

    @property
    def is_run_by_caller(self) -> bool:
        """Whether some thread waits, and so runs the loop, or submits all the time."""
        return (
            bool(self._waiting_threads.keys() - self.threads_in_users_code)
            or self.clock.now() - self._last_submit < SUBMITTING
        )
