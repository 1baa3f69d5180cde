"""The launcher as this process sees it, and what it says in environment variables. No MPI is loaded."""

import os
import signal
from collections.abc import Mapping

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "MV2_COMM_WORLD_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "MV2_COMM_WORLD_RANK")

FAULT_TOLERANCE = "OMPI_MCA_mpi_ft_enable"
"""What ``mpiexec --with-ft ulfm`` of Open MPI sets for its ranks."""


def fault_tolerant(environ: Mapping[str, str]) -> bool:
    """Whether the launcher says that the others go on when a rank dies."""
    return environ.get(FAULT_TOLERANCE, "").lower() in ("1", "true")


MPIEXECS = ("prterun", "mpiexec", "mpirun", "orterun")


def kill_mpiexec() -> bool:
    """End the mpiexec that started this process by force; False where another program started it."""
    try:
        with open(f"/proc/{os.getppid()}/comm") as file:
            if file.read().strip() not in MPIEXECS:
                return False
        os.kill(os.getppid(), signal.SIGKILL)
    except OSError:
        return False
    return True


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


def claimed_rank(environ: Mapping[str, str]) -> int:
    """Rank that the launcher gave this process; 0 if no launcher did."""
    return _number(environ, RANKS) or 0 if claimed_size(environ) is not None else 0
