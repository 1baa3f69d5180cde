"""Tasks on several ranks at work: sends them to their members, gathers what these report, and ends them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskfarm.console import say
from taskfarm.errors import UsageError
from taskfarm.master.recorders import PartTiming
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import (
    NO_BLOB,
    DropComms,
    EndGang,
    GangResult,
    Outcomes,
    Part,
    Results,
    StartGang,
)
from taskfarm.schedule.gangs import Gang
from taskfarm.transport.interface import Transport

if TYPE_CHECKING:
    from taskfarm.master.master import Master

MAX_COMMUNICATORS = 64
"""Communicators that are kept, at most; those of tasks that run count, too."""

MAX_FAILED = 1000
"""Communicators of failed tasks that a worker may have: they are never used again, and MPICH has 2,048."""

FORCE_SECONDS = 5.0
"""Seconds after the grace, when the run survives lost ranks, after which a member is given up."""

MOST_LETTERS = 200
"""Letters of an error that stand in the line with which a run ends."""

STACK_SECONDS = 1.0
"""Seconds that members get to say what they are doing."""


class _Run:
    """A gang as the master knows it.

    Attributes
    ----------
    gang : Gang
        Its members and its task.
    name : str
        The name of its function.
    comm : int
        The number of its communicator.
    reports : dict of int to GangResult
        What members have reported.
    lost : set of int
        Members that were lost.
    failed_at : float or None
        When the first member failed.
    why : str
        How that happened.
    has_cause : bool
        Whether that one did not fail because of another.
    asked : bool
        Whether the others were asked for their stacks.
    """

    def __init__(self, gang: Gang, name: str, comm: int) -> None:
        self.gang = gang
        self.name = name
        self.comm = comm
        self.reports: dict[int, GangResult] = {}
        self.lost: set[int] = set()
        self.failed_at: float | None = None
        self.why = ""
        self.has_cause = self.asked = False

    @property
    def waiting(self) -> list[int]:
        """The members that have neither reported nor been lost."""
        return [one for one in self.gang.members if one not in self.reports and one not in self.lost]


class GangRuns:
    """Runs the gangs that the scheduler starts.

    Parameters
    ----------
    master : Master
        The master.

    Attributes
    ----------
    grace : float
        Seconds that the other members get when one has failed.
    end_run : callable
        Ends the run, for a reason in one line, if members do not end.
    num_created : int
        Communicators that were made.
    failing : dict
        The tasks that have failed and have not ended on all of their members, by gang.
    """

    def __init__(self, master: "Master") -> None:
        self._master = master
        self._runs: dict[int, _Run] = {}
        self.failing: dict[int, _Run] = {}
        # By members, the one used last at the end.
        self._comms: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._num_failed: dict[int, int] = {}
        self.num_created = 0
        self.grace = 20.0
        self.end_run: Callable[[str], None] = self._abort

    def _abort(self, why: str) -> None:
        say(why)
        self._master.transport.abort(1)

    def start(self, gang: Gang, part: Part) -> int:
        """Send a task to its members; returns the size of the function, if it was sent."""
        master = self._master
        function = master.outstanding.pending.function_of(gang.span)
        run = self._runs[gang.id] = _Run(gang, function.name, self._comm_of(gang.members))
        nbytes = 0
        for worker in gang.members:
            units = master.scheduler.units(worker, function.id) if gang.needs else None

            def order(
                parts: list[Part],
                levels: dict[str, int] | None,
                units: dict[str, tuple[int, ...]] | None = units,
            ) -> StartGang:
                return StartGang(gang.id, run.comm, gang.members, parts[0]._replace(units=units), levels)

            farm = master.farms[function.farm]
            nbytes += master.workers.send_work(worker, function, farm, [part], order=order)
        return nbytes

    def _comm_of(self, members: tuple[int, ...]) -> int:
        """The number of the communicator of some workers; drops those used least recently."""
        number = self._comms.pop(members, None)
        if number is None:
            self.num_created += 1
            number = self.num_created
        self._comms[members] = number
        used = {run.comm for run in self._runs.values()} | {number}
        while len(self._comms) > MAX_COMMUNICATORS:
            oldest = next((one for one in self._comms if self._comms[one] not in used), None)
            if oldest is None:
                break
            self._drop(oldest, free=True)
        return number

    def _drop(self, members: tuple[int, ...], free: bool) -> None:
        number = self._comms.pop(members, None)
        if number is None:
            return
        for worker in members:
            self._master.workers.send(worker, DropComms([number], free))
            if not free:
                self._num_failed[worker] = self._num_failed.get(worker, 0) + 1

    def exhausted(self) -> str:
        """Why no more gangs can run; empty if they can."""
        most = max(self._num_failed.values(), default=0)
        if most < MAX_FAILED:
            return ""
        return (
            f"{most} tasks on several ranks have failed, and MPI has no communicators left; start the job "
            "again"
        )

    def handle(self, worker: int, result: GangResult) -> None:
        """Note what a member reports."""
        run = self._runs.get(result.gang)
        if run is None or worker in run.lost:
            return
        run.reports[worker] = result
        failure = result.outcomes.failures.get(0)
        if failure is not None:
            why = f"failed on rank {worker} ({failure.summary[:MOST_LETTERS]})"
            self._fail(run, why)
            if not result.is_secondary and not run.has_cause:
                run.why, run.has_cause = why, True
        if not run.waiting:
            self._complete(run)

    def lose(self, worker: int) -> None:
        """Note that a worker was lost: its gang ends on the others; the scheduler has its task."""
        for run in list(self._runs.values()):
            if worker not in run.gang.members:
                continue
            # If it has reported, that counts only together with the reports of the others.
            run.lost.add(worker)
            self._fail(run, f"lost rank {worker}")
            if not run.waiting:
                self._complete(run)
        for members in [members for members in self._comms if worker in members]:
            self._drop(members, free=False)

    def _fail(self, run: _Run, why: str) -> None:
        if run.failed_at is not None:
            return
        run.failed_at, run.why = self._master.clock.now(), why
        self.failing[run.gang.id] = run
        text = f"task {run.gang.span.first} {run.name} {why}, so it ends on all of its ranks"
        grace = self.grace if self._master.transport.survives else None
        for worker in run.gang.members:
            if worker not in run.lost:
                self._master.workers.send(worker, EndGang(run.gang.id, text, grace))

    def _complete(self, run: _Run) -> None:
        """Record the outcome of a task that has ended on all members."""
        gang, master = run.gang, self._master
        del self._runs[gang.id]
        self.failing.pop(gang.id, None)
        master.scheduler.now = master.clock.now()
        master.scheduler.end_gang(gang.id)
        if run.failed_at is not None or not all(report.keeps for report in run.reports.values()):
            self._drop(gang.members, free=False)
        if run.lost or run.failed_at is not None:
            for report in run.reports.values():
                master.keeping.discard(report.outcomes)
        if run.lost:
            return
        lead = gang.members[0]
        ordered = [run.reports[worker] for worker in gang.members]
        self._log_others(run)
        master.handle_results(lead, Results([_combined(ordered)]))

    def _log_others(self, run: _Run) -> None:
        """Tell recorders what the members other than the first did."""
        events, master = self._master.outstanding.events, self._master
        if not events:
            return
        function = master.outstanding.pending.function_of(run.gang.span)
        for worker in run.gang.members[1:]:
            one = run.reports[worker].outcomes
            timing = PartTiming(one.first, 1, one.started, one.seconds, one.cpu, one.core_wait)
            events.member_finished(master.clock.now(), worker, function, timing)

    def check(self, now: float) -> None:
        """End what does not end by itself after the grace."""
        for run in list(self.failing.values()):
            assert run.failed_at is not None
            late = now - run.failed_at - self.grace
            if self._master.transport.survives:
                if late > FORCE_SECONDS:
                    for worker in run.waiting:
                        self._master.give_up(worker, f"did not end task {run.gang.span.first} {run.name}")
            elif late > 0:
                self.end_run(self._describe(run))
                self.failing.pop(run.gang.id, None)
            elif not run.asked and late > -min(STACK_SECONDS, self.grace / 2):
                run.asked = True
                for worker in run.waiting:
                    self._master.ask_for_stack(worker)

    def _describe(self, run: _Run) -> str:
        """Why the run ends, in one line."""
        members = ", ".join(map(str, run.gang.members))
        stacks = self._master.output.stacks
        doing = "; ".join(f"rank {worker} {_innermost(stacks.get(worker, ''))}" for worker in run.waiting)
        return (
            f"task {run.gang.span.first} {run.name} on ranks {members} {run.why}, and has not ended on the "
            f"others within {self.grace:g} s: {doing}; this MPI cannot end their calls, so all ranks end"
        )


def check_ranks(transport: Transport, function: RegisteredFunction, max_workers: int | None) -> None:
    """Make sure that tasks of a function can run on several ranks of a farm with `max_workers`.

    Raises
    ------
    UsageError
        They cannot.
    """
    ranks, name = function.policy.ranks, function.name
    if transport.inline:
        raise UsageError(
            f"{name} needs {ranks} ranks, and this is one process: start it with "
            f"`python -m taskfarm run -n {ranks + 1} ...`, or give the task ranks=1"
        )
    if transport.in_process:
        raise UsageError(
            f"{name} needs {ranks} ranks, and a farm of taskfarm.testing has no MPI: test it with ranks=1, "
            "or under mpiexec"
        )
    if function.policy.isolated:
        raise UsageError(
            f"{name} needs {ranks} ranks, so it can have no timeout, memory, isolate or max_tasks: the "
            "child process of an isolated task has no MPI. Leave them out, or set them to None for it"
        )
    if not transport.gangs:
        raise UsageError(
            f"{name} needs {ranks} ranks, and tasks on several ranks need MPI_THREAD_MULTIPLE, which this "
            "MPI does not provide: `python -m taskfarm info` shows what it does"
        )
    if max_workers is not None and ranks > max_workers:
        raise UsageError(f"{name} needs {ranks} ranks, and its farm has max_workers={max_workers}")


def _innermost(stack: str) -> str:
    """Where a rank is, from the text of its stack."""
    lines = [line.strip() for line in stack.splitlines()]
    places = [
        at for at, line in enumerate(lines) if line.startswith("File ") and "site-packages" not in line
    ]
    if not places:
        return "does not answer"
    at = places[-1]
    place = lines[at].removeprefix("File ").replace('"', "")
    code = lines[at + 1] if at + 1 < len(lines) else ""
    return f"is at {place}" + (f": {code}" if code else "")


def _combined(reports: list[GangResult]) -> Outcomes:
    """The outcome of a task from those of its members: the value of the first one, or what failed first."""
    parts = [report.outcomes for report in reports]
    failed = [report for report in reports if report.outcomes.failures]
    cause = min(failed, key=lambda report: report.is_secondary, default=None)
    chosen = parts[0]
    if cause is not None:
        chosen = chosen._replace(failures=cause.outcomes.failures, values=[NO_BLOB], kept=None)
    return chosen._replace(drew=any(part.drew for part in parts), covers=None if cause else chosen.covers)
