"""The role of rank 0: runs the job, and ends the run in every way in which a run can end."""

import os
from typing import TYPE_CHECKING, NoReturn

from taskfarm.console import say
from taskfarm.errors import JournalError, LaunchError
from taskfarm.job.current_farm import registry
from taskfarm.launch import output_files
from taskfarm.launch.config import RunConfig
from taskfarm.launch.early import INTERRUPTED_EARLY, early_interrupt
from taskfarm.launch.exit import drained_line, ending_fast, exit_code, losses_line
from taskfarm.launch.exit_codes import DRAINED, INTERRUPTED, LOSSES, UNSEEN, WRONG_USE
from taskfarm.launch.last_gangs import LastGangs
from taskfarm.launch.leave import LeaveAtExit, abort
from taskfarm.launch.out_of_time import endless_line, watch_walltime
from taskfarm.launch.script import Script, job_traceback
from taskfarm.launch.signals import Drained, Signals
from taskfarm.launch.standard_streams import say_past_mpiexec
from taskfarm.master.master import Master
from taskfarm.schedule.policy import Policy
from taskfarm.transport.interface import Transport
from taskfarm.views.views import Views

if TYPE_CHECKING:
    from taskfarm.journal.journal import Journal
    from taskfarm.schedule.resources import Resources

FAILED_GRACE = 2.0
"""Seconds that running tasks get after the job has failed, before all ranks are ended."""

STOP_SECONDS = 60.0
"""Seconds within which every worker must have received the poison pill."""


def run_job(
    transport: Transport | None,
    script: Script,
    config: RunConfig,
    leave: LeaveAtExit,
    resources: "Resources | None" = None,
) -> int:
    """Run the job; returns the exit code of the run."""
    if transport is not None:
        registry.set_master(Master(transport))
    views = Views(config)
    caught = Signals(
        config.grace,
        config.walltime,
        end_now=lambda code: _end_by_force(transport, code, config, caught),
        current_master=lambda: registry.current_master,
    )
    if early_interrupt.pending:
        say(INTERRUPTED_EARLY)
        abort(transport, INTERRUPTED)
    caught.ending_fast = ending_fast
    pid = os.getpid()
    caught.print_status = views.print_status
    try:
        script.find_module()
        # Not before MPI has started: it waits for ever for a rank that has left.
        output_files.check(config, script)
        caught.is_another_run = config.journal is not None and os.path.exists(config.journal)
        journal = _open_journal(config)
        registry.configure(lambda master: _configure(master, views, config, journal, caught, resources))
        code = _run_script(script, views, caught)
    except (JournalError, LaunchError) as error:
        say(str(error))
        code = WRONG_USE
    except KeyboardInterrupt as error:
        # While the journal is opened.
        code = exit_code(error)
    if os.getpid() != pid:
        leave.leave_forked_child(code)
        return code
    if caught.drained is not None:
        # Also if the job took the exception for an interruption of its own.
        code = DRAINED
    return _end(code, views, config, caught, leave)


def _open_journal(config: RunConfig) -> "Journal | None":
    if config.journal is None:
        return None
    from taskfarm.journal.journal import Journal

    return Journal(config.journal, config.resume)


def _configure(
    master: Master,
    views: Views,
    config: RunConfig,
    journal: "Journal | None",
    caught: Signals,
    resources: "Resources | None",
) -> None:
    """Configure a master from the options of the command line."""
    views.attach(master)
    if resources is not None:
        master.scheduler.resources = resources
    if caught.walltime_ends is not None:
        watch_walltime(master, config.grace, caught)
    master.functions.defaults = Policy().changed(config.task_options)
    if config.max_kills is not None:
        master.scheduler.attempts.max_kills = config.max_kills
    if config.seed is not None:
        master.choose_seed(config.seed)
    master.gangs.grace = config.grace
    last_gangs = LastGangs(config.journal is not None)
    master.gangs.note_running = last_gangs.note
    master.gangs.end_run = lambda why: _end_because(why, master, views, config, last_gangs)
    master.failure_detector.heartbeats.set_limits(config.lost_after, config.start_limit)
    if journal is not None:
        master.outstanding.journal = journal
        master.functions.code_digest = journal.code_digest


