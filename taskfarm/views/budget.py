"""Where the time of the workers went: each second of each worker belongs to one part of a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskfarm.master.binned_time import BinnedTime
from taskfarm.master.farm_time import FarmTime
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.schedule.spans import Span
from taskfarm.views.critical_path import among

LARGE = 2**18
"""Bytes of arguments and results from which the way to a worker and back counts as moving data."""


@dataclass
class Parts:
    """Seconds, added up over all workers. Together they are the number of workers times the wall time.

    Attributes
    ----------
    cpu : float
        In tasks that succeeded: CPU time.
    core_wait : float
        In tasks that succeeded: ready to run, but without a core.
    other_wait : float
        In tasks that succeeded: waiting for files, the network, or a sleep.
    wasted : float
        In calls that failed or were retried, and what lost workers had done.
    unfinished : float
        In tasks that had not ended when the run did.
    start : float
        Until the worker was connected.
    initializer : float
        In initializers.
    before, between, after : float
        Without a task, while rank 0 ran code of the job: before the first task, between tasks, and after
        the last task.
    master : float
        Without a task, although some were queued, and on the way of small messages.
    moving : float
        On the way of large arguments, results and functions, pickling included.
    not_ready : float
        Without a task, while rank 0 waited, because all tasks that were left needed results of others.
    tail : float
        Without a task, while rank 0 waited for the last tasks, which other workers ran.
    held : float
        Without a task, because the worker was held for a task on several ranks.
    lost : float
        After a worker was lost.
    """

    cpu: float = 0.0
    core_wait: float = 0.0
    other_wait: float = 0.0
    wasted: float = 0.0
    unfinished: float = 0.0
    start: float = 0.0
    initializer: float = 0.0
    before: float = 0.0
    between: float = 0.0
    after: float = 0.0
    master: float = 0.0
    moving: float = 0.0
    not_ready: float = 0.0
    tail: float = 0.0
    held: float = 0.0
    lost: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(sum(vars(self).values()))

    @property
    def in_tasks(self) -> float:
        """Seconds in tasks that succeeded."""
        return self.cpu + self.core_wait + self.other_wait


@dataclass
class _Worker:
    """What is known of one worker.

    Attributes
    ----------
    at : float
        The time up to which its time is accounted for.
    ready : bool
        Whether it has connected.
    returning : float
        When its last results arrived.
    moved : bool
        Whether those were large.
    lost : bool
        Whether it is lost.
    ran : bool
        Whether it has run a task.
    functions : set of int
        The functions that it has.
    suspended : dict of int to float
        The tasks on it that have waited for tasks that they have submitted, and the seconds that are
        accounted for in each of them.
    waits : int or None
        That of them which waits, if the worker has run nothing else since it began to.
    resumed : float
        When one of them went on, last.
    """

    at: float
    ready: bool = False
    returning: float = 0.0
    moved: bool = False
    lost: bool = False
    ran: bool = False
    functions: set[int] = field(default_factory=set)
    suspended: dict[int, float] = field(default_factory=dict)
    waits: int | None = None
    resumed: float = 0.0


class _Waiting:
    """When some tasks needed results of others."""

    def __init__(self, began: float) -> None:
        self._bins = BinnedTime(began, "waiting")
        self._since: float | None = None

    def change(self, now: float, some_wait: bool) -> None:
        """Note that some tasks wait from now on, or none."""
        if self._since is not None:
            self._bins.add("waiting", self._since, now)
        self._since = now if some_wait else None

    def share(self, start: float, end: float) -> float:
        """The part of the time between two times for which some waited, from 0 to 1."""
        seconds = self._bins.between(start, end)["waiting"]
        if self._since is not None:
            seconds += max(0.0, end - max(start, self._since))
        return min(1.0, seconds / (end - start))


class Budget(Recorder):
    """Accounts for the time of all workers.

    Parameters
    ----------
    workers : int
        Number of workers, started or not: their ranks are 1 to `workers`.
    began : float
        When the run began, in seconds of the master's clock.
    attached : float
        When MPI had started on rank 0.
    farm_time : FarmTime
        When the job's main thread was inside the farm.
    """

    def __init__(self, workers: int, began: float, attached: float, farm_time: FarmTime) -> None:
        self._began = began
        self._attached = attached
        self._farm_time = farm_time
        self._waiting = _Waiting(began)
        self._parts = Parts()
        self._workers = {rank: _Worker(began) for rank in range(1, workers + 1)}
        self._first_sent: float | None = None
        self._last_ended = began
        # Whether the data of the last calls were large: then working for the farm means packing them.
        self._packs = False

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Account for the time until a worker was connected."""
        state = self._workers[worker]
        # While rank 0 runs code of the job, it does not see who has connected: that code is what counts.
        job = max(0.0, now - self._attached - sum(self._farm_time.between(self._attached, now)))
        self._parts.before += job
        self._parts.start += max(0.0, now - state.at - job)
        state.at = max(state.at, now)
        state.ready = True

    def worker_initialized(self, now: float, worker: int, seconds: float) -> None:
        """Account for the time in an initializer."""
        state = self._workers[worker]
        began = max(state.at, now - seconds)
        self._without_work(state, began)
        self._parts.initializer += max(0.0, now - began)
        state.at = max(state.at, now)

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Count what a lost worker has done since its last results as wasted."""
        state = self._workers[worker]
        if state.ready:
            self._parts.wasted += max(0.0, now - state.at)
        else:
            self._parts.start += max(0.0, now - state.at)
        self._parts.wasted += sum(state.suspended.values())
        state.suspended.clear()
        state.at = max(state.at, now)
        state.lost = True

    def batch_sent(self, now: float, worker: int, spans: Sequence[Span], workers: int) -> None:
        """Note when the first tasks were sent."""
        if self._first_sent is None:
            self._first_sent = now

    def worker_held(self, now: float, worker: int, since: float) -> None:
        """Account for the time for which a worker was held for a task on several ranks."""
        state = self._workers[worker]
        began = max(state.at, since)
        self._returned(state, began)
        self._without_work(state, began)
        self._parts.held += max(0.0, now - state.at)
        state.at = max(state.at, now)

    def waiting_changed(self, now: float, some_wait: bool) -> None:
        """Note whether some tasks need results of others."""
        self._waiting.change(now, some_wait)

    def task_suspended(self, now: float, worker: int, task: int, queued: float, sent: float) -> None:
        """Account for the time in a task that waits for tasks that it has submitted."""
        state = self._workers[worker]
        if state.waits == task:
            return
        state.waits = task
        if task in state.suspended:
            self._without_work(state, state.resumed)
        else:
            self._until_sent(state, queued, sent)
        seconds = max(0.0, now - state.at)
        state.suspended[task] = state.suspended.get(task, 0.0) + seconds
        state.at += seconds

    def task_resumed(self, now: float, worker: int) -> None:
        """Note when a task goes on: its worker has waited so long."""
        state = self._workers[worker]
        state.waits, state.resumed = None, now

    def member_finished(self, calls: FinishedCalls) -> None:
        """Account for the share of another rank of a task."""
        self.calls_finished(calls)

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Account for the time since a worker's last calls, and for these calls."""
        state = self._workers[calls.worker]
        ended = calls.started + calls.seconds
        # Clocks are compared to within a message's travel time, so parts may seem to overlap a little.
        started = max(state.at, min(calls.started, ended))
        nbytes = calls.nbytes
        if calls.function.id not in state.functions:
            state.functions.add(calls.function.id)
            nbytes += calls.function.nbytes
        moves = nbytes >= LARGE
        self._packs = moves
        before = 0.0
        if state.suspended and (waited := among(state.suspended, calls.first, calls.count)):
            before = sum(state.suspended.pop(task) for task in waited)
            self._without_work(state, min(state.resumed, ended))
        else:
            self._until_sent(state, min(calls.queued, started), min(calls.sent, started))
            self._add_master(state, started, moves)
        seconds = max(0.0, ended - state.at)
        self._add_calls(calls, before + seconds)
        state.at += seconds
        state.returning, state.moved, state.ran, state.waits = calls.received, moves, True, None
        self._last_ended = max(self._last_ended, calls.received)

    def _add_calls(self, calls: FinishedCalls, seconds: float) -> None:
        parts = self._parts
        wasted = seconds * len(calls.failures) / max(1, calls.count)
        parts.wasted += wasted
        share = (seconds - wasted) / max(1e-12, calls.seconds)
        # A task with threads of its own has more CPU time than wall time.
        cpu = min(calls.seconds, calls.cpu) * share
        core_wait = min(calls.seconds * share - cpu, calls.core_wait * share)
        parts.cpu += cpu
        parts.core_wait += core_wait
        parts.other_wait += max(0.0, seconds - wasted - cpu - core_wait)

    def _until_sent(self, state: _Worker, queued: float, sent: float) -> None:
        """Account for the time until a worker was sent tasks."""
        self._returned(state, sent)
        until = min(queued, sent)
        if self._first_sent is not None:
            self._without_work(state, min(until, self._first_sent))
        self._without_work(state, until)
        self._add_master(state, sent, moves=False)

    def _returned(self, state: _Worker, until: float) -> None:
        """Account for the way of the last results, if nothing was sent before they arrived."""
        if state.ran:
            self._add_master(state, min(state.returning, until), state.moved)

    def _add_master(self, state: _Worker, until: float, moves: bool) -> None:
        """Account for time for which messages were on their way, or rank 0 had not sent them yet."""
        seconds = max(0.0, until - state.at)
        if not seconds:
            return
        if moves:
            self._parts.moving += seconds
        else:
            # While the job's own code runs, the farm gets only a part of the interpreter.
            in_farm = sum(self._farm_time.between(state.at, until))
            self._parts.master += in_farm
            self._parts.between += seconds - in_farm
        state.at += seconds

    def _without_work(self, state: _Worker, until: float, after: bool = False) -> None:
        """Account for time for which there was no task for a worker; `after` the last one, or before."""
        seconds = max(0.0, until - state.at)
        if not seconds:
            return
        parts = self._parts
        waiting, working = self._farm_time.between(state.at, until)
        job = seconds - waiting - working
        if self._packs:
            parts.moving += working
        else:
            parts.master += working
        if self._first_sent is None or until <= self._first_sent:
            # Whatever the main thread waits for in the farm, it is not the tasks of other workers.
            parts.before += job + waiting
        elif after:
            parts.after += job + waiting
        else:
            not_ready = waiting * self._waiting.share(state.at, until)
            parts.not_ready += not_ready
            parts.tail += waiting - not_ready
            parts.between += job
        state.at = until

    def parts(self, now: float, running: Mapping[int, float]) -> Parts:
        """The budget up to `now`.

        Parameters
        ----------
        now : float
            The time, in seconds of the master's clock.
        running : mapping of int to float
            The busy workers, and since when each one has been running its task.
        """
        whole = Budget(0, self._began, self._attached, self._farm_time)
        whole._parts, whole._waiting = replace(self._parts), self._waiting
        whole._first_sent, whole._packs = self._first_sent, self._packs
        whole._last_ended = now if running else self._last_ended
        for worker, known in self._workers.items():
            state = replace(known)
            whole._parts.unfinished += sum(state.suspended.values())
            if state.lost:
                whole._parts.lost += max(0.0, now - state.at)
            elif not state.ready:
                whole._parts.start += max(0.0, now - state.at)
            else:
                whole._returned(state, now)
                until = min(now, running.get(worker, now))
                first_sent = now if self._first_sent is None else self._first_sent
                for moment in (first_sent, whole._last_ended):
                    whole._without_work(state, min(moment, until))
                whole._without_work(state, until, after=True)
                whole._parts.unfinished += max(0.0, now - state.at)
        return whole._parts
