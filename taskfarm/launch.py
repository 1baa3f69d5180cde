"""Rank to role: rank 0 runs the job, the others are workers; and every way in which a run ends."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from taskfarm import farm
from taskfarm.environment import claimed_size
from taskfarm.errors import LaunchError
from taskfarm.failures import user_frames
from taskfarm.master import Master
from taskfarm.script import Script
from taskfarm.transport import Transport
from taskfarm.worker import Worker

GRACE = 2.0
"""Seconds that running tasks get after the job has failed, before all ranks are ended."""

GOODBYE = 60.0
"""Seconds within which every worker must have taken the poison pill."""

INTERRUPTED = 130


def connect() -> Transport | None:
    """Start MPI; None if there is only one rank.

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
    return mpi.MpiTransport(mpi.world()) if size > 1 else None


def run(script: Script, observe: Callable[[Master | None], Callable[[], None]]) -> int:
    """Play this rank's role in a run of `script`.

    Parameters
    ----------
    script : Script
        The job.
    observe : callable
        Attaches observers to the master, and returns what detaches them.

    Returns
    -------
    int
        The exit code of this rank.
    """
    transport = connect()
    if transport is not None and transport.rank:
        return _work(transport, script)
    if transport is None:
        return _run_job(script, observe)
    master = Master(transport)
    farm.install(master)
    code = _run_job(script, observe)
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


def _run_job(script: Script, observe: Callable[[Master | None], Callable[[], None]]) -> int:
    """Run the job and finish what it submitted; its exit code, with what it raised printed."""
    detach = observe(farm.master())
    try:
        try:
            script.run()
        finally:
            failed = sys.exc_info()[0] is not None
            if not failed:
                farm.close_default()
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        print("taskfarm: interrupted; all ranks end", file=sys.stderr)
        return INTERRUPTED
    except BaseException as error:
        error.__traceback__ = user_frames(error.__traceback__)
        traceback.print_exception(error)
        return 1
    finally:
        detach()
    return 0


def _exit_code(stop: SystemExit) -> int:
    """The code that Python itself would exit with."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _end(master: Master, code: int) -> None:
    """End the workers: with the poison pill where they are free to take it, else at once."""
    transport = master.transport
    try:
        if code:
            master.cancel_all()
            deadline = time.perf_counter() + (0.0 if code == INTERRUPTED else GRACE)
            done = master.drive(lambda: not master.scheduler.unfinished, deadline)
        else:
            farm.close_default()
            done = master.drive(lambda: not master.scheduler.unfinished)
        if done and master.stop(GOODBYE):
            farm.install(None)
            transport.close()
            return
    except BaseException:
        traceback.print_exc()
    _abort(transport, code or 1)


def _abort(transport: Transport, code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    transport.abort(code)
    os._exit(code)
