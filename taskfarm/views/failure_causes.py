"""Why tasks failed: equal failures are counted, not repeated."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskfarm.errors import RemoteTraceback
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction

KEPT = 500
"""Kinds of failures that are told apart; what comes after them is counted together."""

SHOWN = 5
"""Kinds of failures that the text shows."""

_FRAME = re.compile(r'^  File "(.+)", line (\d+), in ', re.MULTILINE)


@dataclass
class FailureCause:
    """Failures of one function, of one type, at one place in the code.

    Attributes
    ----------
    name : str
        The function.
    summary : str
        Type and text of the first one, on one line.
    place : str
        File and line, as ``file:line``; empty if it was not found in the code of a task.
    first, worker : int
        The first task, and the rank that ran it; 0 if it failed on the master.
    note : str
        The call, attempt, rank and host of the first one, and what to do if it is known.
    trace : str
        Its traceback.
    count, retried : int
        Tasks that failed so, and calls that did but were tried again.
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

    def calls_finished(self, ran: FinishedCalls) -> None:
        """Take in what calls raised."""
        for offset, error in ran.failures.items():
            cause = self._of(ran.function.name, ran.first + offset, ran.worker, error)
            if offset in ran.retried:
                cause.retried += 1
            else:
                cause.count += 1

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Take in why tasks failed on the master."""
        self._of(function.name, first, 0, error).count += count

    def _of(self, name: str, task: int, worker: int, error: BaseException) -> FailureCause:
        cause = error.__cause__
        trace = cause.tb if isinstance(cause, RemoteTraceback) else ""
        frames = _FRAME.findall(trace)
        place = f"{_short(frames[-1][0])}:{frames[-1][1]}" if frames else ""
        key = (name, type(error).__qualname__, place)
        if key not in self._causes:
            note = "\n".join(getattr(error, "__notes__", []))
            summary = summarize(error)
            if len(self._causes) >= KEPT:
                key = name, summary, place = "others", "failures of other kinds", ""
            self._causes.setdefault(key, FailureCause(name, summary, place, task, worker, note, trace))
        return self._causes[key]

    @property
    def all(self) -> list[FailureCause]:
        """Every cause, the most frequent first."""
        return sorted(self._causes.values(), key=lambda cause: (-cause.count, -cause.retried))

    def figures(self) -> list[Mapping[str, Any]]:
        """Every cause for machines, without tracebacks."""
        return [
            {"function": c.name, "error": c.summary, "place": c.place, "count": c.count,
             "retried": c.retried, "first_task": c.first, "rank": c.worker}
            for c in self.all
        ]  # fmt: skip

    def text(self) -> str:
        """The most frequent causes, two lines each; empty if nothing failed."""
        lines = []
        for cause in self.all[:SHOWN]:
            counts = [f"{cause.count:,} failed"] * bool(cause.count)
            counts += [f"{cause.retried:,} tried again"] * bool(cause.retried)
            at = f" at {cause.place}" * bool(cause.place)
            lines.append(f"{', '.join(counts)}: {cause.name}{at}: {cause.summary[:200]}")
            lines += [f"    first: {line}" for line in cause.note.splitlines()[:1]]
        if len(self._causes) > SHOWN:
            lines.append(f"and {len(self._causes) - SHOWN} kinds of failures more")
        return "\n".join(lines)


def _short(path: str) -> str:
    """A path from here, if it is below."""
    here = os.getcwd() + os.sep
    return path.removeprefix(here)
