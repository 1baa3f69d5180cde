"""The launcher as this process sees it, and what it says in environment variables. No MPI is loaded."""

import contextlib
import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

PACKAGE = os.path.dirname(__file__) + os.sep
"""The folder of taskfarm's own code: tracebacks fold it."""

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "MV2_COMM_WORLD_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "MV2_COMM_WORLD_RANK")

NEIGHBOURS = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
)

FAULT_TOLERANCE = "OMPI_MCA_mpi_ft_enable"
"""What ``mpiexec --with-ft ulfm`` of Open MPI sets for its ranks."""


def fault_tolerant(environ: Mapping[str, str]) -> bool:
    """Whether the launcher says that the others go on when a rank dies."""
    return environ.get(FAULT_TOLERANCE, "").lower() in ("1", "true")


MPIEXECS = ("prterun", "mpiexec", "mpirun", "orterun")
"""Names of the programs that start ranks."""


def end_later(pid: int, seconds: float, line: str = "") -> "subprocess.Popen[bytes] | None":
    """Start a shell that ends a process by force after so many seconds, if it has not ended by then.

    It works though no thread of this process can: a call into MPI may hold the interpreter.

    Parameters
    ----------
    pid : int
        The process.
    seconds : float
        When.
    line : str
        What to print on standard error before.

    Returns
    -------
    subprocess.Popen or None
        The shell; None where processes cannot be told from one another.
    """
    import subprocess

    try:
        # The time of its start tells it from another process that gets its number later.
        started = process_stat(pid)[1][19]
    except OSError:
        return None
    same = f'case "$(cat /proc/{pid}/stat 2>/dev/null)" in *" {started} "*) ;; *) exit;; esac'
    rounds = max(1, round(seconds))
    wait = f"i=0; while [ $i -lt {rounds} ]; do sleep 1; {same}; i=$((i+1)); done"
    say = f"echo {shlex.quote(line)} >&2; " if line else ""
    return subprocess.Popen(
        ["/bin/sh", "-c", f"{wait}; {say}kill -9 {pid}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if line else subprocess.DEVNULL,
        start_new_session=True,
    )


def end_mpiexec_later(seconds: float) -> None:
    """See that the mpiexec that started this process does not outlive it by more than so many seconds."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        if process_stat(parent)[0] in MPIEXECS:
            end_later(parent, seconds)


def process_stat(pid: int) -> tuple[str, list[str]]:
    """Name of a process, and what Linux says of it from its state on."""
    with open(f"/proc/{pid}/stat") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(") ")
    return name, rest.split()


def _number(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None


def claimed_size(environ: Mapping[str, str]) -> int | None:
    """Processes that the launcher says it started; None if no launcher did.

    ``SLURM_NTASKS`` alone does not count: a batch script has it too, with one process.
    """
    return _number(environ, SIZES)


def claimed_neighbours(environ: Mapping[str, str]) -> int:
    """Ranks on this host, as the launcher says; all of them if it says nothing of hosts."""
    for name in NEIGHBOURS:
        # Slurm writes 4(x2) for four on each of two hosts.
        if (number := environ.get(name, "").partition("(")[0].partition(",")[0]).isdecimal():
            return int(number)
    return claimed_size(environ) or 1


def claimed_rank(environ: Mapping[str, str]) -> int:
    """Rank that the launcher gave this process; 0 if no launcher did."""
    return _number(environ, RANKS) or 0 if claimed_size(environ) is not None else 0
