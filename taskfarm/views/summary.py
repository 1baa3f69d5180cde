"""The summary of a run: figures by function, and what limited the run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.schedule.spans import Span
from taskfarm.views.durations import Durations, in_words

BUSY, TAIL, SHORT, HEAVY = 0.85, 0.15, 300e-6, 200e6
"""Busy share, share of stragglers, seconds of a task, and bytes/s: thresholds for what limited a run."""


@dataclass
class Row:
    """The tasks of one function.

    Attributes
    ----------
    count, failed, retried : int
        Tasks that have ended, those of them that have failed, and calls that were retried.
    seconds : float
        Total time of all calls.
    durations : Durations
        Durations of the calls; calls that were sent together count with their mean.
    nbytes : int
        Approximate size of arguments and results, in bytes.
    """

    count: int = 0
    failed: int = 0
    retried: int = 0
    seconds: float = 0.0
    durations: Durations = field(default_factory=Durations)
    nbytes: int = 0

    def add(self, count: int, failed: int, retried: int, seconds: float, nbytes: int) -> None:
        """Add calls: `count` that ended their tasks, and `retried` others; `seconds` is their total."""
        self.count += count
        self.failed += failed
        self.retried += retried
        self.seconds += seconds
        self.nbytes += nbytes
        self.durations.add(seconds / (count + retried), count + retried)

    @property
    def mean(self) -> float:
        """Mean seconds of a call."""
        return self.seconds / max(1, self.count + self.retried)


class Summary(Recorder):
    """Adds up the figures of a run.

    Parameters
    ----------
    now : float
        The time, in seconds of the master's clock.

    Attributes
    ----------
    rows : dict of str to Row
        Figures by name of the function.
    """

    def __init__(self, now: float) -> None:
        self.rows: dict[str, Row] = {}
        self._began = now
        self._first: float | None = None
        self._last_sent = self._last_ended = now
        self._workers = 0

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Record when batches are sent, and the number of workers."""
        if self._first is None:
            self._first = now
        self._last_sent = now
        self._workers = max(self._workers, workers)

    def function_sent(self, function: RegisteredFunction, nbytes: int) -> None:
        """Add the size of a function."""
        self._row(function).nbytes += nbytes

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Add calls, of which some may be retried."""
        self._last_ended = calls.received
        retried = len(calls.retried)
        failed = len(calls.failures) - retried
        self._row(calls.function).add(calls.count - retried, failed, retried, calls.seconds, calls.nbytes)

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Count tasks that failed on the master."""
        row = self._row(function)
        row.count += count
        row.failed += count

    def _row(self, function: RegisteredFunction) -> Row:
        row = self.rows.get(function.name)
        if row is None:
            row = self.rows[function.name] = Row()
        return row

    def figures(self, now: float) -> dict[str, Any]:
        """Return all figures, with the units in their names."""
        wall = max(1e-9, now - self._began)
        first = self._last_ended if self._first is None else self._first
        span = max(1e-9, self._last_ended - first)
        seconds = sum(row.seconds for row in self.rows.values())
        moved = sum(row.nbytes for row in self.rows.values())
        workers = max(1, self._workers)
        found: dict[str, Any] = {
            "tasks": sum(row.count for row in self.rows.values()),
            "failed": sum(row.failed for row in self.rows.values()),
            "workers": self._workers,
            "wall_seconds": wall,
            "task_seconds": seconds,
            "busy_share": min(1.0, seconds / (workers * span)),
            "efficiency": min(1.0, seconds / (workers * wall)),
            "bytes": moved,
            "functions": {
                name: {
                    "count": row.count,
                    "failed": row.failed,
                    "seconds": row.seconds,
                    "retried": row.retried,
                    "mean_seconds": row.mean,
                    "p50_seconds": row.durations.percentile(0.5),
                    "p99_seconds": row.durations.percentile(0.99),
                    "slowest_seconds": row.durations.slowest,
                }
                for name, row in self.rows.items()
            },
        }
        found["limit"] = self._limit(found, span)
        return found

    def _limit(self, found: dict[str, Any], span: float) -> str:
        """Explain in one sentence what limited the run."""
        workers, mean = found["workers"], found["task_seconds"] / max(1, found["tasks"])
        tail = (self._last_ended - self._last_sent) / span
        if found["busy_share"] >= BUSY:
            return (
                f"the workers were busy for {found['busy_share']:.0%} of the time: more workers would help"
            )
        if found["tasks"] < 2 * workers:
            return f"there were too few tasks ({found['tasks']}) for {workers} workers"
        if found["bytes"] / span > HEAVY:
            return (
                f"arguments and results ({_bytes(found['bytes'])}) took the time: send less data per task"
            )
        if tail > TAIL and mean > SHORT:
            return f"stragglers: for the last {tail:.0%} of the time no task was left to start"
        if mean < SHORT:
            return f"tasks of {in_words(mean)} are too short for one master: give each task more work"
        return "the workers waited for the job on rank 0 to submit more tasks"

    def table(self, now: float) -> str:
        """Format the figures as a table."""
        found = self.figures(now)
        lines: list[tuple[str, ...]] = [("", "tasks", "failed", "total", "mean", "p50", "p99", "slowest")]
        for name, row in sorted(self.rows.items(), key=lambda item: -item[1].seconds)[:10]:
            times = (row.seconds, row.mean, row.durations.percentile(0.5), row.durations.percentile(0.99))
            cells = map(in_words, (*times, row.durations.slowest))
            lines.append((name[:30], f"{row.count:,}", f"{row.failed:,}", *cells))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
        ]
        if len(self.rows) > 10:
            text.append(f"and {len(self.rows) - 10} more functions")
        text.append(
            f"{in_words(found['wall_seconds'])} on {found['workers']} workers, busy with tasks for "
            f"{found['busy_share']:.0%} of the time; efficiency {found['efficiency']:.0%}; "
            f"{_bytes(found['bytes'])} moved"
        )
        text.append(f"limit: {found['limit']}")
        return "\n".join(text)


def _bytes(value: float) -> str:
    """Format a size with three digits and a unit."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"
