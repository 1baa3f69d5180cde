"""The summary of a run: where the workers' time went, figures by function, and what limited the run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from taskfarm.errors import DependencyFailed
from taskfarm.master.farm_time import FarmTime
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.schedule.spans import Span
from taskfarm.views.budget import Budget, Parts
from taskfarm.views.durations import Durations, in_words
from taskfarm.views.limit import LongestCall, RunFacts, in_bytes, limit

SHOWN = 0.01
"""Parts of the budget below this share of the workers' time are left out of the text."""


@dataclass
class Row:
    """The tasks of one function.

    Attributes
    ----------
    count, failed, retried : int
        Tasks that have ended, those of them that have failed, and calls that were retried.
    not_run : int
        Tasks that were not run because one that they need has failed; they do not count as ended.
    seconds : float
        Total time of all calls.
    durations : Durations
        Durations of the calls; calls that were sent together count with their mean.
    nbytes : int
        Approximate size of arguments and results, in bytes.
    first_seconds : dict of int to float
        Seconds of the first call on each worker.
    function_nbytes : int
        Size of the largest version of the function, in bytes.
    """

    count: int = 0
    failed: int = 0
    retried: int = 0
    not_run: int = 0
    seconds: float = 0.0
    durations: Durations = field(default_factory=Durations)
    nbytes: int = 0
    first_seconds: dict[int, float] = field(default_factory=dict)
    function_nbytes: int = 0

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

    @property
    def first_calls(self) -> float:
        """Seconds, over all workers, by which first calls took longer than the mean of the others."""
        calls = self.count + self.retried
        firsts = len(self.first_seconds)
        if not firsts or calls < 2 * firsts:
            return 0.0
        longer = sum(self.first_seconds.values())
        return max(0.0, longer - firsts * (self.seconds - longer) / (calls - firsts))


class RunState(NamedTuple):
    """What the master knows of a run at the moment when it is summed up.

    Attributes
    ----------
    running : sequence of (int, str, int, float)
        Each busy worker, the function and the id of the task that it should be running, and since when.
    maps, submits : int
        Number of maps, and of calls that were submitted one by one.
    cores : int
        Number of cores that all workers share; 0 if they are on several hosts.
    """

    running: Sequence[tuple[int, str, int, float]] = ()
    maps: int = 0
    submits: int = 0
    cores: int = 0


NOTHING_RUNS = RunState()
"""The state of a run that has ended, on several hosts."""


