"""The MPI launcher, from its environment variables and its process. Does not load MPI."""

import contextlib
import os
from collections.abc import Mapping, MutableMapping
from stat import S_ISFIFO, S_ISSOCK
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

PACKAGE = os.path.dirname(__file__) + os.sep
"""The directory of taskfarm's own code, whose frames tracebacks fold."""


def current_folder() -> str:
    """The current folder; empty if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "MV2_COMM_WORLD_SIZE")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID", "MV2_COMM_WORLD_RANK")

LOCAL_SIZES = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
)

FAULT_TOLERANCE = "OMPI_MCA_mpi_ft_enable"
"""Variable that ``mpiexec --with-ft ulfm`` of Open MPI sets for its ranks."""


CONNECTION = (
    *("PMI_FD", "PMI_PORT", "PMI_ID", "PMI_SPAWNED", "PMI2_", "HYDI_CONTROL_FD"),
    *("PMIX_", "PRTE_LAUNCHED", "OMPI_FILE_LOCATION", "OMPI_MCA_num_procs"),
    FAULT_TOLERANCE,
)
"""Prefixes of the variables by which a process finds its launcher."""


def forget_launcher(environ: MutableMapping[str, str]) -> None:
    """Remove what would make the processes that this rank starts take themselves for ranks.

    The variables that say which rank this is, also on its host, are kept: tasks choose devices by them.
    """
    for name in list(environ):
        if name.startswith(CONNECTION) or name in SIZES:
            del environ[name]


OF_A_RANK = (
    *(
        "PMI_",
        "PMI2_",
        "PMIX_",
        "HYDI_",
        "MPI_LOCAL",
        "MV2_COMM_",
        "OMPI_COMM_",
        "OMPI_UNIVERSE_",
        "OMPI_APP_",
    ),
    *("OMPI_ARGV", "OMPI_COMMAND", "OMPI_FIRST_RANKS", "OMPI_NUM_APP", "OMPI_MCA_orte_", "OMPI_MCA_ess_"),
    *("PRTE_LAUNCHED", "SLURM_STEP", "SLURM_SRUN_", "SLURM_LAUNCH_NODE_", "SLURM_PMI", "SLURM_GTIDS"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_TASK_PID", "SLURM_NODEID"),
)
"""Prefixes of the variables that a launcher sets for a rank, and a batch script does not have."""


def leave_launcher(environ: MutableMapping[str, str]) -> None:
    """Remove all by which a program takes itself for a rank, also what says which rank this is."""
    forget_launcher(environ)
    for name in list(environ):
        if name.startswith(OF_A_RANK) or name in RANKS:
            del environ[name]


BATCH_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
"""Variables of batch jobs, by which a launcher takes the hosts of the job for its own."""

HERE = {
    "HYDRA_LAUNCHER": "fork",
    "HYDRA_RMK": "user",
    "PRTE_MCA_ras": "^slurm,tm,pbs,lsf,pals,gridengine",
    "PRTE_MCA_plm": "^slurm,tm,pbs,lsf,pals",
}
"""What lets the mpiexec of MPICH and of Open MPI start processes on its own host."""


def start_programs_here(environ: MutableMapping[str, str]) -> None:
    """Let an mpiexec that a task starts stay on its host: the job's other hosts have workers of their own.

    Otherwise it waits for room on them, without end. What the user has set counts.
    """
    if any(name in environ for name in BATCH_JOBS):
        for name, value in HERE.items():
            environ.setdefault(name, value)


def inheritable_descriptors() -> list[int]:
    """The descriptors that programs started from here would inherit, beside the standard streams."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                # Python's own descriptors are not inheritable.
                if descriptor > 2 and os.get_inheritable(descriptor):
                    found.append(descriptor)
    return found


def launcher_descriptors() -> list[int]:
    """Pipes and sockets that this process has inherited, beside the standard streams.

    A launcher leaves them to its ranks, and waits until nobody has them open any more.
    """
    found = []
    for descriptor in inheritable_descriptors():
        with contextlib.suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if S_ISFIFO(mode) or S_ISSOCK(mode):
                found.append(descriptor)
    return found


def fault_tolerant(environ: Mapping[str, str]) -> bool:
    """Whether, according to the launcher, the other ranks continue when one dies."""
    return environ.get(FAULT_TOLERANCE, "").lower() in ("1", "true")


