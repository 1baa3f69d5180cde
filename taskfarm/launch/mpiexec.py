"""Finds and starts the mpiexec of the MPI that mpi4py loads."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

from taskfarm.console import flush
from taskfarm.environment import STREAMS
from taskfarm.errors import LaunchError
from taskfarm.launch import handed_words
from taskfarm.launch.standard_streams import hand_on


def family(text: str) -> str | None:
    """Return the MPI that a version text names: ``"mpich"``, ``"openmpi"``, or None."""
    lower = text.lower()
    if any(word in lower for word in ("open mpi", "openrte", "prrte", "prterun")):
        return "openmpi"
    if any(word in lower for word in ("mpich", "hydra", "intel")):
        return "mpich"
    return None


def loaded_library() -> str:
    """Return the version text of the MPI library that mpi4py loads, without starting MPI here.

    Raises
    ------
    LaunchError
        mpi4py finds no MPI library.
    """
    code = (
        "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
        "print(MPI.Get_library_version())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LaunchError(
            f"mpi4py cannot load an MPI library ({last}): install one beside it, for instance "
            "`pip install mpich`, or load your cluster's MPI module"
        )
    return done.stdout.strip()


MPIEXEC_NAMES = ("mpiexec", "mpiexec.hydra", "mpirun", "mpiexec.openmpi", "mpiexec.mpich")
"""Names to look for on PATH; Debian uses the last two if several MPIs are installed."""


def find_mpiexec(library: str) -> str:
    """Return the path of an mpiexec of the same MPI as `library`, from beside Python or from PATH.

    Raises
    ------
    LaunchError
        There is no such mpiexec.
    """
    wanted = family(library)
    beside = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    found = [beside] if os.path.exists(beside) else []
    found += filter(None, (shutil.which(name) for name in MPIEXEC_NAMES))
    for path in found:
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if family(done.stdout + done.stderr) == wanted:
            return path
    others = f" (found others: {', '.join(found)})" if found else ""
    raise LaunchError(
        f"found no mpiexec of {library.splitlines()[0][:40].strip()}, which mpi4py loads; put its "
        f"folder on PATH{others}"
    )


SHIELD = (
    "/bin/sh",
    "-c",
    'trap "" INT; env --block-signal=INT true 2>/dev/null && '
    'exec env --default-signal=INT --block-signal=INT "$@"; exec "$@"',
    "sh",
)
"""Starts a program in which Ctrl-C waits until `EarlyInterrupt` handles it, or without GNU's env is lost.

If Ctrl-C ended a rank while Python starts, the others would wait in MPI_Init for ever, under MPICH.
"""


def interpreter_options() -> list[str]:
    """The options that this Python was started with, such as ``-O`` and ``-W error``, before its ``-m``."""
    words = sys.orig_argv[1:]
    if "-m" in words:
        options = words[: words.index("-m")]
        if all(word.startswith("-") or before in ("-W", "-X") for before, word in pairwise(["", *options])):
            return options
    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]


def start(ranks: int, argv: Sequence[str], survive: bool = False) -> NoReturn:
    """Replace this process by mpiexec with `ranks` ranks of ``python -m taskfarm ARGV``.

    Raises
    ------
    LaunchError
        There is no such mpiexec, or `survive` is true and this MPI ends all ranks when one dies.
    """
    library = loaded_library()
    mpiexec = find_mpiexec(library)
    tolerant = ["--with-ft", "ulfm"] if survive else []
    if survive and (family(library) != "openmpi" or "Open MPI v4" in library):
        raise LaunchError(
            "--survive needs Open MPI 5, but mpi4py loads another MPI, under which all ranks end when one "
            "dies: keep a --journal, and continue with --resume"
        )
    environ = dict(os.environ)
    if family(library) == "openmpi":
        # The user asked for this number of ranks, even if there are fewer cores, and may be root.
        environ.setdefault("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        environ.setdefault("OMPI_MCA_rmaps_base_oversubscribe", "1")  # Open MPI 4
        environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    flush()
    hand_on(environ, mpich=family(library) == "mpich")
    names = [STREAMS] if STREAMS in environ else []
    if not handed_words.passes(argv):
        names += handed_words.hand_on(argv, environ)
        argv = []
    forwarded = [word for name in names for word in ("-x", name)] if family(library) == "openmpi" else []
    shield = SHIELD if family(library) == "mpich" else ()
    python = [sys.executable, *interpreter_options(), "-m", "taskfarm", *argv]
    command = [mpiexec, *tolerant, *forwarded, "-n", str(ranks), *shield, *python]
    os.execve(mpiexec, command, environ)
