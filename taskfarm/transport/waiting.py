"""Waiting for messages with low latency and without keeping a core busy.

A waiting rank first spins, that is, it polls and only yields its core in between, and then sleeps. If all
ranks that send to it can wake it, it sleeps until one of them does, otherwise in naps that grow with the
wait.

How long to spin is a ski rental problem: whoever spins for as long as a sleep costs never loses more than
twice what was unavoidable (Karlin, Li, Manasse and Owicki, "Empirical studies of competitive spinning for a
shared-memory multiprocessor", 1991). A sleep costs more than the wake-up: the code after it is slow,
because caches are cold, and a virtual machine has given the core away. A rank that spun for less than that
would sleep because another one had slept, and each long wait would make the next one long.
"""

import os
import time

from taskfarm.transport.interface import Transport

SPIN_WAKEUPS, CROWDED_SPIN_WAKEUPS = 16, 8
"""How long a waiting rank spins, in wake-ups; the second is for ranks that outnumber their cores."""

MIN_WAKEUP, MAX_WAKEUP = 50e-6, 125e-6
"""Bounds of what a wake-up is taken to last, in seconds, whatever was measured."""

WAKEUPS = 5
"""Number of wake-ups that a rank measures at start."""

MISSES, RETRY = 2, 8
"""After `MISSES` waits that outlasted their spinning, only one wait in `RETRY` spins for long.

That ends with a wait for which it was worth it to spin for long.
"""

MOVING_SECONDS = 2e-3
"""Seconds for which a rank spins while large messages are in flight."""

MIN_SLEEP, MAX_SLEEP = 20e-6, 10e-3
"""Bounds of a sleep that no doorbell ends, in seconds."""

SLEEP_SHARE = 1 / 200
"""Length of such a sleep, relative to the wait so far: it limits how much a sleep may prolong the wait."""

MIN_DOORBELL_SLEEP, MASTER_DOORBELL_SLEEP, WORKER_DOORBELL_SLEEP = 5e-3, 20e-3, 50e-3
"""Bounds of a sleep that a doorbell may end, in seconds; after it, the rank polls even without a ring.

The master also looks for ranks that have died.
"""


def nap_seconds(waited: float) -> float:
    """Seconds to sleep before the next poll, after `waited` seconds without a message."""
    return min(MAX_SLEEP, max(MIN_SLEEP, waited * SLEEP_SHARE))


def pause_seconds(waited: float, spin: float = CROWDED_SPIN_WAKEUPS * MIN_WAKEUP) -> float:
    """The same for a wait that begins with `spin` seconds of spinning; 0: only yield."""
    return 0.0 if waited < spin else nap_seconds(waited)


class Clock:
    """The clock of the farm; tests and simulations replace it by a virtual one."""

    now = staticmethod(time.perf_counter)
    """Seconds since a fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Sleep for some seconds; 0: only yield the core."""
        if seconds:
            time.sleep(seconds)
        else:
            os.sched_yield()


CLOCK = Clock()
"""The real clock."""


class Waiter:
    """Decides whether to spin or to sleep between two polls.

    Parameters
    ----------
    clock : Clock
        The clock by which to sleep.
    transport : Transport
        The transport that is polled.

    Attributes
    ----------
    longest_spin : float
        Longest time for which a wait begins by spinning, in seconds.
    """

    def __init__(self, clock: Clock, transport: Transport) -> None:
        self._clock = clock
        self._transport = transport
        wakeup = min(MAX_WAKEUP, max(MIN_WAKEUP, transport.wakeup_seconds))
        self.longest_spin = wakeup * (CROWDED_SPIN_WAKEUPS if transport.crowded else SPIN_WAKEUPS)
        self._shortest_spin = wakeup
        self._longest_sleep = WORKER_DOORBELL_SLEEP if transport.rank else MASTER_DOORBELL_SLEEP
        self._spin = self.longest_spin
        self._misses = 0
        self._slept = False
        self._spun = self._spins_until = 0.0

    def pause(self, waited: float) -> None:
        """Yield the core or sleep, after `waited` seconds without a message."""
        transport = self._transport
        if transport.moving:
            self._clock.sleep(pause_seconds(waited, MOVING_SECONDS))
        elif waited < self._spin:
            self._spun = waited
            self._clock.sleep(0.0)
        else:
            self._sleep(waited)

    def _sleep(self, waited: float) -> None:
        if self._clock.now() < self._spins_until:
            self._clock.sleep(0.0)
            return
        self._slept = True
        seconds = min(self._longest_sleep, max(MIN_DOORBELL_SLEEP, waited))
        rung = self._transport.sleep(seconds)
        if rung is None:
            self._clock.sleep(nap_seconds(waited))
        elif rung:
            # The message may be slower than the ring.
            self._spins_until = self._clock.now() + self.longest_spin

    def received(self) -> None:
        """Note that a message has arrived."""
        spun, self._spun = self._spun, 0.0
        if not self._slept:
            if spun > self._shortest_spin:
                self._misses, self._spin = 0, self.longest_spin
            return
        self._slept = False
        self._spins_until = 0.0
        self._misses += 1
        if self._misses < MISSES or self._misses % RETRY == 0:
            self._spin = self.longest_spin
        else:
            self._spin = self._shortest_spin


def measure_wakeup(clock: Clock) -> float:
    """Measure how many seconds a sleep of no length lasts: the shortest of a few, since others disturb."""
    shortest = MAX_WAKEUP
    for _ in range(WAKEUPS):
        started = clock.now()
        clock.sleep(1e-6)
        shortest = min(shortest, clock.now() - started)
    return shortest
