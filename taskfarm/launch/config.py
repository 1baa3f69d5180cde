"""The configuration of a run, from the command line. Plain values."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from taskfarm.schedule.offers import Offer

GRACE = 20.0
"""Seconds that running tasks get once the run has to end."""

OUTPUT_FOLDER = "taskfarm-output"
"""The folder of ``--output files``."""


class RunConfig(NamedTuple):
    """How to run a job.

    Attributes
    ----------
    task_options : mapping of str to object
        Options of tasks, as of `taskfarm.schedule.policy.Policy`, if their decorators do not set them.
    max_kills : int or None
        Workers that may die with a task before it fails; None: the scheduler's default.
    journal : str or None
        The file that keeps outcomes.
    joblog : str
        The log of the commands of ``shell``; empty if there is none.
    resume : bool
        Whether the journal, or that log, may exist already.
    walltime : float or None
        Seconds after which the run must have ended.
    grace : float
        Seconds that running tasks get before that, or after a signal.
    lost_after : float or None
        Seconds of silence after which a worker is given up; None: it depends on what the worker does.
    start_limit : float or None
        Seconds within which a worker must become ready; None: the failure detector's default.
    fail_on_loss : bool
        Whether a run that lost workers ends with an exit code of its own instead of the job's 0.
    fail_on_unseen : bool
        Whether a run with failures that the job has not looked at ends with an exit code of its own instead
        of the job's 0.
    output : {"tag", "plain", "files", "drop"}
        Where the output of tasks goes.
    threads : int or None
        Threads that numerical libraries start in a worker; None: its share of the cores.
    gpus : int or None
        Devices of each host, of which each worker sees one; None: devices are left alone.
    resources : sequence of Offer
        What tasks may need.
    seed : int or None
        The seed of the random numbers of tasks; None: a random one.
    progress : {"auto", "on", "off"}
        Bars on a terminal and lines elsewhere, lines with a last one, or neither.
    summary : {"table", "json", "off"}
        How rank 0 sums up the run at its end.
    status : str or None
        The file that shows others how far the run is.
    report : str or None
        The page that shows how the run went.
    trace : str or None
        The file of trace events.
    argv : sequence of str
        The command line, from ``run`` on.
    """

    task_options: Mapping[str, Any] = {}
    max_kills: int | None = None
    journal: str | None = None
    joblog: str = ""
    resume: bool = False
    walltime: float | None = None
    grace: float = GRACE
    lost_after: float | None = None
    start_limit: float | None = None
    fail_on_loss: bool = False
    fail_on_unseen: bool = False
    output: str = "plain"
    threads: int | None = None
    gpus: int | None = None
    resources: "Sequence[Offer]" = ()
    seed: int | None = None
    progress: str = "off"
    summary: str = "off"
    status: str | None = None
    report: str | None = None
    trace: str | None = None
    argv: Sequence[str] = ()
