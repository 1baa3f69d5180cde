"""Who ran what when, in bounded memory: a picture of lanes and times, and the longest calls exactly."""

import heapq
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.functions import RegisteredFunction

CELLS = 2**21
"""Cells of the picture, about."""

LANES, MOST_BINS = 2**14, 4096
"""Lanes and bins of the picture, at most; with more workers, several share a lane."""

FINEST, FILLED = 2.0**-13, 16e-6
"""Seconds of a bin when a run begins: at least, and for each lane, which bounds the cells to fill."""

EXACT, SLOWEST, SHOWN = 3000, 20, 500
"""Parts that are kept exactly: the longest, those with the slowest calls, and the first with failures."""

FUNCTIONS, OTHERS = 255, "(other functions)"
"""Functions that are told apart, and the name of all the others."""

_GATHERED, _SPREAD = 512, 2**18

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


class Part(NamedTuple):
    """Calls of one function that a worker made in a row.

    Attributes
    ----------
    started, seconds : float
        Seconds from the begin of the run to the first call, and of all the calls together.
    worker, name : int
        Its rank, and the place of the function in `Timeline.names`.
    first, count : int
        Id of the first task, and number of calls.
    attempt : int
        1 for the first try.
    failed, again : int
        Tasks that have failed for good, and calls that will be made again.
    """

    started: float
    seconds: float
    worker: int
    name: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    attempt: int
    failed: int
    again: int


class LostWorker(NamedTuple):
    """A worker that was lost: when, in seconds from the begin of the run, which one, and why."""

    time: float
    worker: int
    why: str


