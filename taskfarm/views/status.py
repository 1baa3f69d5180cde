"""The progress of a run, for the status file and for SIGUSR2."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskfarm.console import say
from taskfarm.errors import UsageError
from taskfarm.views.own_files import write_json

if TYPE_CHECKING:
    from taskfarm.master.master import Master
    from taskfarm.views.pace import Pace

EVERY = 1.0
"""Seconds between two updates of the file."""

SHOWN = 20
"""Busy workers that are listed, at most."""


def snapshot(master: "Master", began: float, pace: "Pace") -> dict[str, Any]:
    """Return the progress of a run as plain values.

    Parameters
    ----------
    master : Master
        The master of the run.
    began : float
        When the run began, in seconds of the system's clock.
    pace : Pace
        How fast tasks end.
    """
    with master.lock:
        counts = master.scheduler.counts()
        running = master.scheduler.running()
        now, clock = time.time(), master.clock.now()
        tasks: list[dict[str, Any]] = [
            {
                "worker": worker,
                "task": span.first,
                "name": master.outstanding.pending.function_of(span).name,
                "together": span.count,
                "since": now - (clock - since),
            }
            for worker, span, since in running
        ]
        tasks.sort(key=lambda task: task["since"])
        return {
            "taskfarm": 1,
            "pid": os.getpid(),
            "began": began,
            "written": now,
            "ended": False,
            "ranks": master.transport.size,
            "total": counts.total + master.undrawn,
            "total_known": pace.total is not None,
            "rate": pace.rate,
            "seconds_left": pace.seconds_left,
            "long_call": str(pace.long_call or ""),
            **counts._asdict(),
            "gang": _gang_in_words(master),
            "lost": [str(loss) for loss in master.workers.lost],
            "running": tasks[:SHOWN],
            "stacks": {str(worker): text for worker, text in master.output.stacks.items()},
        }


def _gang_in_words(master: "Master") -> str:
    """Which workers are held for a task on several ranks; empty if none are."""
    gangs = master.scheduler.gangs
    reservation = gangs.reservation
    if gangs.paused:
        return f"tasks on several ranks wait: {gangs.paused}"
    if reservation is None:
        return ""
    name = master.outstanding.pending.name_of(reservation.task)
    free = len(gangs.held_since.keys() & set(reservation.members))
    return f"{free} of {len(reservation.members)} ranks held for task {reservation.task} {name} are free"


def render(found: dict[str, Any], now: float) -> str:
    """Format a snapshot as text."""
    ended = found["done"] + found["failed"] + found["cancelled"] + found["not_run"]
    seconds = max(1e-9, found["written"] - found["began"])
    total = f"{found['total']:,}" if found["total_known"] else "an unknown number of"
    head = f"{ended:,} of {total} tasks in {seconds:,.0f} s, {found['rate']:,.4g} tasks/s"
    if found["ended"]:
        head += "; ended"
    elif found["seconds_left"]:
        head += f", {found['seconds_left']:,.0f} s left"
    not_run = f"{found['not_run']:,} not run, " if found["not_run"] else ""
    waiting = f"{found['waiting']:,} waiting, " if found["waiting"] else ""
    lines = [
        head,
        f"{found['failed']:,} failed, {not_run}{waiting}{found['queued']:,} queued, "
        f"{found['assigned']:,} in flight; "
        f"{found['busy']} of {found['workers']} workers busy; updated {now - found['written']:.0f} s ago",
    ]
    if found["long_call"] and not found["ended"]:
        lines.append(found["long_call"])
    if found.get("gang") and not found["ended"]:
        lines.append(found["gang"])
    lines += [f"lost: {loss}" for loss in found["lost"]]
    if found["running"] and not found["ended"]:
        lines.append("longest without an answer:")
        for task in found["running"]:
            more = f" and {task['together'] - 1} more" if task["together"] > 1 else ""
            waited = f"{now - task['since']:,.1f} s"
            lines.append(f"  rank {task['worker']}: {waited}, task {task['task']} {task['name']}{more}")
    return "\n".join(lines)


class StatusFile:
    """Keeps a file up to date with the progress of a run: an observer of the master.

    Each update replaces the file atomically. The run continues if the file cannot be written.

    Parameters
    ----------
    path : str
        The file.
    master : Master
        The master of the run.
    pace : Pace
        How fast tasks end.

    Attributes
    ----------
    explanations : dict of str to str
        Why a task waits, by the number of the request.
    """

    def __init__(self, path: str, master: "Master", pace: "Pace") -> None:
        self.explanations: dict[str, str] = {}
        self._path = path
        self._master = master
        self._pace = pace
        self._began = time.time()
        self._next = 0.0
        self._failed = False
        self._write(ended=False)

    def __call__(self, now: float) -> None:
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write the state now."""
        self._write(ended=False)

    def close(self) -> None:
        """Write the final state; later calls change nothing."""
        self._write(ended=True)
        self._next = math.inf

    def _write(self, ended: bool) -> None:
        self._next = time.monotonic() + EVERY
        found = {
            **snapshot(self._master, self._began, self._pace),
            "explanations": self.explanations,
            "ended": ended,
        }
        try:
            write_json(self._path, found, is_status)
        except OSError as error:
            if not self._failed:
                say(f"the status file {self._path!r} cannot be written: {error.strerror or error}")
            self._failed = True


def read(path: str) -> dict[str, Any]:
    """Read the snapshot in a status file.

    Raises
    ------
    UsageError
        There is no such file, or it is not a status file.
    """
    try:
        with open(path) as file:
            found = json.load(file)
        if found["taskfarm"] != 1:
            raise ValueError
    except OSError as error:
        raise UsageError(
            f"cannot read {path!r}: {error.strerror}; `run --status FILE` writes one"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path!r} is not a status file: `run --status FILE` writes one") from error
    return found  # type: ignore[no-any-return]


def is_status(path: str) -> bool:
    """Whether a file is a status file."""
    try:
        read(path)
    except UsageError:
        return False
    return True


def top(path: str, once: bool, show: Callable[[str], object] = print) -> int:
    """Show a status file every second until its run has ended, or until Ctrl-C.

    Raises
    ------
    UsageError
        There is no such file, or it is not a status file.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = read(path)
            text = render(found, time.time())
            show(text if once else f"\x1b[2J\x1b[H{text}")
            if once or found["ended"]:
                break
            time.sleep(EVERY)
    return 0
