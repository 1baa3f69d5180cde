"""How to wait for news so that it costs neither latency nor a core.

A waiting rank polls hot for a moment, then sleeps. On a virtual machine each sleep costs its core some
25 us, so a rank that waits often must not sleep in many short pieces, and one whose waits are long must
not begin each of them hot. Where all that it may hear from can ring its doorbell, it sleeps until then.
"""

import os
import time

from taskfarm.transport.doorbell import MASTER_AWAKE_SECONDS, WORKER_AWAKE_SECONDS
from taskfarm.transport.interface import Transport

HOT_SECONDS = 200e-6
"""Seconds for which a waiting rank polls without sleeping, at most."""

HOT_SHARE = 1 / 50
"""A wait may begin hot for this share of the wait before it, if that one was longer than `HOT_SECONDS`."""

MOVING_SECONDS = 2e-3
"""Seconds for which a rank polls without sleeping while large messages are on their way."""

MIN_SLEEP, MAX_SLEEP = 20e-6, 10e-3
"""Bounds of a sleep of a rank that nobody wakes, in seconds."""

SLEEP_SHARE = 1 / 200
"""Such a sleep lasts this share of the time waited so far: what it may add to the wait."""

MIN_DOORBELL_SLEEP, MAX_DOORBELL_SLEEP = 1e-3, 20e-3
"""Bounds of a sleep that a doorbell ends; without a ring, the rank looks for itself after it."""


def pause_seconds(waited: float) -> float:
    """Seconds to sleep before the next poll, after `waited` seconds without news; 0: only yield."""
    if waited < HOT_SECONDS:
        return 0.0
    return min(MAX_SLEEP, max(MIN_SLEEP, waited * SLEEP_SHARE))


class Clock:
    """The time that the farm goes by; tests put a virtual one in its place."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Give the core away for some time; 0: for a moment."""
        if seconds:
            time.sleep(seconds)
        else:
            os.sched_yield()


CLOCK = Clock()
"""The real time."""


class Waiter:
    """Rests between two polls.

    Parameters
    ----------
    clock : Clock
        What to sleep by.
    transport : Transport
        What to wait for.
    """

    def __init__(self, clock: Clock, transport: Transport) -> None:
        self._clock = clock
        self._transport = transport
        self._awake = WORKER_AWAKE_SECONDS if transport.rank else MASTER_AWAKE_SECONDS
        self._hot = HOT_SECONDS

    def rest(self, waited: float) -> None:
        """Give the core away, after `waited` seconds without news."""
        transport = self._transport
        if transport.moving:
            self._clock.sleep(0.0 if waited < MOVING_SECONDS else pause_seconds(waited))
        elif waited < self._hot:
            self._clock.sleep(0.0)
        elif waited < self._awake:
            self._clock.sleep(MIN_SLEEP)
        elif not transport.sleep(min(MAX_DOORBELL_SLEEP, max(MIN_DOORBELL_SLEEP, waited))):
            self._clock.sleep(pause_seconds(waited))

    def received(self, waited: float) -> None:
        """Say that news came after `waited` seconds."""
        self._hot = HOT_SECONDS if waited < HOT_SECONDS else min(HOT_SECONDS, waited * HOT_SHARE)
