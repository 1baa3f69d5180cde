"""Rank to role: rank 0 runs the job, the others are workers; and every way in which a run ends."""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator

from taskfarm.environment import claimed_rank, claimed_size, end_later
from taskfarm.errors import JournalError, LaunchError
from taskfarm.job.current_farm import registry
from taskfarm.launch import placement, signals
from taskfarm.launch.config import Plan
from taskfarm.launch.exit import (
    DRAINED,
    INTERRUPTED,
    LOSSES,
    WRONG_USE,
    Leaving,
    abort,
    drained_line,
    exit_code,
    flush,
    hurried,
    losses_line,
    say,
    say_hurried,
)
from taskfarm.launch.script import Script
from taskfarm.launch.signals import Signals
from taskfarm.master.interfaces import JournalInterface
from taskfarm.master.master import Master
from taskfarm.transport.interface import Transport
from taskfarm.views.views import Views
from taskfarm.worker.worker import Worker

GRACE = 2.0
"""Seconds that running tasks get after the job has failed, before all ranks are ended."""

OUTPUT = "taskfarm-output"
"""The folder of ``--output files``."""

GOODBYE = 60.0
"""Seconds within which every worker must have taken the poison pill."""


def ranks() -> int:
    """Start MPI; how many ranks there are.

    Raises
    ------
    LaunchError
        The launcher started several processes, but MPI knows of one: they belong to different MPIs.
    """
    try:
        from taskfarm.transport import mpi
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"mpi4py finds no MPI library ({error}): install one beside it, for instance "
            "`pip install mpich`, or load your cluster's MPI module"
        ) from error
    size, claimed = mpi.num_ranks(), claimed_size(os.environ) or 1
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
    from taskfarm.transport import mpi

    return mpi.MpiTransport(mpi.world())


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End rank 0, and so all, if MPI does not start in time: it waits for ever for a rank that failed."""
    watcher = None
    if (claimed_size(os.environ) or 1) > 1 and not claimed_rank(os.environ):
        line = f"taskfarm: MPI has not started within {seconds:.0f} s: some rank failed before; see above"
        watcher = end_later(os.getpid(), seconds, line)
    try:
        yield
    finally:
        if watcher is not None:
            watcher.kill()
            watcher.wait()


def run(script: Script, plan: Plan) -> int:
    """Play this rank's role in a run of `script`.

    Parameters
    ----------
    script : Script
        The job.
    plan : Plan
        How to run it.

    Returns
    -------
    int
        The exit code of this rank.
    """
    if claimed_rank(os.environ):
        signals.ignore()
    else:
        signals.end_early(DRAINED)
    leaving = Leaving()
    with _limited(plan.start_limit):
        transport = connect()
        if plan.gpus is not None and transport is not None:
            _choose_device(transport.rank, plan.gpus)
    if transport is not None and transport.rank:
        signals.ignore()
        return _work(transport, script, plan, leaving)
    caught = Signals(plan.grace, plan.walltime, lambda: abort(transport, DRAINED))
    if transport is not None:
        registry.set_master(Master(transport))
    views = Views(plan)
    try:
        keeper = _journal(plan)
        registry.configure(lambda master: _set_up(master, views, plan, keeper, caught))
        code = _run_job(script, views)
    except (JournalError, LaunchError) as error:
        say(str(error))
        code = WRONG_USE
    if caught.drained is not None:
        # Also where the job took the exception for an interruption of its own.
        code = DRAINED
    return _end(code, views, plan, caught, leaving)


def _choose_device(rank: int, devices: int) -> None:
    """Let each worker see one device of its host. Collective over all ranks."""
    from taskfarm.transport import mpi

    hosts = mpi.allgather(socket.gethostname())
    if rank:
        placement.choose_device(os.environ, placement.index_among(hosts, rank), devices)


def _journal(plan: Plan) -> JournalInterface | None:
    """The journal, opened or begun."""
    if plan.journal is None:
        return None
    from taskfarm.journal.journal import Journal

    return Journal(plan.journal, plan.resume)


def _set_up(
    master: Master, views: Views, plan: Plan, keeper: JournalInterface | None, caught: Signals
) -> None:
    """Give a master what the command line says."""
    views.attach(master, caught)
    master.functions.defaults = plan.policy
    master.scheduler.attempts.max_kills = plan.max_kills
    if plan.seed is not None:
        master.seed = plan.seed
    master.failure_detector.heartbeats.set_limits(plan.lost_after, plan.start_limit)
    if keeper is not None:
        from taskfarm.journal import code_digest

        master.outstanding.journal = keeper
        master.functions.code_digest = code_digest.digest


def _work(transport: Transport, script: Script, plan: Plan, leaving: Leaving) -> int:
    """Serve as a worker; what goes wrong here outside of tasks ends all ranks."""
    script.prepare_path()
    # What holds the interpreter does not keep this from printing where it is.
    faulthandler.register(signal.SIGQUIT, 2)
    try:
        worker = Worker(transport)
        if plan.output == "tag":
            worker.capture_output()
        elif plan.output != "plain":
            _redirect(plan.output, transport.rank)
        worker.serve()
        signals.deafen(interrupts=True)
        if worker.leaves:
            leaving.go(transport, 0)
        transport.close()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        abort(transport, 1)
    return 0


def _redirect(output: str, rank: int) -> None:
    """Let all that this process and its children print go to a file, or nowhere."""
    path = os.devnull
    if output == "files":
        os.makedirs(OUTPUT, exist_ok=True)
        path = os.path.join(OUTPUT, f"rank{rank}.txt")
    flush()
    with open(path, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _run_job(script: Script, views: Views) -> int:
    """Run the job and finish what it submitted; its exit code, with what it raised printed."""
    raised: BaseException | None = None
    try:
        script.run()
        registry.close_all()
    except BaseException as error:
        raised = error
    views.end_bar()
    return 0 if raised is None else exit_code(raised)


def _end(code: int, views: Views, plan: Plan, caught: Signals, leaving: Leaving) -> int:
    """End the workers: with the poison pill where they are free to take it, else at once."""
    master = registry.current_master
    if master is None:
        return code
    transport = master.transport
    try:
        done = _finish(master, code, plan, caught)
        keeper = master.outstanding.journal
        if keeper is not None:
            keeper.close()
            if keeper.restored:
                say(f"{keeper.restored:,} results came from {plan.journal}")
        views.end_files()
        if hurried(caught.drained):
            os._exit(code)
        views.sum_up()
        done = done and (transport.inline or master.stop_workers(GOODBYE))
        if master.workers.lost:
            say(losses_line(master.workers.lost, transport.size - 1))
            if plan.fail_on_loss and code == 0:
                code = LOSSES
        if done:
            registry.set_master(None)
            if transport.has_unreachable:
                say(f"a rank may be cut off, so all end by force; the job's exit code is {code}")
            if transport.damaged:
                leaving.go(transport, code)
            signals.deafen(interrupts=False)
            master.close()
            return code
    except BaseException as error:
        code = code or exit_code(error)
    abort(transport, code or 1)


def _finish(master: Master, code: int, plan: Plan, caught: Signals) -> bool:
    """Let the tasks end that may; False if some are still running."""
    drained = caught.drained
    if drained is not None:
        master.drain()
        grace = 0.0 if hurried(drained) else plan.grace
        done = master.run_until(lambda: not master.scheduler.assigned, master.deadline(grace))
        line = drained_line(drained, master.scheduler.counts(), caught.total, plan, master.transport.size)
        say_hurried(line) if hurried(drained) else say(line)
        master.cancel_all()
        return done
    deadline = None
    if code:
        master.cancel_all()
        deadline = master.deadline(0.0 if code == INTERRUPTED else GRACE)
    return master.run_until(lambda: not master.scheduler.unfinished, deadline)
