"""From a process to its role: starts MPI, then runs the job on rank 0 or serves as a worker elsewhere."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskfarm.environment import (
    claimed_rank,
    claimed_size,
    end_later,
    forget_launcher,
    inheritable_descriptors,
    launcher_descriptors,
    mpiexec_process,
)
from taskfarm.errors import LaunchError
from taskfarm.fork_hooks import close_in_forked_children
from taskfarm.launch import signals
from taskfarm.launch.config import RunConfig
from taskfarm.launch.exit_codes import DRAINED
from taskfarm.launch.leave import LeaveAtExit, ending_all
from taskfarm.launch.script import Script
from taskfarm.transport.interface import Transport

if TYPE_CHECKING:
    from taskfarm.schedule.resources import Resources

MPIEXEC_SECONDS = 5.0
"""Seconds that mpiexec gets to end by itself, if MPI has not started in time."""

LONGEST_START = 900.0
"""Seconds after which a worker whose MPI has not started ends, if no limit is given."""


def load_mpi() -> None:
    """Load MPI.

    Raises
    ------
    LaunchError
        mpi4py finds no MPI library.
    """
    try:
        from taskfarm.transport import mpi  # noqa: F401
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise LaunchError(
            f"mpi4py finds no MPI library ({reason}): install one beside it, for instance "
            "`pip install mpich`, or load your cluster's MPI module"
        ) from error


def num_ranks() -> int:
    """Start MPI; returns the number of ranks.

    Raises
    ------
    LaunchError
        There is no MPI, or the launcher belongs to another one.
    """
    load_mpi()
    from taskfarm.transport import mpi

    return mpi.num_ranks()


def connect() -> Transport | None:
    """Start MPI; None if there is only one rank. Raises what `num_ranks` does."""
    if num_ranks() == 1:
        return None
    from taskfarm.transport import mpi

    return mpi.MpiTransport(mpi.world())


def _is_one_of_several() -> bool:
    """Whether a launcher has started this process together with others."""
    return (claimed_size(os.environ) or 1) > 1


def _time_limit(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """End all ranks if MPI does not start in time: it waits forever for a failed rank."""
    if not _is_one_of_several():
        return contextlib.nullcontext()
    if claimed_rank(os.environ):
        return _alarm(LONGEST_START if seconds is None else seconds + MPIEXEC_SECONDS)
    from taskfarm.schedule.heartbeats import START_LIMIT

    return _watchers(seconds or START_LIMIT)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """End this process after some seconds, even in a call of C that never returns."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _watchers(limit: float) -> Iterator[None]:
    """End this process, with a line that says why, and its mpiexec, after some seconds."""
    line = f"taskfarm: MPI has not started within {limit:.0f} s: some rank failed before; see above"
    watchers = [end_later(os.getpid(), limit, line)]
    if launcher := mpiexec_process():
        # With fault tolerance it goes on without rank 0, and without end.
        watchers.append(end_later(launcher, limit + MPIEXEC_SECONDS))
    try:
        yield
    finally:
        for watcher in filter(None, watchers):
            watcher.kill()
            watcher.wait()


def run(script: Script, config: RunConfig) -> int:
    """Play this rank's role in a run of `script`.

    Parameters
    ----------
    script : Script
        The job.
    config : RunConfig
        How to run it.

    Returns
    -------
    int
        The exit code of this rank.
    """
    if claimed_rank(os.environ):
        signals.ignore_on_worker()
    else:
        signals.end_early(DRAINED)
    leave = LeaveAtExit()
    of_launcher, of_user = launcher_descriptors(), set(inheritable_descriptors())
    if _is_one_of_several():
        close_in_forked_children(of_launcher)
    with _time_limit(config.start_limit):
        transport = connect()
        if transport is not None:
            # Programs that tasks start are to have neither those of the launcher nor those of MPI.
            of_user.difference_update(of_launcher)
            for descriptor in set(inheritable_descriptors()) - of_user:
                os.set_inheritable(descriptor, False)
        # MPI has started, and does not read them again.
        forget_launcher(os.environ)
        resources = _share_out(transport, config) if config.gpus or config.resources else None
    with ending_all(transport):
        # Each role loads only its own half of taskfarm.
        if transport is not None and transport.rank:
            from taskfarm.launch.worker_rank import serve

            return serve(transport, script, config, leave)
        from taskfarm.launch.master_rank import run_job

        return run_job(transport, script, config, leave, resources)


def _share_out(transport: Transport | None, config: RunConfig) -> "Resources | None":
    """Let each worker see one device of its host; returns on rank 0 what there is. Collective."""
    from taskfarm.launch import placement

    host = socket.gethostname()
    hosts = [host, host]
    if transport is not None:
        from taskfarm.transport import mpi

        hosts = mpi.allgather(host)
    devices = {}
    if config.gpus is not None and transport is not None:
        if transport.rank:
            placement.choose_device(os.environ, placement.index_among(hosts, transport.rank), config.gpus)
        seen = mpi.allgather(placement.seen_devices(os.environ))
        devices = {rank: device for rank, device in enumerate(seen) if rank and device != "none"}
    elif config.gpus is not None:
        devices = {1: "0"}
    if transport is not None and transport.rank:
        return None
    from taskfarm.schedule.resources import Resources

    workers = {rank: host for rank, host in enumerate(hosts) if rank}
    return Resources(config.resources, workers, devices)
