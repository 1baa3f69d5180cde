"""How many tasks to send at once, and how far ahead to draw: decided from measured durations. Pure.

A batch should last about `TARGET` seconds: long enough to make the cost of a message small beside it,
short enough that nobody waits long for a straggler's batch. The first tasks of a function travel
alone; batches grow by at most `GROWTH` times the largest one measured, so a wrong guess stays cheap.
Towards the end of the queue they shrink (guided self-scheduling: C. D. Polychronopoulos and
D. J. Kuck, IEEE Trans. Comput. C-36, 1425 (1987)).
"""

import math
from dataclasses import dataclass

TARGET = 4e-3
"""Seconds of work that a batch should hold."""

HORIZON = 6e-3
"""A worker gets its next batch ahead of time while it has less than this many seconds of work."""

IN_HAND = 2
"""Batches that a worker has in hand, at most: one to run, and one that hides the way to the master."""

LEAST = 100e-6
"""Seconds of work that a batch holds if there is as much: less is not worth sharing out."""

PATIENCE = 4e-3
"""Seconds without an answer after which a worker is asked for what has not started, if others are idle."""

GROWTH = 8
"""A batch holds at most this many times the tasks of the largest batch measured so far."""

LARGEST = 8192
"""Tasks in a batch, at most."""

BATCH_BYTES = 1 << 20
"""Bytes of arguments or results in a batch of more than one task, at most."""

AHEAD = 1 << 16
"""Tasks of a map that may be drawn ahead of what its caller has consumed."""

AHEAD_BYTES = 256 << 20
"""Bytes of arguments and results of a map that may be held for its caller."""


@dataclass(slots=True)
class Estimate:
    """What is known of one function's tasks.

    Attributes
    ----------
    seconds : float
        Moving mean of the duration of a task; infinite while none has ended.
    result_bytes : float
        Moving mean of the size of a result.
    weight : int
        Bytes of the arguments of a task, as last queued.
    measured : int
        Tasks in the largest batch measured so far.
    """

    seconds: float = math.inf
    result_bytes: float = 0.0
    weight: int = 0
    measured: int = 0

    def learn(self, count: int, seconds: float, nbytes: int) -> None:
        """Take in a measurement: `count` tasks took `seconds` and returned `nbytes` bytes."""
        mean, size = seconds / count, nbytes / count
        if self.measured:
            self.seconds += (mean - self.seconds) / 2
            self.result_bytes += (size - self.result_bytes) / 2
        else:
            self.seconds, self.result_bytes = mean, size
        self.measured = max(self.measured, count)

    def notice(self, count: int, seconds: float) -> None:
        """Take in that `count` tasks, the last of them unfinished, have taken `seconds` so far."""
        mean = seconds / count
        if self.measured and mean > self.seconds:
            self.seconds += (mean - self.seconds) / 2

    def goal(self) -> int:
        """Tasks in a batch when there is no end in sight."""
        if not self.measured:
            return 1
        goal = min(LARGEST, self.measured * GROWTH, TARGET / max(self.seconds, 1e-9))
        if heaviest := max(self.weight, self.result_bytes):
            goal = min(goal, BATCH_BYTES / heaviest)
        return max(1, int(goal))

    def size(self, queued: int, workers: int) -> int:
        """Tasks in the next batch, with `queued` tasks to share among `workers` workers."""
        least = LEAST / self.seconds if self.seconds > 0 else LARGEST
        return max(1, int(min(self.goal(), max(least, queued / (2 * workers)))))

    def window(self, workers: int) -> int:
        """Tasks of a map that may be queued or running, so that no worker runs dry."""
        return min(AHEAD, max(4 * workers, 6 * workers * self.goal()))

    def ahead(self, workers: int) -> int:
        """Tasks of a map that may be drawn and not yet consumed by its caller."""
        if heaviest := self.weight + self.result_bytes:
            return max(2 * workers, int(min(AHEAD, AHEAD_BYTES / heaviest)))
        return max(2 * workers, AHEAD)
