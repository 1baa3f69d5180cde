"""Rank to role: rank 0 runs the job, the others are workers; and every way in which a run ends."""

import contextlib
import os
import signal
import sys
import time
import traceback
from typing import NoReturn

from taskfarm import farm
from taskfarm.environment import claimed_size
from taskfarm.errors import LaunchError
from taskfarm.failures import user_frames
from taskfarm.home import home
from taskfarm.master import Master
from taskfarm.progress import Bar, Lines
from taskfarm.script import Script
from taskfarm.transport import Transport
from taskfarm.worker import Worker

GRACE = 2.0
"""Seconds that running tasks get after the job has failed, before all ranks are ended."""

GOODBYE = 60.0
"""Seconds within which every worker must have taken the poison pill."""

FORWARDED = 0.1
"""Seconds that the launcher gets to pass on what was printed: in an abort it may drop the rest."""

INTERRUPTED = 130
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came: from a batch system, or from Open MPI's mpiexec after Ctrl-C."""


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def ranks() -> int:
    """Start MPI; how many ranks there are.

    Raises
    ------
    LaunchError
        The launcher started several processes, but MPI knows of one: they belong to different MPIs.
    """
    try:
        from taskfarm import mpi
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"mpi4py finds no MPI library ({error}): install one beside it, for instance "
            "`pip install mpich`, or load your cluster's MPI module"
        ) from error
    size, claimed = mpi.ranks(), claimed_size(os.environ) or 1
    if size == 1 < claimed:
        raise LaunchError(
            f"the launcher started {claimed} processes, but each of them is alone in its MPI: "
            f"mpiexec (or srun --mpi=...) belongs to another MPI than mpi4py, which loads "
            f"{mpi.library()[:40].strip()}. Start with `python -m taskfarm run -n {claimed} ...`, "
            "which finds the right mpiexec, or with `srun --mpi=pmi2` (MPICH) or `--mpi=pmix` "
            "(Open MPI); `python -m taskfarm info` says more"
        )
    return size


def connect() -> Transport | None:
    """Start MPI; None if there is only one rank. Raises what `ranks` does."""
    if ranks() == 1:
        return None
    from taskfarm import mpi

    return mpi.MpiTransport(mpi.world())


def run(script: Script, observer: Bar | Lines | None) -> int:
    """Play this rank's role in a run of `script`.

    Parameters
    ----------
    script : Script
        The job.
    observer : Bar, Lines or None
        What shows the progress on rank 0.

    Returns
    -------
    int
        The exit code of this rank.
    """
    transport = connect()
    if transport is not None and transport.rank:
        return _work(transport, script)
    signal.signal(signal.SIGTERM, _terminate)
    if observer is not None:
        home.observe(observer)
    if transport is None:
        return _run_job(script, observer)
    master = Master(transport)
    home.install(master)
    code = _run_job(script, observer)
    _end(master, code)
    return code


def _work(transport: Transport, script: Script) -> int:
    """Serve as a worker; what goes wrong here outside of tasks ends all ranks."""
    # Ctrl-C reaches every rank; rank 0 decides. A handler, unlike SIG_IGN, is not inherited by exec.
    signal.signal(signal.SIGINT, lambda *_: None)
    script.prepare_path()
    try:
        Worker(transport).serve()
        transport.close()
    except BaseException:
        traceback.print_exc()
        _abort(transport, 1)
    return 0


def _run_job(script: Script, observer: Bar | Lines | None) -> int:
    """Run the job and finish what it submitted; its exit code, with what it raised printed."""
    raised: BaseException | None = None
    try:
        script.run()
        farm.close_all()
    except BaseException as error:
        raised = error
    if observer is not None:
        observer.close()
    return 0 if raised is None else _exit_code(raised)


def _exit_code(raised: BaseException) -> int:
    """The code that Python itself would exit with, after saying why as Python does."""
    if isinstance(raised, KeyboardInterrupt):
        terminated = isinstance(raised, Terminated)
        _last_word(f"taskfarm: interrupted; all ranks end{' (SIGTERM)' if terminated else ''}", terminated)
        return TERMINATED if terminated else INTERRUPTED
    if not isinstance(raised, SystemExit):
        raised.__traceback__ = user_frames(raised.__traceback__)
        traceback.print_exception(raised)
        return 1
    if raised.code is None:
        return 0
    if isinstance(raised.code, int):
        return raised.code & 0xFF
    print(raised.code, file=sys.stderr)
    return 1


def _last_word(line: str, terminated: bool) -> None:
    """Print a line on standard error, though the launcher may have closed it."""
    if terminated and "OMPI_COMM_WORLD_RANK" in os.environ:
        # mpiexec of Open MPI drops what its ranks print from Ctrl-C on; its own stderr is open.
        with contextlib.suppress(OSError), open(f"/proc/{os.getppid()}/fd/2", "a") as stderr:
            print(line, file=stderr)
            return
    print(line, file=sys.stderr, flush=True)


def _end(master: Master, code: int) -> None:
    """End the workers: with the poison pill where they are free to take it, else at once."""
    transport = master.transport
    if code == TERMINATED and "OMPI_COMM_WORLD_RANK" in os.environ:
        # Its launcher is ending all ranks, or does so when it finds this one gone; Abort adds a page.
        os._exit(code)
    try:
        if code:
            master.cancel_all()
            deadline = master.deadline(0.0 if code in (INTERRUPTED, TERMINATED) else GRACE)
            done = master.drive(lambda: not master.scheduler.unfinished, deadline)
        else:
            done = master.drive(lambda: not master.scheduler.unfinished)
        if done and master.stop(GOODBYE):
            home.install(None)
            transport.close()
            return
    except BaseException as error:
        code = code or _exit_code(error)
    _abort(transport, code or 1)


def _abort(transport: Transport, code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(FORWARDED)
    transport.abort(code)
    os._exit(code)
