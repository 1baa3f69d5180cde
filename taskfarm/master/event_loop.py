"""The event loop of rank 0: whichever thread waits for the farm, or submits to it, runs the loop."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakSet

from taskfarm.master.interfaces import MapFeeder, Observer
from taskfarm.master.map_progress import MapProgress
from taskfarm.transport.interface import Transport
from taskfarm.transport.waiting import Clock, Waiter

OBSERVE_INTERVAL = 0.1
"""Seconds between two calls of the observers."""

MIN_INTERVAL, IDLE_FACTOR = 100e-6, 8
"""While the caller only submits, the loop pauses for this many seconds, or this many times its last run."""

SUBMITTING = 5e-3
"""Seconds after a submit during which its caller is expected to submit more."""


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
    feeders : dict of int to MapFeeder
        Maps that can draw more arguments.
    map_numbers : iterator of int
        Numbers for maps, in the order in which they begin.
    maps : set of MapProgress
        The progress of each map, for as long as the map lives.
    observers : list of Observer
        Called ten times a second.
    asyncio_loops : set of asyncio.AbstractEventLoop
        Loops of asyncio that run this one.
    running_thread : int or None
        The thread that is inside `run_once` and must not be interrupted there.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self.transport = transport
        self.clock = clock
        self.waiter = Waiter(clock, transport)
        self.lock = threading.RLock()
        self.closed = False
        self.asyncio_loops: WeakSet[Any] = WeakSet()
        self.feeders: dict[int, MapFeeder] = {}
        self.map_numbers = count(1)
        self.maps: WeakSet[MapProgress] = WeakSet()
        self.observers: list[Observer] = []
        self.running_thread: int | None = None
        self._next_observation = -math.inf
        self._waiting_threads: set[int] = set()
        self._due = self._last_submit = -SUBMITTING
        self._pending_error: BaseException | None = None

    @abstractmethod
    def run_once(self, deliver: bool = True) -> bool:
        """Receive what has arrived, decide, send, and deliver results. True if anything happened."""

    @property
    @abstractmethod
    def delivering(self) -> bool:
        """Whether this thread is delivering an outcome, further up its stack."""

    def close(self) -> None:
        """Release the transport; a thread that still runs the loop finds nothing to do."""
        with self.lock:
            self.closed = True
            self.transport.close()

    def notify_observers(self, now: float) -> None:
        """Call the observers, if it is time."""
        if now >= self._next_observation:
            self._next_observation = now + OBSERVE_INTERVAL
            for observer in self.observers:
                observer(now)

    def interrupt(self, error: BaseException) -> None:
        """Raise an error in this thread: at once, or after the run of the loop that it is in."""
        if self.running_thread != threading.get_ident():
            raise error
        self._pending_error = error

    def raise_pending(self) -> None:
        """Raise what `interrupt` has postponed; called after each run of the loop."""
        if self._pending_error is not None:
            error, self._pending_error = self._pending_error, None
            raise error

    def run_until(self, done: Callable[[], bool], deadline: float | None = None) -> bool:
        """Run the loop until `done()` is true; False if the deadline passes first."""
        me = threading.get_ident()
        self._waiting_threads.add(me)
        try:
            since = self.clock.now()
            while not done():
                moved = self.run_once()
                now = self.clock.now()
                if moved:
                    self.waiter.received(now - since)
                    since = now
                    self.feed_maps()
                elif deadline is not None and now >= deadline:
                    return False
                else:
                    self.waiter.pause(now - since)
            return True
        finally:
            self._waiting_threads.discard(me)

    def deadline(self, timeout: float | None) -> float | None:
        """The time `timeout` seconds from now."""
        return None if timeout is None else self.clock.now() + timeout

    def run_if_due(self) -> None:
        """Run the loop once if it is due: keeps the farm going while its caller only submits."""
        self._last_submit = now = self.clock.now()
        if now >= self._due:
            self.run_once(deliver=not self.delivering)
            ended = self.clock.now()
            self._due = ended + max(MIN_INTERVAL, IDLE_FACTOR * (ended - now))

    def feed_maps(self) -> None:
        """Let the maps of this thread draw more arguments."""
        me = threading.get_ident()
        for feeder in list(self.feeders.values()):
            if feeder.thread == me:
                feeder.feed()

    def finish_maps(self, farm: int) -> None:
        """Let the maps of a farm draw all the arguments that are left, if their number is finite."""
        for feeder in list(self.feeders.values()):
            if feeder.farm == farm:
                feeder.feed_all()

    @property
    def is_run_by_caller(self) -> bool:
        """Whether some thread waits, and so runs the loop, or submits all the time."""
        return bool(self._waiting_threads) or self.clock.now() - self._last_submit < SUBMITTING