def seconds_since_start() -> float:
    """Seconds since this process started; 0 if the system does not say."""
    try:
        started = int(process_stat(os.getpid())[1][19]) / os.sysconf("SC_CLK_TCK")
        with open("/proc/uptime") as uptime:
            return max(0.0, float(uptime.read().split()[0]) - started)
    except (OSError, ValueError, IndexError):
        return 0.0


MPIEXECS = ("prterun", "mpiexec", "mpirun", "orterun")
"""Names of the programs that start ranks."""


def end_later(pid: int, seconds: float, line: str = "") -> "subprocess.Popen[bytes] | None":
    """Start a shell that kills a process after some seconds, if it has not ended by then.

    A thread of this process could not do that while a call into MPI holds the interpreter.

    Parameters
    ----------
    pid : int
        Id of the process.
    seconds : float
        Time until the process is killed.
    line : str
        Message to print on standard error before the kill.

    Returns
    -------
    subprocess.Popen or None
        The shell; None if the start time of the process cannot be read.
    """
    import shlex
    import subprocess

    try:
        # The start time distinguishes it from another process that gets the same id later.
        started = process_stat(pid)[1][19]
    except OSError:
        return None
    same = f'case "$(cat /proc/{pid}/stat 2>/dev/null)" in *" {started} "*) ;; *) exit;; esac'
    rounds = max(1, round(seconds))
    wait = f"i=0; while [ $i -lt {rounds} ]; do sleep 1 2>/dev/null; {same}; i=$((i+1)); done"
    report = f"echo {shlex.quote(line)} >&2; " if line else ""
    return subprocess.Popen(
        ["/bin/sh", "-c", f"{wait}; {report}kill -9 {pid}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if line else subprocess.DEVNULL,
        start_new_session=True,
    )


def end_mpiexec_later(seconds: float) -> None:
    """Kill the mpiexec that started this process, if it is still running after some seconds."""
    if parent := mpiexec_process():
        end_later(parent, seconds)


def mpiexec_process() -> int:
    """Return the id of the mpiexec that started this process; 0 if something else did."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        if process_stat(parent)[0] in MPIEXECS:
            return parent
    return 0


def process_stat(pid: int) -> tuple[str, list[str]]:
    """Return the name of a process and the fields of its ``/proc`` stat file from its state on."""
    with open(f"/proc/{pid}/stat") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(") ")
    return name, rest.split()


def private_memory(pid: int) -> int:
    """Memory that a process does not share with others, in bytes; 0 if the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _number(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None


def claimed_size(environ: Mapping[str, str]) -> int | None:
    """Return the number of processes according to the launcher; None if there is no launcher.

    ``SLURM_NTASKS`` alone does not count: a batch script, which is one process, has it too.
    """
    return _number(environ, SIZES)


def claimed_local_size(environ: Mapping[str, str]) -> int:
    """Return the number of ranks on this host according to the launcher; by default, all ranks."""
    for name in LOCAL_SIZES:
        # Slurm writes 4(x2) for four ranks on each of two hosts.
        number = environ.get(name, "").partition("(")[0].partition(",")[0]
        if number.isdecimal():
            return int(number)
    return claimed_size(environ) or 1


def claimed_rank(environ: Mapping[str, str]) -> int:
    """Return this process's rank according to the launcher; 0 if there is no launcher."""
    if claimed_size(environ) is None:
        return 0
    return _number(environ, RANKS) or 0


HANDED_WORDS = "TASKFARM_WORDS"
"""Variable that hands words of the command line on to all ranks, see `taskfarm.launch.handed_words`."""

STREAMS = "TASKFARM_STREAMS"
"""Variable that hands standard streams on to rank 0, see `taskfarm.launch.standard_streams`.

Its words are host, process id and start time of mpiexec, and ``STREAM=DESCRIPTOR`` for each stream.
"""


def streams(given: str) -> list[tuple[int, int]]:
    """Number and duplicated descriptor of each stream that was handed on."""
    pairs = (word.split("=") for word in given.split()[3:])
    return [(int(number), int(descriptor)) for number, descriptor in pairs]


def drop_streams(environ: MutableMapping[str, str]) -> None:
    """Close what was handed on to rank 0, on a worker: what its tasks start must not keep it open."""
    given = environ.pop(STREAMS, None)
    for _, descriptor in streams(given) if given else ():
        with contextlib.suppress(OSError):
            os.close(descriptor)
