"""How many tasks to send at once, and how far ahead to draw: decided from measured durations. Pure.

A batch should last about `TARGET` seconds: long enough to make the cost of a message small beside it,
short enough that nobody waits long for a straggler's batch. The first tasks of a function travel
alone; batches grow by at most `GROWTH` times the largest one measured, so a wrong guess stays cheap.
Towards the end of the queue they shrink (guided self-scheduling: C. D. Polychronopoulos and
D. J. Kuck, IEEE Trans. Comput. C-36, 1425 (1987)).
"""

import math
from dataclasses import dataclass

TARGET = 8e-3
"""Seconds of work that a batch should hold, at least, if tasks are short enough."""

PER_WORKER = 90e-6
"""Seconds of work in a batch for each worker there is: three times what a batch costs the master.

So the master, which serves all workers, is at work for a third of the time, however many there are.
"""

HORIZON = 1.5
"""A worker gets its next batch ahead of time while it has less work than this many batches hold."""

IN_HAND = 2
"""Batches that a worker has in hand, at most: one to run, and one that hides the way to the master."""

LEAST = 100e-6
"""Seconds of work that a batch holds if there is as much: less is not worth sharing out.

With many workers it is what the master needs for a batch of each of them.
"""

LOOK, PATIENCE = 2e-3, 4e-3
"""Seconds between two looks for workers to ask for what they have not started; and without an answer
after which one is asked, if others are idle, or a third of a batch where that is longer."""

GROWTH = 8
"""A batch holds at most this many times the tasks of the largest batch measured so far."""

LARGEST = 8192
"""Tasks in a batch, at most."""

BATCH_BYTES = 1 << 20
"""Bytes of arguments or results in a batch of more than one task, at most."""

AHEAD, AHEAD_EACH = 1 << 16, 512
"""Tasks of a map that may be drawn ahead of what its caller has consumed, in all or for each worker."""

MEMORY = 7 / 8
"""What a batch still counts when the next has been measured."""

AHEAD_BYTES = 256 << 20
"""Bytes of arguments and results of a map that may be held for its caller."""


def pace(workers: int) -> float:
    """Seconds of work that a batch should hold."""
    return max(TARGET, workers * PER_WORKER)


def patience(workers: int) -> float:
    """Seconds without an answer after which a worker is asked for what it has not started."""
    return max(PATIENCE, pace(workers) / 3)


def most_ahead(workers: int) -> int:
    """Tasks of a map that may be drawn ahead of what its caller has consumed."""
    return max(AHEAD, AHEAD_EACH * workers)


@dataclass(slots=True)
class Estimate:
    """What is known of one function's tasks.

    Attributes
    ----------
    seconds : float
        Mean duration of the tasks of late batches; infinite while none has ended.
    result_bytes : float
        Mean size of a result in late batches.
    weight : int
        Bytes of the arguments of a task, as last queued.
    measured : int
        Tasks in the largest batch measured so far.
    """

    seconds: float = math.inf
    result_bytes: float = 0.0
    weight: int = 0
    measured: int = 0
    _counted: float = 0.0
    _spent: float = 0.0

    def learn(self, count: int, seconds: float, nbytes: int) -> None:
        """Take in a measurement: `count` tasks took `seconds` and returned `nbytes` bytes."""
        self._counted = self._counted * MEMORY + count
        self._spent = self._spent * MEMORY + seconds
        self.seconds = self._spent / self._counted
        self.result_bytes += (nbytes / count - self.result_bytes) / (2 if self.measured else 1)
        self.measured = max(self.measured, count)

    def notice(self, count: int, seconds: float) -> None:
        """Take in that `count` tasks, the last of them unfinished, have taken `seconds` so far."""
        self.seconds = max(self.seconds, (self._spent + seconds) / (self._counted + count))

    def goal(self, workers: int) -> int:
        """Tasks in a batch when there is no end in sight."""
        if not self.measured:
            return 1
        goal = min(LARGEST, self.measured * GROWTH, pace(workers) / max(self.seconds, 1e-9))
        if heaviest := max(self.weight, self.result_bytes):
            goal = min(goal, BATCH_BYTES / heaviest)
        return max(1, int(goal))

    def size(self, queued: int, workers: int) -> int:
        """Tasks in the next batch, with `queued` tasks to share among `workers` workers."""
        shortest = workers * PER_WORKER / 3 if workers * PER_WORKER > TARGET else LEAST
        least = shortest / self.seconds if self.seconds > 0 else LARGEST
        return max(1, int(min(self.goal(workers), max(least, queued / (2 * workers)))))

    def window(self, workers: int) -> int:
        """Tasks of a map that may be queued or running, so that no worker runs dry."""
        return min(most_ahead(workers), max(4 * workers, 6 * workers * self.goal(workers)))

    def ahead(self, workers: int) -> int:
        """Tasks of a map that may be drawn and not yet consumed by its caller."""
        if heaviest := self.weight + self.result_bytes:
            return max(2 * workers, int(min(most_ahead(workers), AHEAD_BYTES / heaviest)))
        return most_ahead(workers)
