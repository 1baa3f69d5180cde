"""The calls that a worker is running, of which another thread may take back what has not started."""

import threading

BRIEF, LONG = 250e-6, 1e-3
"""Calls are claimed in blocks that should last between these, in seconds."""

GROWTH = 8
"""A block holds at most this many times the calls of the one before."""


class Share:
    """One part of a batch: the runner claims its calls block by block, from the left.

    What has not been claimed can be given back. So the runner's loop over a block stays in C, and a
    call that lasts long holds up few others.

    Attributes
    ----------
    function : int
        Id of the function that is called.
    first : int
        Id of the first task.
    claimed : int
        Calls that have started, or will without asking again.
    end : int
        Calls that remain here.
    started : float
        When the first one started, in seconds.
    """

    __slots__ = ("_block", "_last", "_lock", "claimed", "end", "first", "function", "started")

    def __init__(self, function: int, first: int, count: int, now: float) -> None:
        self.function = function
        self.first = first
        self.claimed = 0
        self.end = count
        self.started = self._last = now
        self._block = 1
        self._lock = threading.Lock()

    def claim(self, count: int) -> int:
        """Claim at most `count` calls; returns how many."""
        with self._lock:
            count = min(count, self.end - self.claimed)
            self.claimed += count
        return count

    def claim_next(self, now: float) -> int:
        """Claim a block of a size that suits how long the last one took; 0: there is none left."""
        if self.claimed:
            lasted = now - self._last
            if lasted < BRIEF:
                self._block *= GROWTH
            elif lasted > LONG:
                self._block = max(1, int(self._block * LONG / lasted))
        self._last = now
        return self.claim(self._block)

    def give_back(self) -> int:
        """Take away what has not been claimed; returns how many calls, from `end` on."""
        with self._lock:
            count = self.end - self.claimed
            self.end = self.claimed
        return count
