"""Who turns the farm: whichever thread waits for it, or a caller that only submits."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakSet

from taskfarm.master.interfaces import TICK, Feeder, Observer, Progress
from taskfarm.transport.interface import Transport
from taskfarm.transport.waiting import Clock, Waiter

TURN, SPARE = 100e-6, 8
"""While its caller only submits, the farm turns after so many seconds, and so many times the last turn."""

LATELY = 5e-3
"""Seconds after a submit for which its caller is expected to submit more."""


class Driver(ABC):
    """Lets threads wait for the farm by turning it.

    Parameters
    ----------
    transport : Transport
        What to wait for.
    clock : Clock
        The time that the farm goes by.

    Attributes
    ----------
    feeders : dict of int to Feeder
        Maps that can draw more arguments.
    numbers : iterator of int
        Numbers for maps, in the order in which they begin.
    progress : set of Progress
        That of each map; it goes with the map.
    observers : list of Observer
        Who looks at the farm every so often.
    lock : threading.RLock
        Held around each use of the transport and the books.
    closed : bool
        Whether the transport has been given back.
    loops : set of asyncio.AbstractEventLoop
        Event loops that turn the farm.
    turner : int or None
        The thread that is in the middle of a turn, and must not be interrupted.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self.transport = transport
        self.clock = clock
        self.waiter = Waiter(clock, transport)
        self.lock = threading.RLock()
        self.closed = False
        self.loops: WeakSet[Any] = WeakSet()
        self.feeders: dict[int, Feeder] = {}
        self.numbers = count(1)
        self.progress: WeakSet[Progress] = WeakSet()
        self.observers: list[Observer] = []
        self._look = -math.inf
        self._drivers: set[int] = set()
        self._due = self._poked = -LATELY
        self.turner: int | None = None
        self._pending: BaseException | None = None

    @abstractmethod
    def turn(self, deliver: bool = True) -> bool:
        """Take what has arrived, decide, send, tell the owners. True if anything happened."""

    @property
    @abstractmethod
    def delivering(self) -> bool:
        """Whether this thread is telling an owner, further up its stack."""

    def close(self) -> None:
        """Give the transport back; a thread that still turns the farm finds nothing to do."""
        with self.lock:
            self.closed = True
            self.transport.close()

    def show(self, now: float) -> None:
        """Let the observers look, if it is time."""
        if now >= self._look:
            self._look = now + TICK
            for observer in self.observers:
                observer(now)

    def interrupt(self, error: BaseException) -> None:
        """Raise an error in this thread: at once, or after the turn that it is in the middle of."""
        if self.turner != threading.get_ident():
            raise error
        self._pending = error

    def raise_pending(self) -> None:
        """Raise what `interrupt` has put off; called after each turn."""
        if self._pending is not None:
            error, self._pending = self._pending, None
            raise error

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
            self.turn(deliver=not self.delivering)
            ended = self.clock.now()
            self._due = ended + max(TURN, SPARE * (ended - now))

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

    @property
    def driven(self) -> bool:
        """Whether some thread waits, and so drives, or submits all the time."""
        return bool(self._drivers) or self.clock.now() - self._poked < LATELY
