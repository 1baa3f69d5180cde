"""Where the time of the workers went: each second of each worker belongs to one part of a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskfarm.master.farm_time import FarmTime
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.schedule.spans import Span

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
    tail : float
        Without a task, while rank 0 waited for the tasks of other workers.
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
    """

    at: float
    ready: bool = False
    returning: float = 0.0
    moved: bool = False
    lost: bool = False
    ran: bool = False
    functions: set[int] = field(default_factory=set)


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
        self._returned(state, min(calls.sent, started))
        until = min(calls.queued, calls.sent, started)
        self._without_work(state, min(until, self._first_sent or until))
        self._without_work(state, until)
        self._add_master(state, min(calls.sent, started), moves=False)
        self._add_master(state, started, moves)
        seconds = max(0.0, ended - state.at)
        self._add_calls(calls, seconds)
        state.at += seconds
        state.returning, state.moved, state.ran = calls.received, moves, True
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

    def _without_work(self, state: _Worker, until: float) -> None:
        """Account for time for which there was no task for a worker."""
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
        elif state.at >= self._last_ended:
            parts.after += job + waiting
        else:
            parts.tail += waiting
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
        whole._parts = replace(self._parts)
        whole._first_sent, whole._packs = self._first_sent, self._packs
        whole._last_ended = now if running else self._last_ended
        for worker, known in self._workers.items():
            state = replace(known)
            if state.lost:
                whole._parts.lost += max(0.0, now - state.at)
            elif not state.ready:
                whole._parts.start += max(0.0, now - state.at)
            else:
                whole._returned(state, now)
                until = min(now, running.get(worker, now))
                for moment in (self._first_sent or now, whole._last_ended, until):
                    whole._without_work(state, min(moment, until))
                whole._parts.unfinished += max(0.0, now - state.at)
        return whole._parts
