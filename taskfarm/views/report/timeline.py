"""Records what each worker ran and when, in bounded memory: a heat map, and the longest calls exactly."""

import heapq
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskfarm.errors import DependencyFailed
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.views.critical_path import CriticalPath

CELLS = 2**21
"""Approximate number of cells of the heat map."""

LANES, MOST_BINS = 2**14, 4096
"""Lanes and bins of the heat map, at most; with more workers, several share a lane."""

FINEST, FILLED = 2.0**-13, 16e-6
"""Seconds of a bin when a run begins: the minimum, and that for each lane, to bound the cells to fill."""

EXACT, SLOWEST, SHOWN = 3000, 20, 500
"""Parts that are kept exactly: the longest, those with the slowest calls, and the first with failures."""

FUNCTIONS, OTHERS = 255, "(other functions)"
"""Functions that are kept apart, and the name of all others."""

_GATHERED, _SPREAD = 512, 2**18
"""Calls that are collected before they are added up, and cells that are filled at a time."""

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


class Part(NamedTuple):
    """Calls of one function that a worker made in a row.

    Attributes
    ----------
    started, seconds : float
        Seconds from the begin of the run to the first call, and total seconds of the calls.
    worker, name : int
        Rank of the worker, and index of the function in `Timeline.names`.
    first, count : int
        Id of the first task, and number of calls.
    attempt : int
        1 for the first attempt.
    failed, retried : int
        Tasks that have failed for good, and calls that will be retried.
    ranks : int
        Workers that ran them together.
    """

    started: float
    seconds: float
    worker: int
    name: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    attempt: int
    failed: int
    retried: int
    ranks: int = 1


class WorkerLoss(NamedTuple):
    """A lost worker: the time in seconds since the begin of the run, the rank, and the reason."""

    time: float
    worker: int
    why: str


