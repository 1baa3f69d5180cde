"""The role of rank 0: runs the job, and ends the run in every way in which a run can end."""

import os

from taskfarm.console import say
from taskfarm.errors import JournalError, LaunchError
from taskfarm.job.current_farm import registry
from taskfarm.launch import signals
from taskfarm.launch.config import RunConfig
from taskfarm.launch.exit import drained_line, ending_fast, exit_code, losses_line, say_past_mpiexec
from taskfarm.launch.exit_codes import DRAINED, INTERRUPTED, LOSSES, WRONG_USE
from taskfarm.launch.leave import LeaveAtExit, abort
from taskfarm.launch.script import Script
from taskfarm.launch.signals import Signals
from taskfarm.master.interfaces import JournalInterface
from taskfarm.master.master import Master
from taskfarm.schedule.policy import Policy
from taskfarm.transport.interface import Transport
from taskfarm.views.views import Views

FAILED_GRACE = 2.0
"""Seconds that running tasks get after the job has failed, before all ranks are ended."""

STOP_SECONDS = 60.0
"""Seconds within which every worker must have received the poison pill."""


def run_job(transport: Transport | None, script: Script, config: RunConfig, leave: LeaveAtExit) -> int:
    """Run the job; returns the exit code of the run."""
    caught = Signals(
        config.grace,
        config.walltime,
        end_now=lambda: abort(transport, DRAINED),
        current_master=lambda: registry.current_master,
    )
    if transport is not None:
        registry.set_master(Master(transport))
    views = Views(config)
    caught.print_status = views.print_status
    try:
        journal = _open_journal(config)
        registry.configure(lambda master: _configure(master, views, config, journal))
        code = _run_script(script, views)
    except (JournalError, LaunchError) as error:
        say(str(error))
        code = WRONG_USE
    if caught.drained is not None:
        # Also if the job took the exception for an interruption of its own.
        code = DRAINED
    return _end(code, views, config, caught, leave)


def _open_journal(config: RunConfig) -> JournalInterface | None:
    if config.journal is None:
        return None
    from taskfarm.journal.journal import Journal

    return Journal(config.journal, config.resume)


def _configure(master: Master, views: Views, config: RunConfig, journal: JournalInterface | None) -> None:
    """Configure a master from the options of the command line."""
    views.attach(master)
    master.functions.defaults = Policy().changed(config.task_options)
    if config.max_kills is not None:
        master.scheduler.attempts.max_kills = config.max_kills
    if config.seed is not None:
        master.seed = config.seed
    master.failure_detector.heartbeats.set_limits(config.lost_after, config.start_limit)
    if journal is not None:
        from taskfarm.journal import code_digest

        master.outstanding.journal = journal
        master.functions.code_digest = code_digest.digest


def _run_script(script: Script, views: Views) -> int:
    """Run the job and finish what it submitted; returns its exit code, after printing what it raised."""
    raised: BaseException | None = None
    try:
        script.run()
        registry.close_all()
    except BaseException as error:
        raised = error
    views.end_bar()
    return 0 if raised is None else exit_code(raised)


def _end(code: int, views: Views, config: RunConfig, caught: Signals, leave: LeaveAtExit) -> int:
    """End the workers: with the poison pill if they are free to receive it, else at once."""
    master = registry.current_master
    if master is None:
        return code
    transport = master.transport
    try:
        done = _finish_tasks(master, code, config, caught)
        _close_journal(master, config)
        views.end_files()
        if ending_fast(caught.drained):
            os._exit(code)
        views.sum_up()
        done = done and (transport.inline or master.stop_workers(STOP_SECONDS))
        if master.workers.lost:
            say(losses_line(master.workers.lost, transport.size - 1))
            if config.fail_on_loss and code == 0:
                code = LOSSES
        if done:
            _close(master, code, leave)
            return code
    except BaseException as error:
        code = code or exit_code(error)
    abort(transport, code or 1)


def _finish_tasks(master: Master, code: int, config: RunConfig, caught: Signals) -> bool:
    """Let the tasks end that may; False if some are still running."""
    drained = caught.drained
    if drained is not None:
        master.drain()
        grace = 0.0 if ending_fast(drained) else config.grace
        done = master.run_until(lambda: not master.scheduler.assigned, master.deadline(grace))
        counts, ranks = master.scheduler.counts(), master.transport.size
        line = drained_line(drained, counts, caught.total, config, ranks)
        say_past_mpiexec(line) if ending_fast(drained) else say(line)
        master.cancel_all()
        return done
    deadline = None
    if code:
        master.cancel_all()
        deadline = master.deadline(0.0 if code == INTERRUPTED else FAILED_GRACE)
    return master.run_until(lambda: not master.unfinished, deadline)


def _close_journal(master: Master, config: RunConfig) -> None:
    journal = master.outstanding.journal
    if journal is not None:
        journal.close()
        if journal.restored:
            say(f"{journal.restored:,} results came from {config.journal}")


def _close(master: Master, code: int, leave: LeaveAtExit) -> None:
    """Release MPI, or make sure that this process ends without it."""
    transport = master.transport
    registry.set_master(None)
    if transport.has_unreachable:
        say(f"a rank may be cut off, so all end by force; the job's exit code is {code}")
    if transport.damaged:
        leave.arm(transport, code)
    signals.ignore_at_exit(interrupts=False)
    master.close()
