"""Tasks that need the results of others: they wait in the scheduler until these are there."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import NamedTuple

from taskfarm.errors import DependencyFailed
from taskfarm.master.interfaces import Dependency
from taskfarm.master.outstanding import OutstandingTasks
from taskfarm.master.pending_calls import Source
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.dependency_failures import NOT_RUN, because_of
from taskfarm.protocol.failures import heading_of
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Part
from taskfarm.protocol.references import Given
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span


class Needed(NamedTuple):
    """A result that calls may wait for.

    Attributes
    ----------
    key, farm : int
        What the scheduler knows it by, and the farm of the calls.
    number : int
        How the calls refer to it.
    task : int
        The id of the task that has it.
    in_journal : bool
        Whether another run can tell that it is the same.
    """

    key: int
    farm: int
    number: int
    task: int
    in_journal: bool = True


class Dependencies:
    """Lets calls wait for the futures in their arguments.

    A call is queued as waiting for all of its futures, also for those that have ended. Then `watch` makes
    each future call `settle` when it has ended, at once if it has. So no future can end unnoticed between
    the two, and there is one way for all.

    Attributes
    ----------
    scheduler : Scheduler
        Holds the tasks that wait.
    outstanding : OutstandingTasks
        Holds their calls.
    """

    def __init__(self, scheduler: Scheduler, outstanding: OutstandingTasks) -> None:
        self._scheduler = scheduler
        self._outstanding = outstanding

    # Under the master's lock

    def queue(self, span: Span, function: RegisteredFunction, arguments: Arguments) -> None:
        """Queue the calls of a span; those that refer to futures, as their function may, wait."""
        start = 0 if span.source == SINGLES else span.first - span.source
        if span.count == 1 and start in arguments.futures:
            needs = function.futures.keys() | arguments.futures[start]
            self._scheduler.submit_waiting(span, needs, arguments.call_nbytes)
            return
        first, nbytes = span.first - start, arguments.call_nbytes
        wait = [first + one for one in arguments.futures if start <= one < start + span.count]
        for piece, waits in span.cut_out(wait):
            if waits:
                needs = function.futures.keys() | arguments.futures[piece.first - first]
                self._scheduler.submit_waiting(piece, needs, nbytes)
            elif function.futures:
                self._scheduler.submit_waiting(piece, function.futures.keys(), nbytes)
            else:
                self._scheduler.submit(piece, nbytes)

    def send_chained(self, spans: Sequence[Span]) -> list[Part]:
        """The calls of tasks that are sent together with others before them whose results they need."""
        pending = self._outstanding.pending
        for span in spans:
            for task in range(span.first, span.end):
                source = pending.source_of(SINGLES, task)
                for future in source.arguments.futures[0].values():
                    single = Span(SINGLES, task, 1, span.function)
                    self._note_need(source, single, future.key, bool(future.journal_key))
            self._outstanding.note_queued(span)
        return [pending.make_chained_part(span) for span in spans]

    def take_returned(self) -> list[Dependency]:
        """The futures for which chained tasks wait again, because they have not run."""
        futures: dict[int, Dependency] = {}
        returned, self._scheduler.chained.returned = self._scheduler.chained.returned, []
        for span in returned:
            if (source := self._outstanding.pending.single(span.first)) is not None:
                futures.update(source.arguments.futures.get(0, {}))
        return list(futures.values())

    def resolve(self, future: Dependency, given: Given) -> None:
        """Give the result of a future to the calls that wait for it."""
        self.give(_needed(future), given)

    def give(self, needed: Needed, given: Given) -> None:
        """Give a result to the calls that wait for it."""
        key, farm, number, task, in_journal = needed
        for span in self._scheduler.dependents(key, farm):
            source = self._outstanding.pending.source_of(span.source, span.first)
            offset = 0 if span.source == SINGLES else span.first - span.source
            if span.count == 1 and (kept := given.kept) is not None and kept.at is not None:
                self._scheduler.prefer(span.first, kept.at.worker, kept.at.nbytes)
            source.function.give(number, given)
            source.arguments.give(offset, number, given)
            self._scheduler.estimate(span.function).argument_bytes = source.arguments.call_nbytes
            self._note_need(source, span, task, in_journal)
        for span in self._scheduler.resolve(key, farm):
            self._outstanding.note_queued(span)

    def _note_need(self, source: Source, span: Span, task: int, in_journal: bool) -> None:
        """Note that calls of a source get the result of a task."""
        if span.count == 1:
            self._outstanding.events.task_depends(span.first, task)
        if not in_journal and source.keys:
            # Another run could not tell that the argument is the same, nor what depends on this call.
            offset = 0 if span.source == SINGLES else span.first - span.source
            source.keys[offset : offset + span.count] = [b""] * span.count
            source.sink.note_key(b"")

    def drop(self, future: Dependency, error: BaseException) -> None:
        """End the calls that wait for a future without a result: they are not run."""

        def reason(span: Span) -> BaseException:
            source = self._outstanding.pending.source_of(span.source, span.first)
            offset = 0 if span.source == SINGLES else span.first - span.source
            call = f"task {span.first} {source.arguments.describe(source.function.name, offset)}"
            if span.count > 1:
                call = f"tasks {span.first} to {span.end - 1} {source.function.name}"
            return not_run(call, future, error)

        if self.refuse(_needed(future), error, reason):
            future.note_seen()

    def refuse(self, needed: Needed, error: BaseException, reason: Callable[[Span], BaseException]) -> bool:
        """End the calls that wait for a result that there is not; returns whether there were any.

        `error` is the failure of its task, and `reason` returns what becomes of a call that is not run.
        """
        cancelled = isinstance(error, CancelledError)
        spans = self._scheduler.drop_dependents(needed.key, needed.farm, cancelled)
        for span in spans:
            why = CancelledError("a task that it needs was cancelled") if cancelled else reason(span)
            self._outstanding.fail(span, why, use_policy=True)
        return bool(spans)


def _needed(future: Dependency) -> Needed:
    key = future.key
    return Needed(key, future.farm, key, key, bool(future.journal_key))


def not_run(call: str, future: Dependency, error: BaseException) -> DependencyFailed:
    """The failure of a call that was not run because of the failure of a future among its arguments."""
    heading = heading_of(error) or f"task {future.task_id}"
    name, at, place = heading.rpartition(" on rank ")
    where = f"{name} failed{at}{place}" if at else f"{heading} failed"
    return because_of(error, call, NOT_RUN, name or heading, where)