class Timeline(Recorder):
    """Adds up the work by lane and time bin; neighbouring bins are merged as the run gets longer.

    Parameters
    ----------
    workers : int
        The highest rank of a worker.
    began : float
        When the run began, in seconds of the master's clock.

    Attributes
    ----------
    began : float
        When the run began, in seconds of the master's clock.
    ranks_per_lane : int
        Ranks that share a lane: rank r is in lane ``r // ranks_per_lane``.
    width : float
        Seconds of a bin.
    parts : int
        Number of parts that were added up.
    hosts : dict of int to str
        The host of each worker that has started.
    losses : list of WorkerLoss
        The lost workers.
    failures : list of Part
        The first parts with calls that failed.
    path : CriticalPath
        The longest chain of tasks that depend on each other.
    """

    def __init__(self, workers: int, began: float) -> None:
        self.began = began
        self.ranks_per_lane = -(-(workers + 1) // LANES)
        self.parts = 0
        self.hosts: dict[int, str] = {}
        self.losses: list[WorkerLoss] = []
        self.failures: list[Part] = []
        self.path = CriticalPath()
        lanes = workers // self.ranks_per_lane + 1
        self.width = 2.0 ** math.ceil(math.log2(max(FINEST, FILLED * lanes)))
        bins = max(2, min(MOST_BINS, CELLS // lanes) // 2 * 2)
        self._busy = np.zeros((lanes, bins), np.float32)
        # The majority vote of Boyer and Moore: the leading function of a cell, and its lead in seconds.
        self._leader = np.zeros((lanes, bins), np.uint8)
        self._lead = np.zeros((lanes, bins), np.float32)
        self._ended = np.zeros(bins, np.int64)
        self._failed = np.zeros(bins, np.int64)
        self._names: dict[str, int] = {}
        self._end = 0.0
        self._pending: list[FinishedCalls] = []
        self._members: list[int] = []
        self._longest: list[tuple[float, int, Part]] = []
        self._slowest: list[tuple[float, int, Part]] = []

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Record the host of a worker."""
        self.hosts[worker] = host

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Record a lost worker."""
        self.losses.append(WorkerLoss(max(0.0, now - self.began), worker, why))

    def task_depends(self, task: int, on: int) -> None:
        """Record a dependency."""
        self.path.task_depends(task, on)

    def tasks_dropped(self, first: int, count: int) -> None:
        """Record that tasks will not run."""
        self.path.tasks_dropped(first, count)

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Collect calls, to add up some hundreds at a time."""
        self.path.calls_finished(calls)
        self._pending.append(calls)
        if len(self._pending) >= _GATHERED:
            self.add_up()

    def member_finished(self, calls: FinishedCalls) -> None:
        """Collect the share of another rank of a task: it is busy, but the task counts once."""
        self._members.append(len(self._pending))
        self.calls_finished(calls)

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Count tasks that failed on the master, but not those that were not run."""
        if isinstance(error, DependencyFailed):
            return
        time = max(0.0, now - self.began)
        self._cover(time)
        self._ended[int(time / self.width)] += count
        self._failed[int(time / self.width)] += count

    def add_up(self) -> None:
        """Add up the collected calls; all figures are up to date after it."""
        pending, self._pending = self._pending, []
        members, self._members = self._members, []
        if not pending:
            return
        columns: dict[str, Any] = dict(zip(FinishedCalls._fields, zip(*pending, strict=True), strict=True))
        worker = np.array(columns["worker"], np.int64)
        name = np.array([self._number(function.name) for function in columns["function"]], np.int64)
        count = np.array(columns["count"], np.int64)
        ended = count.copy()
        ended[members] = 0
        retried = np.array([len(offsets) for offsets in columns["retried"]], np.int64)
        failed = np.array([len(errors) for errors in columns["failures"]], np.int64) - retried
        started = np.maximum(np.array(columns["started"]) - self.began, 0.0)
        seconds = np.maximum(np.array(columns["seconds"], float), 0.0)
        end = started + seconds
        self._cover(float(end.max()))
        lane = np.minimum(worker // self.ranks_per_lane, len(self._busy) - 1)
        self._spread(lane, name, started, seconds)
        bins = (end / self.width).astype(np.int64)
        np.add.at(self._ended, bins, ended - retried)
        np.add.at(self._failed, bins, failed)

        def part(row: int) -> Part:
            calls = pending[row]
            return Part(
                started=float(started[row]),
                seconds=float(seconds[row]),
                worker=calls.worker,
                name=int(name[row]),
                first=calls.first,
                count=calls.count,
                attempt=calls.attempt,
                failed=int(failed[row]),
                retried=int(retried[row]),
                ranks=calls.function.policy.ranks,
            )

        kept = (self._longest, EXACT, seconds), (self._slowest, SLOWEST, seconds / count)
        for heap, limit, keys in kept:
            least = heap[0][0] if len(heap) == limit else -1.0
            for row in np.flatnonzero(keys > least).tolist():
                entry = (float(keys[row]), -self.parts - row, part(row))
                if len(heap) < limit:
                    heapq.heappush(heap, entry)
                else:
                    heapq.heappushpop(heap, entry)
        if len(self.failures) < SHOWN:
            rows = np.flatnonzero(failed + retried)[: SHOWN - len(self.failures)]
            self.failures.extend(map(part, rows.tolist()))
        self.parts += len(pending)

    def lane(self, worker: int) -> int:
        """Return the lane of a worker; ranks above the highest are in the last one."""
        return min(worker // self.ranks_per_lane, len(self._busy) - 1)

    @property
    def names(self) -> list[str]:
        """Names of the functions, in the order of their first calls."""
        return list(self._names)

    def longest(self) -> list[Part]:
        """Return the longest parts, longest first; all of them if there are at most `EXACT`."""
        return [part for _, _, part in sorted(self._longest, reverse=True)]

    def slowest(self) -> list[Part]:
        """Return the parts with the slowest calls, slowest first, by the mean of their calls."""
        return [part for _, _, part in sorted(self._slowest, reverse=True)]

    def busy(self) -> NDArray[np.float32]:
        """Return the seconds of work by lane and bin, up to the last bin with any."""
        return self._busy[:, : self._used()]

    def leaders(self) -> NDArray[np.uint8]:
        """Return the leading function by lane and bin: the one with more than half of the work, if any."""
        return self._leader[:, : self._used()]

    def ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the tasks that ended, and those of them that failed, by bin."""
        return self._ended[: self._used()], self._failed[: self._used()]

    def _used(self) -> int:
        return int(self._end / self.width) + 1

    def _number(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            if len(self._names) >= FUNCTIONS:
                return self._names.setdefault(OTHERS, FUNCTIONS)
            number = self._names[name] = len(self._names)
        return number

    def _cover(self, end: float) -> None:
        """Merge bins until they cover a time."""
        self._end = max(self._end, end)
        while self._end >= self.width * self._ended.size:
            self._merge()

    def _merge(self) -> None:
        half = self._ended.size // 2
        for array in (self._busy, self._ended, self._failed):
            array[..., :half] = array[..., 0::2] + array[..., 1::2]
            array[..., half:] = 0
        leader, lead = self._leader, self._lead
        one, other = lead[:, 0::2], lead[:, 1::2]
        same = leader[:, 0::2] == leader[:, 1::2]
        # Both before either is stored: `one` and `other` are views of `lead`.
        merged_lead = np.where(same, one + other, np.abs(one - other))
        merged_leader = np.where(one >= other, leader[:, 0::2], leader[:, 1::2])
        lead[:, :half] = merged_lead
        leader[:, :half] = merged_leader
        lead[:, half:] = leader[:, half:] = 0
        self.width *= 2

    def _spread(self, lane: Integers, name: Integers, started: Floats, seconds: Floats) -> None:
        """Add parts to all cells that they cover, in rounds of bounded size."""
        end = started + seconds
        low = (started / self.width).astype(np.int64)
        covered = (end / self.width).astype(np.int64) - low + 1
        total = int(covered.sum())
        if total > _SPREAD and len(lane) > 1:
            # Parts as long as the run cover thousands of cells each, which takes memory.
            half = len(lane) // 2
            self._spread(lane[:half], name[:half], started[:half], seconds[:half])
            self._spread(lane[half:], name[half:], started[half:], seconds[half:])
            return
        if total > len(lane):
            each = np.repeat(np.arange(len(lane)), covered)
            bins = low[each] + np.arange(total) - np.repeat(np.cumsum(covered) - covered, covered)
            edges = bins * self.width
            inside = np.minimum(end[each], edges + self.width) - np.maximum(started[each], edges)
            # For a short part, the difference of two late times has a large rounding error.
            seconds = np.where(covered[each] == 1, seconds[each], np.maximum(inside, 0.0))
            lane, name, low = lane[each], name[each], bins
        self._add(lane * self._ended.size + low, name, seconds)

    def _add(self, cells: Integers, name: Integers, seconds: Floats) -> None:
        """Add seconds of functions to cells, which may occur more than once."""
        keys = cells * (FUNCTIONS + 1) + name
        order = keys.argsort()
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        seconds = np.add.reduceat(seconds[order], starts)
        cells, name = np.divmod(keys[starts], FUNCTIONS + 1)
        busy, leader, lead = self._busy.reshape(-1), self._leader.reshape(-1), self._lead.reshape(-1)
        while cells.size:
            # Each round handles every cell once, with its next function.
            now = np.append(True, cells[1:] != cells[:-1])
            at, votes, added = cells[now], name[now], seconds[now].astype(np.float32)
            ahead = lead[at] + np.where(leader[at] == votes, added, -added)
            leader[at] = np.where(ahead < 0, votes, leader[at])
            lead[at] = np.abs(ahead)
            busy[at] += added
            cells, name, seconds = cells[~now], name[~now], seconds[~now]
