"""How to wait for news so that it costs neither latency nor a core."""

import os
import time

HOT = 200e-6
"""Seconds for which a waiting rank polls without sleeping."""

SHORTEST, LONGEST = 20e-6, 5e-3
"""Bounds of a sleep, in seconds."""

SHARE = 1 / 200
"""A sleep lasts this share of the time waited so far: what it may add to the wait."""


def pause(waited: float) -> float:
    """Seconds to sleep before the next poll, after `waited` seconds without news; 0: only yield."""
    if waited < HOT:
        return 0.0
    return min(LONGEST, max(SHORTEST, waited * SHARE))


class Clock:
    """The time that the farm goes by; tests put a virtual one in its place."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        return time.perf_counter()

    def rest(self, waited: float) -> None:
        """Give the core away between two polls, after `waited` seconds without news."""
        seconds = pause(waited)
        if seconds:
            time.sleep(seconds)
        else:
            os.sched_yield()


CLOCK = Clock()
"""The real time."""
