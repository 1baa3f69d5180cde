"""Groups failures by cause, and counts equal ones."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskfarm.environment import current_folder
from taskfarm.errors import CommandFailed, DependencyFailed
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.failures import notes_of, remote_cause, summary_of
from taskfarm.protocol.functions import RegisteredFunction

KEPT = 500
"""Causes that are kept apart; failures with further causes are counted together."""

SHOWN = 5
"""Causes that the text lists, at most."""

_FRAME = re.compile(r'^  File "(.+)", line (\d+), in ', re.MULTILINE)


@dataclass
class FailureCause:
    """Failures of one function with one exception type at one place in the code.

    Attributes
    ----------
    name : str
        The function.
    summary : str
        Type and text of the first exception, on one line.
    place : str
        File and line, as ``file:line``; empty if there is no remote traceback.
    first, worker : int
        Id of the first task, and the rank that ran it; 0 if it failed on the master.
    note : str
        Call, attempt, rank and host of the first failure, and a hint if there is one.
    trace : str
        Traceback of the first failure.
    count, retried : int
        Tasks that failed, and calls that failed but were retried.
    """

    name: str
    summary: str
    place: str
    first: int
    worker: int
    note: str
    trace: str
    count: int = 0
    retried: int = 0


class FailureCauses(Recorder):
    """Counts failures by function, type and place."""

    def __init__(self) -> None:
        self._causes: dict[tuple[str, str, str], FailureCause] = {}
        self._not_run: Counter[str] = Counter()
        self._roots: set[str] = set()

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Count the exceptions of calls."""
        for offset, error in calls.failures.items():
            cause = self._find(calls.function.name, calls.first + offset, calls.worker, error)
            if offset in calls.retried:
                cause.retried += 1
            else:
                cause.count += 1

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Count tasks that failed on the master, apart from those that need one which has failed."""
        if isinstance(error, DependencyFailed):
            self._not_run[function.name] += count
            self._roots.add(error.root)
            return
        self._find(function.name, first, 0, error).count += count

    def _find(self, name: str, task: int, worker: int, error: BaseException) -> FailureCause:
        """Return the cause of a failure, which is created for the first one."""
        cause = remote_cause(error)
        trace = cause.tb if cause else ""
        frames = _FRAME.findall(trace)
        place = f"{_short(frames[-1][0])}:{frames[-1][1]}" if frames else ""
        kind = type(error).__qualname__
        note = notes_of(error)
        if type(error) is CommandFailed:
            # What differs is how the command ended. Its text is in the message.
            kind, place, note = _how_it_ended(error), "", f"task {task} on rank {worker}"
        key = (name, kind, place)
        if key not in self._causes:
            # Formatting it here would run code of its class under the master's lock.
            summary = summary_of(error)
            if len(self._causes) >= KEPT:
                key = name, summary, place = "others", "failures of other kinds", ""
            self._causes.setdefault(key, FailureCause(name, summary, place, task, worker, note, trace))
        return self._causes[key]

    @property
    def all(self) -> list[FailureCause]:
        """All causes, the most frequent first."""
        return sorted(self._causes.values(), key=lambda cause: (-cause.count, -cause.retried))

    def figures(self) -> list[Mapping[str, Any]]:
        """Return all causes as plain values, without tracebacks."""
        return [
            {
                "function": cause.name,
                "error": cause.summary,
                "place": cause.place,
                "count": cause.count,
                "retried": cause.retried,
                "first_task": cause.first,
                "rank": cause.worker,
            }
            for cause in self.all
        ]

    def text(self) -> str:
        """Return the most frequent causes, on two lines each; empty if nothing failed."""
        lines = []
        for cause in self.all[:SHOWN]:
            counts = []
            if cause.count:
                counts.append(f"{cause.count:,} failed")
            if cause.retried:
                counts.append(f"{cause.retried:,} retried")
            name = f"{cause.name} at {cause.place}" if cause.place else cause.name
            lines.append(f"{', '.join(counts)}: {name}: {cause.summary[:200]}")
            if cause.note:
                lines.append(f"    first: {cause.note.splitlines()[0]}")
        if len(self._causes) > SHOWN:
            lines.append(f"and {len(self._causes) - SHOWN} more causes of failures")
        if self._not_run:
            lines.append(self._not_run_line())
        return "\n".join(lines)

    def _not_run_line(self) -> str:
        """How many tasks were not run, and of which functions."""
        failures = "1 failure" if len(self._roots) == 1 else f"{len(self._roots):,} failures"
        shown = [f"{name} {count:,}" for name, count in self._not_run.most_common(SHOWN)]
        more = ", ..." if len(self._not_run) > SHOWN else ""
        return f"{self._not_run.total():,} not run because of {failures}: {', '.join(shown)}{more}"


def _how_it_ended(error: CommandFailed) -> str:
    return str([getattr(error.ended, name, None) for name in ("code", "signal", "limit")])


def _short(path: str) -> str:
    """Make a path relative to the working directory if it lies below it."""
    here = current_folder() + os.sep
    return path.removeprefix(here)