class Timeline(Recorder):
    """Adds up what the workers do, by lane and bin of time; neighbouring bins merge as the run grows.

    Parameters
    ----------
    workers : int
        The highest rank of a worker.
    began : float
        When the run began, in seconds of the master's clock.

    Attributes
    ----------
    began : float
        As given.
    together : int
        Ranks that share a lane: rank r is in lane ``r // together``.
    width : float
        Seconds of a bin.
    parts : int
        Parts that were taken in.
    hosts : dict of int to str
        The host of each worker that has started.
    losses : list of LostWorker
        Workers that were lost.
    failures : list of Part
        The first parts with calls that failed.
    """

    def __init__(self, workers: int, began: float) -> None:
        self.began = began
        self.together = -(-(workers + 1) // LANES)
        self.parts = 0
        self.hosts: dict[int, str] = {}
        self.losses: list[LostWorker] = []
        self.failures: list[Part] = []
        lanes = workers // self.together + 1
        self.width = 2.0 ** math.ceil(math.log2(max(FINEST, FILLED * lanes)))
        bins = max(2, min(MOST_BINS, CELLS // lanes) // 2 * 2)
        self._busy = np.zeros((lanes, bins), np.float32)
        # Boyer and Moore's vote: the function that leads in a cell, and by how many seconds.
        self._leader = np.zeros((lanes, bins), np.uint8)
        self._lead = np.zeros((lanes, bins), np.float32)
        self._ended = np.zeros(bins, np.int64)
        self._failed = np.zeros(bins, np.int64)
        self._names: dict[str, int] = {}
        self._end = 0.0
        self._news: list[FinishedCalls] = []
        self._longest: list[tuple[float, int, Part]] = []
        self._slowest: list[tuple[float, int, Part]] = []

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Take in where a worker runs."""
        self.hosts[worker] = host

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Take in that a worker was lost."""
        self.losses.append(LostWorker(max(0.0, now - self.began), worker, why))

    def calls_finished(self, ran: FinishedCalls) -> None:
        """Take in calls; they are added up some hundreds at a time."""
        self._news.append(ran)
        if len(self._news) >= _GATHERED:
            self.add_up()

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Take in that tasks have failed on the master."""
        time = max(0.0, now - self.began)
        self._reach(time)
        self._ended[int(time / self.width)] += count
        self._failed[int(time / self.width)] += count

    def add_up(self) -> None:
        """Add up what has been gathered; all figures hold after it."""
        news, self._news = self._news, []
        if not news:
            return
        columns: list[Any] = list(zip(*news, strict=True))
        worker = np.array(columns[0], np.int64)
        name = np.array([self._number(function.name) for function in columns[1]], np.int64)
        count = np.array(columns[3], np.int64)
        again = np.array([len(offsets) for offsets in columns[7]], np.int64)
        failed = np.array([len(errors) for errors in columns[6]], np.int64) - again
        started = np.maximum(np.array(columns[10]) - self.began, 0.0)
        seconds = np.maximum(np.array(columns[11], float), 0.0)
        end = started + seconds
        self._reach(float(end.max()))
        lane = np.minimum(worker // self.together, len(self._busy) - 1)
        self._spread(lane, name, started, seconds)
        at = (end / self.width).astype(np.int64)
        np.add.at(self._ended, at, count - again)
        np.add.at(self._failed, at, failed)

        def part(row: int) -> Part:
            ran = news[row]
            return Part(
                float(started[row]), float(seconds[row]), ran.worker, int(name[row]), ran.first, ran.count,
                ran.attempt, int(failed[row]), int(again[row]),
            )  # fmt: skip

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
            rows = np.flatnonzero(failed + again)[: SHOWN - len(self.failures)]
            self.failures.extend(map(part, rows.tolist()))
        self.parts += len(news)

    def lane(self, worker: int) -> int:
        """The lane of a worker; ranks above the highest are in the last one."""
        return min(worker // self.together, len(self._busy) - 1)

    @property
    def names(self) -> list[str]:
        """Names of the functions, in the order in which they came."""
        return list(self._names)

    def longest(self) -> list[Part]:
        """The longest parts, longest first: all, if there are no more than `EXACT`."""
        return [part for _, _, part in sorted(self._longest, reverse=True)]

    def slowest(self) -> list[Part]:
        """The parts with the slowest calls, slowest first; of several calls together, the mean counts."""
        return [part for _, _, part in sorted(self._slowest, reverse=True)]

    def busy(self) -> NDArray[np.float32]:
        """Seconds of work by lane and bin, up to the last bin with any."""
        return self._busy[:, : self._used()]

    def leaders(self) -> NDArray[np.uint8]:
        """The function with most of the work by lane and bin: that with more than half, if there is one."""
        return self._leader[:, : self._used()]

    def ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tasks that ended, and those of them that failed, by bin."""
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

    def _reach(self, end: float) -> None:
        """Merge bins until a time lies in one of them."""
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
        lead[:, :half], leader[:, :half] = (
            np.where(same, one + other, np.abs(one - other)),
            np.where(one >= other, leader[:, 0::2], leader[:, 1::2]),
        )
        lead[:, half:] = leader[:, half:] = 0
        self.width *= 2

    def _spread(self, lane: Integers, name: Integers, started: Floats, seconds: Floats) -> None:
        """Add parts to all cells that they cover."""
        end = started + seconds
        low = (started / self.width).astype(np.int64)
        covered = (end / self.width).astype(np.int64) - low + 1
        total = int(covered.sum())
        if total > _SPREAD and len(lane) > 1:
            # Parts as long as the run cover thousands of cells each.
            half = len(lane) // 2
            self._spread(lane[:half], name[:half], started[:half], seconds[:half])
            self._spread(lane[half:], name[half:], started[half:], seconds[half:])
            return
        if total > len(lane):
            each = np.repeat(np.arange(len(lane)), covered)
            bins = low[each] + np.arange(total) - np.repeat(np.cumsum(covered) - covered, covered)
            edges = bins * self.width
            inside = np.minimum(end[each], edges + self.width) - np.maximum(started[each], edges)
            # The difference of two late times says little of a short part.
            seconds = np.where(covered[each] == 1, seconds[each], np.maximum(inside, 0.0))
            lane, name, low = lane[each], name[each], bins
        self._add(lane * self._ended.size + low, name, seconds)

    def _add(self, cells: Integers, name: Integers, seconds: Floats) -> None:
        keys = cells * (FUNCTIONS + 1) + name
        order = keys.argsort()
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        seconds = np.add.reduceat(seconds[order], starts)
        cells, name = np.divmod(keys[starts], FUNCTIONS + 1)
        busy, leader, lead = self._busy.reshape(-1), self._leader.reshape(-1), self._lead.reshape(-1)
        while cells.size:
            # Each cell once a round, with its next function.
            now = np.append(True, cells[1:] != cells[:-1])
            at, votes, added = cells[now], name[now], seconds[now].astype(np.float32)
            ahead = lead[at] + np.where(leader[at] == votes, added, -added)
            leader[at] = np.where(ahead < 0, votes, leader[at])
            lead[at] = np.abs(ahead)
            busy[at] += added
            cells, name, seconds = cells[~now], name[~now], seconds[~now]
