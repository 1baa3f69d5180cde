"""Summarizes a trace in a table: ``python -m taskfarm trace FILE``."""

import gzip
import heapq
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskfarm.errors import UsageError
from taskfarm.views.durations import Durations, in_words

PHASES = ("queue", "transfer", "run", "return")
"""Phases of a batch; transfer includes the wait at a busy worker."""

LONGEST = 5
"""Parts that are listed, at most."""


@dataclass
class Phase:
    """Durations of one phase."""

    total: float = 0.0
    durations: Durations = field(default_factory=Durations)

    @property
    def mean(self) -> float:
        """Mean duration, in seconds."""
        return self.total / max(1, sum(self.durations.bins.values()))

    def add(self, seconds: float) -> None:
        """Add a duration."""
        self.total += seconds
        self.durations.add(seconds)


@dataclass
class Function:
    """Figures of the calls of one function; a part is a group of calls that were sent together."""

    tasks: int = 0
    failed: int = 0
    parts: int = 0
    phases: dict[str, Phase] = field(default_factory=lambda: {phase: Phase() for phase in PHASES})


class TraceSummary:
    """Adds up the events of a trace, in bounded memory."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.hosts: dict[int, str] = {}
        self.workers: dict[int, set[int]] = {}
        self.busy: dict[int, float] = {}
        self.first = math.inf
        self.last = 0.0
        self._last: dict[tuple[int, int], tuple[int, Function, float]] = {}
        self.longest: list[tuple[float, int, str, int, int]] = []

    def add(self, event: dict[str, Any]) -> None:
        """Add an event of a trace."""
        if event["name"] == "process_name":
            self.hosts[event["pid"]] = event["args"]["name"]
        if event.get("cat") != "run":
            return
        pid, rank, name = event["pid"], event["tid"] // 2, event["name"]
        args, start, length = event["args"], event["ts"], event["dur"]
        self.workers.setdefault(pid, set()).add(rank)
        self.busy[pid] = self.busy.get(pid, 0.0) + length
        self.first, self.last = min(self.first, start), max(self.last, start + length)
        function = self.functions.setdefault(name, Function())
        function.tasks += args["count"]
        function.failed += args["failed"]
        function.parts += 1
        function.phases["run"].add(1e-6 * length)
        self._add_batch((pid, rank), args, function)
        item = (length, rank, name, args["first"], args["count"])
        if len(self.longest) < LONGEST:
            heapq.heappush(self.longest, item)
        else:
            heapq.heappushpop(self.longest, item)

    def _add_batch(self, lane: tuple[int, int], args: dict[str, Any], function: Function) -> None:
        """Add the phases before the first part of a batch, and after its last part."""
        batch, returning, seconds = self._last.get(lane, (0, function, 0.0))
        if args["batch"] != batch:
            if batch:
                returning.phases["return"].add(seconds)
            for phase in ("queue", "transfer"):
                function.phases[phase].add(1e-6 * args[f"{phase}_us"])
        self._last[lane] = (args["batch"], function, 1e-6 * args["return_us"])

    def text(self) -> str:
        """Format the summary as lines."""
        for _, function, seconds in self._last.values():
            function.phases["return"].add(seconds)
        self._last.clear()
        if not self.functions:
            return "no task ran"
        span = max(1e-3, self.last - self.first)
        workers = sum(map(len, self.workers.values()))
        lines = [f"{in_words(1e-6 * span)} on {workers} workers of {len(self.workers)} hosts"]
        rows = [
            ("", "calls", "failed", "parts", "run in all", *(f"{phase}: mean, p95" for phase in PHASES))
        ]
        for name, function in sorted(self.functions.items(), key=lambda item: -item[1].phases["run"].total):
            means = [
                f"{in_words(phase.mean)}, {in_words(phase.durations.percentile(0.95))}"
                for phase in function.phases.values()
            ]
            counts = [f"{number:,}" for number in (function.tasks, function.failed, function.parts)]
            rows.append((name[:30], *counts, in_words(function.phases["run"].total), *means))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows[:11]:
            lines.append("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))
        for pid, busy in sorted(self.busy.items()):
            count = len(self.workers[pid])
            share = busy / (span * count)
            lines.append(f"{self.hosts.get(pid, '?')}: {count} workers, busy for {share:.0%} of the time")
        for length, rank, name, first, count in sorted(self.longest, reverse=True):
            more = f" and {count - 1} more" if count > 1 else ""
            lines.append(f"longest: {in_words(1e-6 * length)}, rank {rank}, task {first} {name}{more}")
        return "\n".join(lines)


def report(path: str) -> int:
    """Print the summary of a trace, which may be that of a killed run.

    Raises
    ------
    UsageError
        There is no such file, or it is not a trace.
    """
    summary = TraceSummary()
    try:
        for number, line in enumerate(_lines(path)):
            if number == 0:
                if line.strip() != "[":
                    raise ValueError
                continue
            event = _event(line)
            if event is None:
                break
            summary.add(event)
    except OSError as error:
        raise UsageError(f"cannot read {path!r}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path!r} is not a trace: `run --trace FILE` writes one") from error
    print(summary.text())
    return 0


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a file, which may be compressed and cut off."""
    with Path(path).open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        file: Iterable[bytes] = gzip.GzipFile(fileobj=plain) if compressed else plain
        try:
            for line in file:
                yield line.decode(errors="replace")
        except (EOFError, zlib.error):
            return


def _event(line: str) -> dict[str, Any] | None:
    """Parse the event of a line; None at the end of the array, or if the line is cut off."""
    text = line.strip().removesuffix(",")
    if text in ("", "]"):
        return None
    try:
        event = json.loads(text)
    except ValueError:
        if line.endswith("\n"):
            raise
        return None
    if not isinstance(event, dict):
        raise ValueError(line)
    return event
