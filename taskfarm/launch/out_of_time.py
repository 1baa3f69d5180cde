"""Ends a run early in which nothing would end before the walltime."""

import time
from typing import TYPE_CHECKING

from taskfarm.launch.signals import Signals
from taskfarm.schedule.amounts import shown_seconds
from taskfarm.schedule.walltime import Walltime
from taskfarm.worker.context import RUN

if TYPE_CHECKING:
    from taskfarm.master.master import Master

RESERVE = 0.1
"""Share of the grace that is left for results to travel, and for the run to end."""


WHOLE = 0.9
"""A task that has run for this share of the walltime without an end has had all of it."""


def endless_line(master: "Master", walltime: float, again: bool) -> str:
    """Why another run with this walltime would get no further; empty if it might.

    That is so if no task has ended, and those that were cut short have had all the time. If it happens
    `again`, it is an error: otherwise a job script would repeat it for ever.
    """
    now, counts = master.clock.now(), master.scheduler.counts()
    journal = master.outstanding.journal
    running = [(span, now - since) for _, span, since in master.scheduler.running()]
    if not running or counts.done + counts.failed > (journal.restored if journal is not None else 0):
        return ""
    span, seconds = max(running, key=lambda one: one[1])
    if seconds < WHOLE * walltime:
        return ""
    name = master.outstanding.pending.function_of(span).name
    return (
        f"task {span.first} {name} ran for {shown_seconds(seconds)} and did not end, nor did any other, so "
        f"another run would get no further{' and this is an error' if again else ''}: raise --walltime, or "
        "make the task shorter"
    )


def watch_walltime(master: "Master", grace: float, caught: Signals) -> None:
    """Let no task start that would not end in time, and end the run when there are only such.

    Parameters
    ----------
    master : Master
        The master of the run.
    grace : float
        Seconds that tasks get at the end of the walltime.
    caught : Signals
        What ends the run, and knows when the walltime is up.
    """
    assert caught.walltime_ends is not None
    # In one process tasks run here.
    RUN.ends = caught.walltime_ends
    left = caught.walltime_ends - time.monotonic() - RESERVE * grace
    ends = master.clock.now() + left
    master.scheduler.walltime = Walltime(ends)

    def observe(now: float) -> None:
        if caught.drained is not None or not master.main_thread_waits:
            return
        if late := master.scheduler.num_late(now):
            late += master.undrawn
            tasks = "the task that is left would not" if late == 1 else f"none of {late:,} tasks left would"
            caught.end_early(f"{tasks} end in the {shown_seconds(ends - now)} that are left")

    master.observers.append(observe)
