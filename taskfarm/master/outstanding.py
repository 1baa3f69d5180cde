"""Tasks from the moment when their calls are queued until their outcomes are delivered."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from taskfarm.errors import DependencyFailed, JournalError, TaskFarmError
from taskfarm.master.deliveries import Deliveries
from taskfarm.master.interfaces import JournalEntry, JournalInterface, Position, ResultSink
from taskfarm.master.pending_calls import PendingCalls, Source
from taskfarm.master.recorders import EventLog, PartTiming
from taskfarm.protocol import shared
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.kept import Kept
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.outcomes import Completed, split_around
from taskfarm.schedule.spans import SINGLES, Span, new_tuple
from taskfarm.transport.waiting import Clock

NOT_KNOWN = JournalEntry([], {})
"""Without a journal."""


class OutstandingTasks:
    """Numbers tasks, records their outcomes in the journal if there is one, and delivers them.

    Attributes
    ----------
    pending : PendingCalls
        The calls that have not ended.
    journal : JournalInterface or None
        The journal.
    events : EventLog
        What recorders learn of tasks and workers.
    submits : int
        Calls that were queued one by one.
    deliveries : Deliveries
        What has ended, and must be handed on outside of the master's lock.
    journal_error : TaskFarmError or None
        Why the journal cannot be written any more; every outcome from then on is this error.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events = EventLog()
        self.pending = PendingCalls()
        self.journal: JournalInterface | None = None
        self.journal_error: TaskFarmError | None = None
        self.deliveries = Deliveries()
        self._next_id = self.submits = 0

    def open_farm(
        self,
        farm: int,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
        seed: int | None,
    ) -> None:
        """Tell the journal what else the results of a farm depend on."""
        if self.journal is not None:
            self.journal.open_farm(farm, initializer, initargs, seed)

    def add(
        self,
        function: RegisteredFunction,
        arguments: Arguments,
        sink: ResultSink,
        submit_numbers: Iterator[int] | None,
    ) -> tuple[int, JournalEntry]:
        """Number calls; returns the id of the first, and what the journal knows of them.

        `submit_numbers` numbers the random streams of single calls; None: the sink numbers its own.
        """
        entry = NOT_KNOWN
        if submit_numbers is not None:
            position: Position = (0, next(submit_numbers))
        else:
            position = sink.rng_position(arguments.count)
        if self.journal is not None:
            entry = self.journal.lookup(function, arguments, position)
            if entry.values and not (submit_numbers is not None and function.policy.keep):
                # The journal does not have the results that workers have kept.
                values = {offset: one for offset, one in entry.values.items() if type(one) is not Kept}
                entry = entry._replace(values=values)
            if submit_numbers is not None:
                sink.note_key(entry.keys[0], bool(entry.values))
        arguments.unpickled = ()
        if function.tokens:
            arguments.handles = [*arguments.handles, *shared.alive(function.tokens)]
        first = self._next_id
        self._next_id += arguments.count
        queued = self._clock.now() if self.events.recorders else 0.0
        self.submits += submit_numbers is not None
        source = new_tuple(Source, (arguments, sink, function, entry.keys, queued, *position))
        self.pending.add(first, source, submit_numbers is not None)
        return first, entry

    def add_again(
        self, function: RegisteredFunction, arguments: Arguments, sink: ResultSink, place: Position
    ) -> int:
        """Number a call that makes a lost result again, at its place in the random streams."""
        task = self._next_id
        self._next_id += 1
        queued = self._clock.now() if self.events else 0.0
        keys = [] if self.journal is None else [b""]
        self.pending.add(task, Source(arguments, sink, function, keys, queued, *place), single=True)
        return task

    def note_queued(self, span: Span) -> None:
        """Note that tasks have waited for others until now: so long, no worker could have run them."""
        if self.events:
            self.pending.note_queued(span, self._clock.now())

    def note_suspended(self, worker: int, source: int, task: int) -> None:
        """Note that a task waits for tasks that it has submitted."""
        if self.events:
            queued = self.pending.source_of(source, task).queued
            self.events.task_suspended(self._clock.now(), worker, task, queued)

    def note_resumed(self, worker: int) -> None:
        """Note that the task that was suspended last on a worker goes on."""
        self.events.task_resumed(self._clock.now(), worker)

    def complete(
        self, worker: int, outcomes: Outcomes, completed: Completed, retried: Collection[int]
    ) -> None:
        """Process outcomes that a worker sent; the tasks at the offsets `retried` have not ended."""
        if self.events.recorders:
            self._log(worker, outcomes, completed, retried)
        if outcomes.source != SINGLES:
            ended, failed = outcomes.count - len(retried), len(completed.failures) - len(retried)
            self.pending.update_progress(outcomes.source, ended, failed, len(retried))
        if self.journal is not None and (journal := self._writable_journal) is not None:
            self._record(journal, worker, outcomes, completed, retried)
        for piece in split_around(completed, retried) if retried else (completed,):
            self._deliver_later(outcomes.source, piece, use_policy=True)

    def fail(self, span: Span, error: BaseException, use_policy: bool = False) -> None:
        """End tasks for one reason that was found on the master.

        Tasks that were cancelled, or not run, have no outcome for the journal, and have not failed.
        """
        ran = not isinstance(error, CancelledError | DependencyFailed)
        if use_policy and ran and (journal := self._writable_journal) is not None:
            keys, function = self.pending.keys(span), self.pending.function_of(span)
            self._try(partial(journal.record_failed, function, keys, span.first, error))
        cancelled = isinstance(error, CancelledError)
        self.events.tasks_dropped(span.first, span.count)
        if not cancelled:
            function = self.pending.function_of(span)
            self.events.tasks_failed(self._clock.now(), function, span.first, span.count, error)
        self.pending.update_progress(span.source, span.count, span.count if ran else 0)
        self._deliver_later(span.source, Completed.failed(span.first, error, span.count), use_policy)

    def complete_without_worker(self, source: int, completed: Completed) -> None:
        """Process outcomes that are known without running anything."""
        self.pending.update_progress(source, len(completed.values), len(completed.failures))
        self._deliver_later(source, completed, use_policy=True)

    def commit(self, now: float) -> None:
        """Make sure that the journal has every outcome that is about to be delivered."""
        if (journal := self._writable_journal) is not None:
            self._try(partial(journal.commit, now))

    @property
    def _writable_journal(self) -> JournalInterface | None:
        return None if self.journal_error else self.journal

    def _log(self, worker: int, outcomes: Outcomes, completed: Completed, retried: Collection[int]) -> None:
        source, first, count, _, _, seconds, started, cpu, core_wait, *_ = outcomes
        arguments, _, function, _, queued, *_ = self.pending.source_of(source, first)
        nbytes = completed.nbytes + count * arguments.call_nbytes
        timing = PartTiming(first, count, started, seconds, cpu, core_wait)
        self.events.calls_finished(
            self._clock.now(), worker, function, queued, timing, completed.failures, retried, nbytes
        )

    def _record(
        self,
        journal: JournalInterface,
        worker: int,
        outcomes: Outcomes,
        completed: Completed,
        retried: Collection[int],
    ) -> None:
        span = Span(outcomes.source, outcomes.first, outcomes.count, 0)
        keys, function = self.pending.keys(span), self.pending.function_of(span)
        for offset in retried:
            keys[offset] = b""
        for offset in completed.failures.keys() - outcomes.failures.keys() - set(retried):
            # The worker succeeded, but its result cannot be loaded here.
            task, error = span.first + offset, completed.failures[offset]
            self._try(partial(journal.record_failed, function, [keys[offset]], task, error))
            keys[offset] = b""
        position, columns = self.pending.rng_position(span), self.pending.columns(span)
        self._try(partial(journal.record, worker, function, keys, outcomes, position, columns))

    def _try(self, use: Callable[[], None]) -> None:
        """Use the journal; if that fails, every outcome that it has not committed becomes the error."""
        try:
            use()
        except JournalError as error:
            self.journal_error = error
            self.deliveries.fail_all(error)

    def _deliver_later(self, source: int, completed: Completed, use_policy: bool) -> None:
        if self.journal_error is not None:
            completed = Completed.failed(completed.first, self.journal_error, len(completed.values))
        # The journal comes first.
        at_once = self.journal is None
        self.pending.complete(source, completed, self.deliveries, use_policy, at_once)
