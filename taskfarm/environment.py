"""What a launcher says of this process in its environment variables. Pure; no MPI is loaded."""

from collections.abc import Mapping

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "MV2_COMM_WORLD_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "MV2_COMM_WORLD_RANK")

FAULT_TOLERANCE = "OMPI_MCA_mpi_ft_enable"
"""What ``mpiexec --with-ft ulfm`` of Open MPI sets for its ranks."""


def fault_tolerant(environ: Mapping[str, str]) -> bool:
    """Whether the launcher says that the others go on when a rank dies."""
    return environ.get(FAULT_TOLERANCE, "").lower() in ("1", "true")


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
