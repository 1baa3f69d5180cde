"""The mpiexec that belongs to the MPI that mpi4py loads, and what is wrong with a launch."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from taskfarm import __version__
from taskfarm.environment import claimed_rank, claimed_size
from taskfarm.errors import LaunchError
from taskfarm.launch import placement

SHOWN = 64
"""Ranks that `info` lists."""


def family(text: str) -> str | None:
    """The MPI that a version text speaks of: ``"mpich"``, ``"openmpi"``, or None."""
    lower = text.lower()
    if any(word in lower for word in ("open mpi", "openrte", "prrte", "prterun")):
        return "openmpi"
    if any(word in lower for word in ("mpich", "hydra", "intel")):
        return "mpich"
    return None


def loaded_library() -> str:
    """Version text of the MPI library that mpi4py loads, asked without starting MPI.

    Raises
    ------
    LaunchError
        It finds none.
    """
    code = (
        "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
        "print(MPI.Get_library_version())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LaunchError(
            f"mpi4py cannot load an MPI library ({last}): install one beside it, for instance "
            "`pip install mpich`, or load your cluster's MPI module"
        )
    return done.stdout.strip()


LAUNCHERS = ("mpiexec", "mpiexec.hydra", "mpirun", "mpiexec.openmpi", "mpiexec.mpich")
"""Names to look for on PATH; the last two are Debian's, where several MPIs are installed."""


def find_mpiexec(library: str) -> str:
    """Path of an mpiexec of the same MPI as `library`, looked for beside Python, then on PATH.

    Raises
    ------
    LaunchError
        There is none.
    """
    wanted = family(library)
    beside = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    found = [beside] if os.path.exists(beside) else []
    found += filter(None, (shutil.which(name) for name in LAUNCHERS))
    for path in found:
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if family(done.stdout + done.stderr) == wanted:
            return path
    raise LaunchError(
        f"found no mpiexec of {library.splitlines()[0][:40].strip()}, which mpi4py loads; put its "
        f"folder on PATH{' (found others: ' + ', '.join(found) + ')' if found else ''}"
    )


def without_ranks(argv: Sequence[str]) -> list[str]:
    """The arguments of ``run`` without its ``-n N``."""
    words = list(argv)
    for at, word in enumerate(words):
        if word in ("-n", "-np"):
            return words[:at] + words[at + 2 :]
        if word.startswith("-n"):
            return words[:at] + words[at + 1 :]
    return words


def start(ranks: int, argv: Sequence[str], survive: bool = False) -> NoReturn:
    """Become mpiexec with `ranks` ranks of ``python -m taskfarm ARGV``.

    Raises
    ------
    LaunchError
        There is no such mpiexec, or the ranks are to `survive` each other and this MPI cannot do that.
    """
    library = loaded_library()
    mpiexec = find_mpiexec(library)
    tolerant = ["--with-ft", "ulfm"] if survive else []
    if survive and (family(library) != "openmpi" or "Open MPI v4" in library):
        raise LaunchError(
            "--survive wants Open MPI 5, and mpi4py loads another MPI, under which all ranks end with "
            "the first: keep a --journal, and go on with --resume"
        )
    environ = dict(os.environ)
    if family(library) == "openmpi":
        # Asked for by name: more ranks than cores, and whoever runs Python here runs mpiexec too.
        environ.setdefault("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        environ.setdefault("OMPI_MCA_rmaps_base_oversubscribe", "1")  # the same, for Open MPI 4
        environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    sys.stdout.flush()
    command = [mpiexec, *tolerant, "-n", str(ranks), sys.executable, "-m", "taskfarm", *argv]
    os.execve(mpiexec, command, environ)


def info() -> int:
    """Print which MPI there is, how many ranks on which hosts, and what is wrong, in words."""
    from taskfarm.transport import mpi

    claimed, size = claimed_size(os.environ), mpi.num_ranks()
    places = mpi.allgather((socket.gethostname(), placement.cores(), placement.seen_devices(os.environ)))
    hosts = [host for host, _, _ in places]
    if claimed_rank(os.environ):
        return 0
    trouble = []
    if size == 1 and (claimed or 1) > 1:
        trouble.append(
            f"the launcher started {claimed} processes, but each is alone in its MPI: mpiexec and "
            "mpi4py belong to different MPIs; start with `python -m taskfarm run -n N`"
        )
    try:
        mpiexec = find_mpiexec(mpi.library())
    except LaunchError as error:
        mpiexec = "none"
        trouble.append(str(error))
    counts = {host: hosts.count(host) for host in dict.fromkeys(hosts)}
    print(f"taskfarm  {__version__} on Python {sys.version.split()[0]}")
    print(f"MPI       {mpi.library()[:70]}")
    print(f"threads   {mpi.thread_level()}")
    print(f"mpiexec   {mpiexec}")
    survives = "the others go on" if mpi.survives() else "all ranks end; a --journal keeps what is done"
    print(f"death     if a rank dies, {survives}")
    print(f"ranks     {size}: " + ", ".join(f"{n} on {host}" for host, n in counts.items()))
    for rank, (host, cores, devices) in enumerate(places[:SHOWN]):
        print(f"rank {rank:<5}{host}, {cores} cores, devices: {devices}")
    if size > SHOWN:
        print(f"          and {size - SHOWN} ranks more")
    if mpi.thread_level() in ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED"):
        trouble.append("MPI grants no calls from a second thread: only a waiting job keeps the farm going")
    if size == 1 and not trouble:
        print("note      one rank: tasks would run one after the other in this process")
    print("trouble   " + ("; ".join(trouble) if trouble else "none"))
    return 2 if trouble else 0
