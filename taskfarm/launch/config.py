"""What the command line says of a run. Plain values."""

from collections.abc import Sequence
from typing import NamedTuple

from taskfarm.schedule.attempts import MAX_KILLS
from taskfarm.schedule.heartbeats import START_LIMIT
from taskfarm.schedule.policy import Policy

GRACE = 20.0
"""Seconds that running tasks get, once the run has to end."""


class Plan(NamedTuple):
    """How a job is run.

    Attributes
    ----------
    policy : Policy
        What holds where a task does not say otherwise.
    max_kills : int
        Workers that may die with a task before it fails.
    journal : str or None
        Where outcomes are kept.
    resume : bool
        Whether the journal may be there already.
    walltime : float or None
        Seconds after which the run must have ended.
    grace : float
        Seconds that running tasks get before that, or after a signal.
    lost_after : float or None
        Seconds of silence after which a worker is given up; None: it depends on what it does.
    start_limit : float
        Seconds that a worker has to become ready.
    fail_on_loss : bool
        Whether a run that lost workers ends with another exit code than the job's 0.
    progress : {"auto", "on", "off"}
        Bars on a terminal and lines elsewhere, lines with a last one, or neither.
    summary : {"table", "json", "off"}
        How rank 0 tells at the end what was done.
    output : {"tag", "plain", "files", "drop"}
        Where what tasks print goes.
    status : str or None
        A file that tells others how far the run is.
    report : str or None
        A page that shows at the end how the run went.
    trace : str or None
        A file of trace events.
    threads : int or None
        Threads that numerical libraries start in a worker; None: its share of the cores.
    gpus : int or None
        Devices of each host, of which each worker sees one; None: nothing is said about them.
    seed : int or None
        What the random numbers of tasks depend on; None: a random one.
    words : sequence of str
        The command line, from ``run`` on.
    """

    policy: Policy = Policy()
    max_kills: int = MAX_KILLS
    journal: str | None = None
    resume: bool = False
    walltime: float | None = None
    grace: float = GRACE
    lost_after: float | None = None
    start_limit: float = START_LIMIT
    fail_on_loss: bool = False
    progress: str = "off"
    summary: str = "off"
    output: str = "plain"
    status: str | None = None
    report: str | None = None
    trace: str | None = None
    threads: int | None = None
    gpus: int | None = None
    seed: int | None = None
    words: Sequence[str] = ()