def _run_script(script: Script, views: Views, caught: Signals) -> int:
    """Run the job and finish what it submitted; returns its exit code, after printing what it raised."""
    raised: BaseException | None = None
    pid = os.getpid()
    try:
        script.run()
        registry.ending = True
        registry.close_all()
    except BaseException as error:
        raised = error.with_traceback(job_traceback(error.__traceback__))
    if os.getpid() != pid:
        # The job has forked this process; the bar is its parent's.
        if raised is None or isinstance(raised, KeyboardInterrupt):
            return 0 if raised is None else INTERRUPTED
        return exit_code(raised)
    registry.over = True
    if isinstance(raised, KeyboardInterrupt) and not isinstance(raised, Drained):
        caught.note_interrupt()
    views.end_bar()
    return 0 if raised is None else exit_code(raised)


def _end(code: int, views: Views, config: RunConfig, caught: Signals, leave: LeaveAtExit) -> int:
    """End the workers: with the poison pill if they are free to receive it, else at once."""
    master = registry.current_master
    if master is None:
        if code == INTERRUPTED and caught.interrupted:
            say("interrupted; the job had no tasks yet")
        caught.job_ended()
        return code
    transport = master.transport
    try:
        done = _finish_tasks(master, code, config, caught)
        if caught.is_endless:
            code = 1
        # Tasks that do not end may keep the farm's thread going, which uses the journal and the views.
        with master.lock:
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
        if master.unseen.tell() and config.fail_on_unseen and code == 0:
            code = UNSEEN
        if done:
            _close(master, code, caught, leave)
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
        line = drained_line(drained, master, caught.total, config)
        caught.told = True
        say_past_mpiexec(line) if ending_fast(drained) else say(line)
        if caught.walltime_is_up and (
            line := endless_line(master, config.walltime or 0.0, caught.is_another_run)
        ):
            caught.is_endless = caught.is_another_run
            say(line)
        master.cancel_all()
        return done
    deadline = None
    if code == INTERRUPTED and caught.interrupted:
        say(drained_line("Ctrl-C", master, caught.total, config))
    if code:
        master.cancel_all()
        deadline = master.deadline(0.0 if code == INTERRUPTED else FAILED_GRACE)
    return master.run_until(lambda: master.idle, deadline)


def _end_by_force(transport: Transport | None, code: int, config: RunConfig, caught: Signals) -> NoReturn:
    """End every rank from any thread: the main one does not react, or has not ended after the grace."""
    why, master = caught.drained, registry.current_master
    if code == DRAINED and why is not None and not caught.told:
        caught.told = True
        line = f"{why}: the tasks are done, and what the job has left running was ended"
        if master is not None:
            line = drained_line(why, master, caught.total, config)
        say_past_mpiexec(line) if ending_fast(why) else say(line)
    abort(transport, code)


def _end_because(
    why: str, master: Master, views: Views, config: RunConfig, last_gangs: LastGangs
) -> NoReturn:
    """End every rank, because tasks do not end; called under the master's lock."""
    views.end_bar()
    say(why)
    last_gangs.clear()
    _close_journal(master, config)
    views.end_files()
    abort(master.transport, 1)


def _close_journal(master: Master, config: RunConfig) -> None:
    journal = master.outstanding.journal
    if journal is not None:
        journal.close()
        # An outcome that comes later is not recorded, and nobody has seen it.
        master.outstanding.journal = None
        if journal.restored:
            say(f"{journal.restored:,} results came from {config.journal}")


def _close(master: Master, code: int, caught: Signals, leave: LeaveAtExit) -> None:
    """Release MPI, or make sure that this process ends without it."""
    transport = master.transport
    registry.set_master(None)
    if transport.has_unreachable:
        say(f"a rank may be cut off, so all end by force; the job's exit code is {code}")
    damaged = transport.damaged
    caught.job_ended()
    master.close()
    if not transport.inline:
        leave.arm(transport, code, without_mpi=damaged)
