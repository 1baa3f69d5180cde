"""Batch sizes and the prefetch of a map, from measured durations. Pure.

A batch should last about `BATCH_SECONDS`: long enough that the cost of a message is small in comparison,
short enough that no worker waits long for a straggler's batch. The first tasks of a function are sent
one by one. A batch holds at most `GROWTH` times the tasks of the largest one measured, so a wrong estimate
stays cheap. Towards the end of the queue batches shrink (guided self-scheduling: C. D. Polychronopoulos and
D. J. Kuck, IEEE Trans. Comput. C-36, 1425 (1987)).
"""

import math
from collections import deque
from dataclasses import dataclass, field

BATCH_SECONDS = 16e-3
"""Minimum seconds of work that a batch of short tasks should hold.

Where ranks outnumber the cores, what rank 0 does between two batches takes time from a worker.
"""

BATCH_SECONDS_PER_WORKER = 90e-6
"""Seconds of work in a batch per worker of the farm: three times what a batch costs the master.

The master, which serves all workers, is thus busy for a third of the time, whatever their number.
"""

PREFETCH_BATCHES = 1.5
"""A worker prefetches its next batch while it has less work than this many batches hold."""

MAX_BATCHES = 2
"""Maximum number of batches in flight per worker: one to run, and one to hide the round-trip time."""

MIN_BATCH_SECONDS = 100e-6
"""Minimum seconds of work in a batch while the queue holds that much: less is not worth a message.

With many workers, the minimum is instead the time that the master needs to send each of them a batch.
"""

RECALL_INTERVAL = 2e-3
"""Seconds between two checks for workers whose unstarted tasks to recall."""

RECALL_AFTER = 4e-3
"""Minimum seconds without an answer after which a worker's unstarted tasks are recalled.

The limit is a third of a batch if that is longer. Tasks are recalled only while other workers are idle.
"""

RECALL_CHAIN = 8
"""The limit is this many times as long if each task needs the one before: no other worker could run any."""

GROWTH = 8
"""A batch holds at most this many times the tasks of the largest batch measured so far."""

MAX_BATCH_TASKS = 8192
"""Maximum number of tasks in a batch."""

MAX_BATCH_BYTES = 1 << 21
"""Maximum bytes of arguments or results in a batch of more than one task."""

MAX_AHEAD = 1 << 16
"""Tasks of a map that may be drawn ahead of what its caller has consumed."""

MAX_AHEAD_PER_WORKER = 512
"""The same per worker; the larger of the two limits holds."""

DECAY = 7 / 8
"""Factor on the weight of earlier batches with each new measurement."""

RECENT, QUANTILE = 64, 0.95
"""A task is expected to take no longer than this share of the recent ones; this many batches are recent."""

MAX_AHEAD_BYTES = 256 << 20
"""Bytes of arguments and results of a map that may be held for its caller."""


def batch_seconds(workers: int) -> float:
    """Seconds of work that a batch should hold."""
    return max(BATCH_SECONDS, workers * BATCH_SECONDS_PER_WORKER)


def recall_after(workers: int) -> float:
    """Seconds without an answer after which a worker's unstarted tasks are recalled."""
    return max(RECALL_AFTER, batch_seconds(workers) / 3)


def max_ahead(workers: int) -> int:
    """Tasks of a map that may be drawn ahead of what its caller has consumed."""
    return max(MAX_AHEAD, MAX_AHEAD_PER_WORKER * workers)


def aligned_size(first: int, size: int) -> int:
    """Tasks in a batch of a reduction from position `first` on: at most `size`, up to a round place.

    The tree of a reduction leaves as many values of a batch as it has aligned blocks. With both ends at
    multiples of about the square root of its size, these are no more than the logarithm of that.
    """
    unit = 2 << (size.bit_length() + 1) // 2
    while (end := (first + size) // unit * unit) <= first:
        unit //= 2
    return end - first


@dataclass(slots=True)
class Estimate:
    """Measured durations and sizes of one function's tasks.

    Attributes
    ----------
    seconds : float
        Mean duration of a task in recent batches; infinite until the first one ends.
    result_bytes : float
        Mean size of a result in recent batches.
    argument_bytes : int
        Bytes of the arguments of the task queued last.
    largest_measured : int
        Tasks in the largest batch measured so far.
    recent : deque of float
        Seconds of a task in each of the last batches.
    """

    seconds: float = math.inf
    result_bytes: float = 0.0
    argument_bytes: int = 0
    largest_measured: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _counted: float = 0.0
    _spent: float = 0.0

    @property
    def quantile(self) -> float | None:
        """Seconds that 95 % of recent tasks have not exceeded; None: none has ended."""
        if not self.recent:
            return None
        return sorted(self.recent)[math.ceil(QUANTILE * len(self.recent)) - 1]

    def update(self, count: int, seconds: float, nbytes: int) -> None:
        """Record a measurement: `count` tasks took `seconds` and returned `nbytes` bytes."""
        self.recent.append(seconds / count)
        self._counted = self._counted * DECAY + count
        self._spent = self._spent * DECAY + seconds
        self.seconds = self._spent / self._counted
        self.result_bytes += (nbytes / count - self.result_bytes) / (2 if self.largest_measured else 1)
        self.largest_measured = max(self.largest_measured, count)

    def update_running(self, count: int, seconds: float) -> None:
        """Record that `count` tasks, the last of them unfinished, have taken `seconds` so far."""
        self.seconds = max(self.seconds, (self._spent + seconds) / (self._counted + count))

    def target_size(self, workers: int) -> int:
        """Tasks in a batch while the end of the queue is far."""
        if not self.largest_measured:
            return 1
        target = min(
            MAX_BATCH_TASKS,
            self.largest_measured * GROWTH,
            batch_seconds(workers) / max(self.seconds, 1e-9),
        )
        if task_bytes := max(self.argument_bytes, self.result_bytes):
            target = min(target, MAX_BATCH_BYTES / task_bytes)
        return max(1, int(target))

    def batch_size(self, queued: int, workers: int) -> int:
        """Tasks in the next batch, with `queued` tasks to share among `workers` workers."""
        min_seconds = MIN_BATCH_SECONDS
        if workers * BATCH_SECONDS_PER_WORKER > BATCH_SECONDS:
            min_seconds = workers * BATCH_SECONDS_PER_WORKER / 3
        min_size = min_seconds / self.seconds if self.seconds > 0 else MAX_BATCH_TASKS
        guided_size = max(min_size, queued / (2 * workers))
        return max(1, int(min(self.target_size(workers), guided_size)))

    def window(self, workers: int) -> int:
        """Tasks of a map to keep queued or in flight, so that no worker falls idle."""
        return min(max_ahead(workers), max(4 * workers, 6 * workers * self.target_size(workers)))

    def ahead(self, workers: int) -> int:
        """Tasks of a map that may be drawn before its caller has consumed their results."""
        if task_bytes := self.argument_bytes + self.result_bytes:
            return max(2 * workers, int(min(max_ahead(workers), MAX_AHEAD_BYTES / task_bytes)))
        return max_ahead(workers)


def expected_end(since: float, seconds: float, now: float) -> float:
    """When something that runs has probably ended.

    What has no estimate, so that `seconds` is infinite, is taken to last as long again as it has lasted.
    """
    return max(now, since + seconds) if seconds < math.inf else now + (now - since)
