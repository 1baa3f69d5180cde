"""Waiting for messages with low latency and without keeping a core busy.

A waiting rank first spins, that is, it polls and only yields its core in between, and then sleeps. On a
virtual machine each sleep costs its core some 25 us, so a rank that waits often must not split its waits
into many short sleeps, and a rank whose waits are long must not begin each of them by spinning. If all
ranks that send to it can ring its doorbell, it sleeps until one of them does.
"""

import os
import time

from taskfarm.transport.doorbell import MASTER_AWAKE_SECONDS, WORKER_AWAKE_SECONDS
from taskfarm.transport.interface import Transport

SPIN_SECONDS = 200e-6
"""Longest time for which a waiting rank spins, in seconds."""

SPIN_SHARE = 1 / 50
"""After a wait longer than `SPIN_SECONDS`, the next wait spins at most for this share of that wait."""

MOVING_SECONDS = 2e-3
"""Seconds for which a rank spins while large messages are in flight."""

MIN_SLEEP, MAX_SLEEP = 20e-6, 10e-3
"""Bounds of a sleep that no doorbell ends, in seconds."""

SLEEP_SHARE = 1 / 200
"""Length of such a sleep, relative to the wait so far: it limits how much a sleep may prolong the wait."""

MIN_DOORBELL_SLEEP, MAX_DOORBELL_SLEEP = 1e-3, 20e-3
"""Bounds of a sleep that a doorbell may end, in seconds; after it, the rank polls even without a ring."""


def pause_seconds(waited: float) -> float:
    """Seconds to sleep before the next poll, after `waited` seconds without a message; 0: only yield."""
    if waited < SPIN_SECONDS:
        return 0.0
    return min(MAX_SLEEP, max(MIN_SLEEP, waited * SLEEP_SHARE))


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
    """

    def __init__(self, clock: Clock, transport: Transport) -> None:
        self._clock = clock
        self._transport = transport
        self._awake = WORKER_AWAKE_SECONDS if transport.rank else MASTER_AWAKE_SECONDS
        self._spin = SPIN_SECONDS

    def pause(self, waited: float) -> None:
        """Yield the core or sleep, after `waited` seconds without a message."""
        transport = self._transport
        if transport.moving:
            self._clock.sleep(0.0 if waited < MOVING_SECONDS else pause_seconds(waited))
        elif waited < self._spin:
            self._clock.sleep(0.0)
        elif waited < self._awake:
            self._clock.sleep(MIN_SLEEP)
        elif not transport.sleep(min(MAX_DOORBELL_SLEEP, max(MIN_DOORBELL_SLEEP, waited))):
            self._clock.sleep(pause_seconds(waited))

    def received(self, waited: float) -> None:
        """Note that a message arrived after `waited` seconds."""
        self._spin = SPIN_SECONDS
        if waited >= SPIN_SECONDS:
            self._spin = min(SPIN_SECONDS, waited * SPIN_SHARE)