class Summary(Recorder):
    """Adds up the figures of a run.

    Parameters
    ----------
    now : float
        When the run began, in seconds of the master's clock.
    workers : int
        Number of workers, started or not.
    farm_time : FarmTime, optional
        When the job's main thread was inside the farm.
    attached : float, optional
        When MPI had started on rank 0.

    Attributes
    ----------
    rows : dict of str to Row
        Figures by name of the function.
    farm_time : FarmTime
        When the job's main thread was inside the farm.
    """

    def __init__(
        self, now: float, workers: int = 1, farm_time: FarmTime | None = None, attached: float | None = None
    ) -> None:
        self.rows: dict[str, Row] = {}
        self._began = now
        self._workers = workers
        self.farm_time = farm_time or FarmTime(lambda: now)
        self._budget = Budget(workers, now, now if attached is None else attached, self.farm_time)
        self._first_sent: float | None = None
        self._last_ended = now
        self._longest: LongestCall | None = None

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Account for the start of a worker."""
        self._budget.worker_joined(now, worker, host)

    def worker_initialized(self, now: float, worker: int, seconds: float) -> None:
        """Account for an initializer."""
        self._budget.worker_initialized(now, worker, seconds)

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Account for a lost worker."""
        self._budget.worker_lost(now, worker, why)

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Record when the first batch is sent."""
        if self._first_sent is None:
            self._first_sent = now
        self._budget.batch_sent(now, worker, spans, workers)

    def function_sent(self, function: RegisteredFunction, nbytes: int) -> None:
        """Add the size of a function."""
        self._row(function).nbytes += nbytes

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Add calls, of which some may be retried; there is none if the batch was broken off before."""
        if not calls.count:
            return
        self._budget.calls_finished(calls)
        self._last_ended = calls.received
        retried = len(calls.retried)
        failed = len(calls.failures) - retried
        row = self._row(calls.function)
        row.add(calls.count - retried, failed, retried, calls.seconds, calls.nbytes)
        mean = calls.seconds / calls.count
        row.first_seconds.setdefault(calls.worker, mean)
        row.function_nbytes = max(row.function_nbytes, calls.function.nbytes)
        if self._longest is None or mean > self._longest.seconds:
            self._longest = LongestCall(calls.first, calls.function.name, mean)

    def worker_held(self, now: float, worker: int, since: float) -> None:
        """Account for the time for which a worker was held."""
        self._budget.worker_held(now, worker, since)

    def waiting_changed(self, now: float, some_wait: bool) -> None:
        """Note whether some tasks need results of others."""
        self._budget.waiting_changed(now, some_wait)

    def task_suspended(self, now: float, worker: int, task: int, queued: float, sent: float) -> None:
        """Account for the time in a task that waits for tasks that it has submitted."""
        self._budget.task_suspended(now, worker, task, queued, sent)

    def task_resumed(self, now: float, worker: int) -> None:
        """Note when a task goes on that has waited."""
        self._budget.task_resumed(now, worker)

    def member_finished(self, calls: FinishedCalls) -> None:
        """Account for the time of another rank of a task."""
        self._budget.member_finished(calls)
        self._last_ended = calls.received

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Count tasks that failed on the master, or were not run."""
        row = self._row(function)
        if isinstance(error, DependencyFailed):
            row.not_run += count
            return
        row.count += count
        row.failed += count

    def _row(self, function: RegisteredFunction) -> Row:
        row = self.rows.get(function.name)
        if row is None:
            row = self.rows[function.name] = Row()
        return row

    def figures(self, now: float, state: RunState = NOTHING_RUNS) -> dict[str, Any]:
        """Return all figures, with the units in their names.

        Parameters
        ----------
        now : float
            The time, in seconds of the master's clock.
        state : RunState
            What the master knows of the run.
        """
        wall = max(1e-9, now - self._began)
        seconds = sum(row.seconds for row in self.rows.values())
        moved = sum(row.nbytes for row in self.rows.values())
        parts = self._budget.parts(now, {worker: since for worker, _, _, since in state.running})
        total = max(1e-9, parts.total)
        return {
            "tasks": sum(row.count for row in self.rows.values()),
            "failed": sum(row.failed for row in self.rows.values()),
            "not_run": sum(row.not_run for row in self.rows.values()),
            "unfinished": len(state.running),
            "workers": self._workers,
            "wall_seconds": wall,
            "task_seconds": seconds,
            "busy_share": (parts.in_tasks + parts.wasted + parts.unfinished) / total,
            "efficiency": (parts.cpu + parts.other_wait) / total,
            "budget_seconds": asdict(parts),
            "bytes": moved,
            "functions": {
                name: {
                    "count": row.count,
                    "failed": row.failed,
                    "not_run": row.not_run,
                    "seconds": row.seconds,
                    "retried": row.retried,
                    "mean_seconds": row.mean,
                    "p50_seconds": row.durations.percentile(0.5),
                    "p99_seconds": row.durations.percentile(0.99),
                    "slowest_seconds": row.durations.slowest,
                    "function_bytes": row.function_nbytes,
                }
                for name, row in self.rows.items()
            },
            "limit": limit(self._facts(parts, wall, moved, now, state)),
        }

    def _facts(self, parts: Parts, wall: float, moved: int, now: float, state: RunState) -> RunFacts:
        rows = self.rows.values()
        calls = sum(row.count + row.retried for row in rows)
        first = self._last_ended if self._first_sent is None else self._first_sent
        unfinished = [LongestCall(task, name, now - since) for _, name, task, since in state.running]
        return RunFacts(
            parts=parts,
            wall=wall,
            workers=self._workers,
            cores=state.cores,
            tasks=sum(row.count for row in rows),
            maps=state.maps,
            submits=state.submits,
            span=max(1e-9, self._last_ended - first),
            mean=sum(row.seconds for row in rows) / max(1, calls),
            longest=self._longest,
            unfinished=sorted(unfinished, key=lambda call: -call.seconds),
            drawing=self.farm_time.drawn_seconds,
            nbytes=moved,
            largest_function=max(
                ((row.function_nbytes, name) for name, row in self.rows.items()), default=(0, "")
            ),
            first_calls=sum(row.first_calls for row in rows),
        )

    def table(self, now: float, state: RunState = NOTHING_RUNS) -> str:
        """Format the figures as a table; the parameters are those of `figures`."""
        found = self.figures(now, state)
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
        workers = f"{found['workers']} workers" if found["workers"] > 1 else "1 worker"
        text.append(f"{in_words(found['wall_seconds'])} on {workers}; {in_bytes(found['bytes'])} moved")
        text.extend(budget_lines(Parts(**found["budget_seconds"])))
        if found["limit"]:
            text.append(f"limit: {found['limit']}")
        return "\n".join(text)


def budget_lines(parts: Parts) -> list[str]:
    """The budget in words, largest share first, without what is too small to matter."""
    total = max(1e-9, parts.total)
    groups = {
        "in tasks": {
            "computing": parts.cpu,
            "waiting for a core": parts.core_wait,
            "waiting for files, the network or a sleep": parts.other_wait,
        },
        "failed, repeated or lost": {"": parts.wasted},
        "in tasks that did not end": {"": parts.unfinished},
        "starting": {"ranks": parts.start, "initializers": parts.initializer},
        "idle while rank 0 ran the job's code": {
            "before the first task": parts.before,
            "between tasks": parts.between,
            "after the last task": parts.after,
        },
        "waiting for rank 0 as the master": {"": parts.master},
        "moving data": {"": parts.moving},
        "idle because no task was ready: all that were left waited for others": {"": parts.not_ready},
        "idle while other workers ran the last tasks": {"": parts.tail},
        "held for tasks on several ranks, which waited": {"": parts.held},
        "missing, because workers were lost": {"": parts.lost},
    }
    sums = {name: sum(details.values()) for name, details in groups.items()}
    lines = []
    for name in sorted(groups, key=lambda name: -sums[name]):
        if sums[name] < SHOWN * total:
            continue
        details = [
            f"{what} {seconds / total:.0%}"
            for what, seconds in groups[name].items()
            if what and seconds >= SHOWN * total
        ]
        lines.append(f"{sums[name] / total:5.0%} {name}" + (f" ({', '.join(details)})" if details else ""))
    return lines
