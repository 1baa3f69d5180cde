"""The calls that a worker is running; another thread may release those that have not started."""

import threading

MIN_BLOCK_SECONDS, MAX_BLOCK_SECONDS = 250e-6, 1e-3
"""Calls are claimed in blocks that should last between these, in seconds."""

GROWTH = 8
"""A block holds at most this many times the calls of the one before."""


class ClaimedCalls:
    """One part of a batch: the runner claims its calls block by block, from the left.

    Calls that have not been claimed can be released to the master. So the runner's loop over a block
    stays in C, and a long call holds up few others.

    Attributes
    ----------
    function : int
        Id of the function that is called.
    first : int
        Id of the first task.
    claimed : int
        Calls that have started, or will start without asking again.
    end : int
        Calls that remain here.
    started : float
        When the first call started, in seconds.
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
        """Claim at most `count` calls; returns how many were claimed."""
        # Not `with`, which takes longer than all else here.
        lock = self._lock
        lock.acquire()
        try:
            if (left := self.end - self.claimed) < count:
                count = left
            self.claimed += count
        finally:
            lock.release()
        return count

    def claim_next(self, now: float) -> int:
        """Claim a block whose size suits how long the last one took; 0 if no calls are left."""
        if self.claimed:
            lasted = now - self._last
            if lasted < MIN_BLOCK_SECONDS:
                self._block *= GROWTH
            elif lasted > MAX_BLOCK_SECONDS:
                self._block = max(1, int(self._block * MAX_BLOCK_SECONDS / lasted))
        self._last = now
        return self.claim(self._block)

    def give_back(self, ended: int) -> int:
        """Give back the calls after the first `ended` ones, also if they were claimed; returns how many."""
        with self._lock:
            count = self.end - ended
            self.end = self.claimed = ended
        return count

    def skip(self, seconds: float) -> None:
        """Do not count time in which the call that runs has waited for others."""
        self.started += seconds
        self._last += seconds

    def release_unstarted(self) -> int:
        """Release the calls that have not been claimed; returns how many, from `end` on."""
        with self._lock:
            count = self.end - self.claimed
            self.end = self.claimed
        return count

    def abandon_unstarted(self) -> None:
        """Forget the calls that have not been claimed, in a forked process: no other thread lives there."""
        self._lock = threading.Lock()
        self.end = self.claimed
