"""What a trace says, in a small table: ``python -m taskfarm trace FILE``."""

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
"""What a batch goes through; transfer includes its waiting at a worker that is busy."""

LONGEST = 5
"""Parts that are listed."""


@dataclass
class Phase:
    """Durations of one phase."""

    total: float = 0.0
    durations: Durations = field(default_factory=Durations)

    @property
    def mean(self) -> float:
        """Seconds of each, on the average."""
        return self.total / max(1, sum(self.durations.classes.values()))

    def add(self, seconds: float) -> None:
        """Take one in."""
        self.total += seconds
        self.durations.add(seconds)


@dataclass
class Function:
    """What is known of the calls of one function; its parts are what travelled together."""

    tasks: int = 0
    failed: int = 0
    parts: int = 0
    phases: dict[str, Phase] = field(default_factory=lambda: {phase: Phase() for phase in PHASES})


class Found:
    """Adds up events, in bounded memory."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.hosts: dict[int, str] = {}
        self.workers: dict[int, set[int]] = {}
        self.busy: dict[int, float] = {}
        self.first, self.last = math.inf, 0.0
        self._last: dict[tuple[int, int], tuple[int, Function, float]] = {}
        self.longest: list[tuple[float, int, str, int, int]] = []

    def take(self, event: dict[str, Any]) -> None:
        """Take in an event of a trace of ours."""
        if event["name"] == "process_name":
            self.hosts[event["pid"]] = event["args"]["name"]
        if event.get("cat") != "run":
            return
        pid, rank, name = event["pid"], event["tid"] // 2, event["name"]
        about, start, length = event["args"], event["ts"], event["dur"]
        self.workers.setdefault(pid, set()).add(rank)
        self.busy[pid] = self.busy.get(pid, 0.0) + length
        self.first, self.last = min(self.first, start), max(self.last, start + length)
        one = self.functions.setdefault(name, Function())
        one.tasks += about["count"]
        one.failed += about["failed"]
        one.parts += 1
        one.phases["run"].add(1e-6 * length)
        self._take_batch((pid, rank), about, one)
        item = (length, rank, name, about["first"], about["count"])
        (heapq.heappush if len(self.longest) < LONGEST else heapq.heappushpop)(self.longest, item)

    def _take_batch(self, lane: tuple[int, int], about: dict[str, Any], one: Function) -> None:
        """Take in what goes before the first part of a batch, and what comes after its last."""
        batch, returning, seconds = self._last.get(lane, (0, one, 0.0))
        if about["batch"] != batch:
            if batch:
                returning.phases["return"].add(seconds)
            for phase in ("queue", "transfer"):
                one.phases[phase].add(1e-6 * about[f"{phase}_us"])
        self._last[lane] = (about["batch"], one, 1e-6 * about["return_us"])

    def text(self) -> str:
        """What was found, as lines."""
        for _, one, seconds in self._last.values():
            one.phases["return"].add(seconds)
        self._last.clear()
        if not self.functions:
            return "no task has run"
        span = max(1e-3, self.last - self.first)
        workers = sum(map(len, self.workers.values()))
        lines = [f"{in_words(1e-6 * span)} on {workers} workers of {len(self.workers)} hosts"]
        rows = [("", "calls", "failed", "parts", "run in all", *(f"{p}: mean, p95" for p in PHASES))]
        for name, one in sorted(self.functions.items(), key=lambda item: -item[1].phases["run"].total):
            means = [
                f"{in_words(phase.mean)}, {in_words(phase.durations.percentile(0.95))}"
                for phase in one.phases.values()
            ]
            counts = [f"{number:,}" for number in (one.tasks, one.failed, one.parts)]
            rows.append((name[:30], *counts, in_words(one.phases["run"].total), *means))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows[:11]:
            lines.append("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))
        for pid, busy in sorted(self.busy.items()):
            here = len(self.workers[pid])
            share = busy / (span * here)
            lines.append(f"{self.hosts.get(pid, '?')}: {here} workers, busy for {share:.0%} of the time")
        for length, rank, name, first, count in sorted(self.longest, reverse=True):
            more = f" and {count - 1} more" if count > 1 else ""
            lines.append(f"longest: {in_words(1e-6 * length)}, rank {rank}, task {first} {name}{more}")
        return "\n".join(lines)


def report(path: str) -> int:
    """Print what a trace says, also that of a run that was killed.

    Raises
    ------
    UsageError
        There is no such file, or it is no trace.
    """
    found = Found()
    try:
        for number, line in enumerate(_lines(path)):
            if number == 0:
                if line.strip() != "[":
                    raise ValueError
                continue
            event = _event(line)
            if event is None:
                break
            found.take(event)
    except OSError as error:
        raise UsageError(f"cannot read {path!r}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path!r} is no trace: `run --trace FILE` writes one") from error
    print(found.text())
    return 0


def _lines(path: str) -> Iterator[str]:
    """The lines of a file, as far as it goes."""
    with Path(path).open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        file: Iterable[bytes] = gzip.GzipFile(fileobj=plain) if packed else plain
        try:
            for line in file:
                yield line.decode(errors="replace")
        except (EOFError, zlib.error):
            return


def _event(line: str) -> dict[str, Any] | None:
    """The event of a line; None at the end, or where the writing of the run ended."""
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
