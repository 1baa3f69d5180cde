"""How many tasks to send at once, and how far ahead to draw: decided from measured durations. Pure.

A batch should last about `BATCH_SECONDS`: long enough to make the cost of a message small beside it,
short enough that nobody waits long for a straggler's batch. The first tasks of a function travel
alone; batches grow by at most `GROWTH` times the largest one measured, so a wrong guess stays cheap.
Towards the end of the queue they shrink (guided self-scheduling: C. D. Polychronopoulos and
D. J. Kuck, IEEE Trans. Comput. C-36, 1425 (1987)).
"""

import math
from dataclasses import dataclass

BATCH_SECONDS = 8e-3
"""Seconds of work that a batch should hold, at least, if tasks are short enough."""

BATCH_SECONDS_PER_WORKER = 90e-6
"""Seconds of work in a batch for each worker there is: three times what a batch costs the master.

So the master, which serves all workers, is at work for a third of the time, however many there are.
"""

PREFETCH_BATCHES = 1.5
"""A worker gets its next batch ahead of time while it has less work than this many batches hold."""

MAX_BATCHES = 2
"""Batches that a worker has in hand, at most: one to run, and one that hides the way to the master."""

MIN_BATCH_SECONDS = 100e-6
"""Seconds of work that a batch holds if there is as much: less is not worth sharing out.

With many workers it is what the master needs for a batch of each of them.
"""

RECALL_INTERVAL, RECALL_AFTER = 2e-3, 4e-3
"""Seconds between two looks for workers to ask for what they have not started; and without an answer
after which one is asked, if others are idle, or a third of a batch where that is longer."""

GROWTH = 8
"""A batch holds at most this many times the tasks of the largest batch measured so far."""

MAX_BATCH_TASKS = 8192
"""Tasks in a batch, at most."""

MAX_BATCH_BYTES = 1 << 20
"""Bytes of arguments or results in a batch of more than one task, at most."""

MAX_AHEAD, MAX_AHEAD_PER_WORKER = 1 << 16, 512
"""Tasks of a map that may be drawn ahead of what its caller has consumed, in all or for each worker."""

DECAY = 7 / 8
"""What a batch still counts when the next has been measured."""

MAX_AHEAD_BYTES = 256 << 20
"""Bytes of arguments and results of a map that may be held for its caller."""


def batch_seconds(workers: int) -> float:
    """Seconds of work that a batch should hold."""
    return max(BATCH_SECONDS, workers * BATCH_SECONDS_PER_WORKER)


def recall_after(workers: int) -> float:
    """Seconds without an answer after which a worker is asked for what it has not started."""
    return max(RECALL_AFTER, batch_seconds(workers) / 3)


def max_ahead(workers: int) -> int:
    """Tasks of a map that may be drawn ahead of what its caller has consumed."""
    return max(MAX_AHEAD, MAX_AHEAD_PER_WORKER * workers)


@dataclass(slots=True)
class Estimate:
    """What is known of one function's tasks.

    Attributes
    ----------
    seconds : float
        Mean duration of the tasks of late batches; infinite while none has ended.
    result_bytes : float
        Mean size of a result in late batches.
    argument_bytes : int
        Bytes of the arguments of a task, as last queued.
    largest_measured : int
        Tasks in the largest batch measured so far.
    """

    seconds: float = math.inf
    result_bytes: float = 0.0
    argument_bytes: int = 0
    largest_measured: int = 0
    _counted: float = 0.0
    _spent: float = 0.0

    def update(self, count: int, seconds: float, nbytes: int) -> None:
        """Take in a measurement: `count` tasks took `seconds` and returned `nbytes` bytes."""
        self._counted = self._counted * DECAY + count
        self._spent = self._spent * DECAY + seconds
        self.seconds = self._spent / self._counted
        self.result_bytes += (nbytes / count - self.result_bytes) / (2 if self.largest_measured else 1)
        self.largest_measured = max(self.largest_measured, count)

    def update_running(self, count: int, seconds: float) -> None:
        """Take in that `count` tasks, the last of them unfinished, have taken `seconds` so far."""
        self.seconds = max(self.seconds, (self._spent + seconds) / (self._counted + count))

    def target_size(self, workers: int) -> int:
        """Tasks in a batch when there is no end in sight."""
        if not self.largest_measured:
            return 1
        goal = min(
            MAX_BATCH_TASKS,
            self.largest_measured * GROWTH,
            batch_seconds(workers) / max(self.seconds, 1e-9),
        )
        if heaviest := max(self.argument_bytes, self.result_bytes):
            goal = min(goal, MAX_BATCH_BYTES / heaviest)
        return max(1, int(goal))

    def batch_size(self, queued: int, workers: int) -> int:
        """Tasks in the next batch, with `queued` tasks to share among `workers` workers."""
        shortest = (
            workers * BATCH_SECONDS_PER_WORKER / 3
            if workers * BATCH_SECONDS_PER_WORKER > BATCH_SECONDS
            else MIN_BATCH_SECONDS
        )
        least = shortest / self.seconds if self.seconds > 0 else MAX_BATCH_TASKS
        return max(1, int(min(self.target_size(workers), max(least, queued / (2 * workers)))))

    def window(self, workers: int) -> int:
        """Tasks of a map that may be queued or running, so that no worker runs dry."""
        return min(max_ahead(workers), max(4 * workers, 6 * workers * self.target_size(workers)))

    def ahead(self, workers: int) -> int:
        """Tasks of a map that may be drawn and not yet consumed by its caller."""
        if heaviest := self.argument_bytes + self.result_bytes:
            return max(2 * workers, int(min(max_ahead(workers), MAX_AHEAD_BYTES / heaviest)))
        return max_ahead(workers)
