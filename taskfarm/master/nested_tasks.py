"""Rank 0's part in tasks that submit tasks: who has submitted what, and where the outcomes go."""

from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Protocol

from taskfarm.errors import DependencyFailed, TaskError, TaskFarmError, UsageError
from taskfarm.master.dependencies import Dependencies, Needed
from taskfarm.master.farms import OpenFarm
from taskfarm.master.interfaces import Position
from taskfarm.master.outstanding import OutstandingTasks
from taskfarm.master.workers import WorkerTable
from taskfarm.protocol import shared
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.consecutive import runs
from taskfarm.protocol.definitions import DEFINITIONS
from taskfarm.protocol.dependency_failures import HAS_NO_RESULT, NOT_RUN, because_of
from taskfarm.protocol.failures import annotated, capture_exception, heading_of, summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.joined import as_item, as_values, join_results
from taskfarm.protocol.messages import (
    NO_BLOB,
    Await,
    Blob,
    Failure,
    GoOn,
    NewFunction,
    Outcomes,
    Settled,
    Spawn,
    Withdraw,
    Withdrawn,
)
from taskfarm.protocol.outcomes import Completed, result_nbytes
from taskfarm.protocol.references import to_give
from taskfarm.protocol.serialize import dumps, load_plain, loads
from taskfarm.protocol.snapshot import Needs
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span


class ForwardedFailure(TaskError):
    """Stands on rank 0 for the exception of a task that only its parent will see."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.summary)
        self.failure = failure


class Parent:
    """A task that has submitted tasks and has not ended, or waits for those that it has returned.

    Attributes
    ----------
    worker : int
        Where it runs.
    task, source : int
        Its id, and the source of its span.
    function : RegisteredFunction
        Its function.
    spawned : list of SpawnedCalls
        What it has submitted.
    numbers : list of int
        The worker's numbers of the first calls of these.
    over : bool
        Whether nobody waits for the outcomes any more.
    """

    __slots__ = ("function", "numbers", "over", "source", "spawned", "task", "worker")

    def __init__(self, worker: int, task: int, source: int, function: RegisteredFunction) -> None:
        self.worker = worker
        self.task = task
        self.source = source
        self.function = function
        self.spawned: list[SpawnedCalls] = []
        self.numbers: list[int] = []
        self.over = False

    def find(self, number: int) -> "tuple[SpawnedCalls, int]":
        """The calls to which one belongs, by the worker's number of it, and its offset there."""
        found = self.spawned[bisect_right(self.numbers, number) - 1]
        return found, number - found.number


class SpawnedCalls:
    """Calls that a task has submitted together: the sink of their outcomes.

    Outcomes stay here until the task asks for them, returns their futures, or ends.

    Attributes
    ----------
    number, count : int
        The worker's number of the first call, and how many there are.
    first : int
        Id of the first task.
    """

    def __init__(self, nested: "NestedTasks", parent: Parent, message: Spawn) -> None:
        self._nested = nested
        self.parent = parent
        self.number, self.count = message.first, message.count
        self._position = message.stream, message.index
        self.first = 0
        self.left = message.count
        self.function = parent.function
        self.items: dict[int, Any] = {}
        self.wanted: set[int] = set()
        self.joins: dict[int, Join] = {}
        self._needed: set[int] = set()

    def mark_running(self) -> None:
        """Do nothing: the task asks for no states."""

    def rng_position(self, count: int) -> Position:
        """The random stream of the calls, and the index of the first in it."""
        return self._position

    def note_key(self, key: bytes, restored: bool = False) -> None:
        """Do nothing: another run finds the calls by their place."""

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Do nothing: the task asks for no progress."""

    def complete_at_once(self, completed: Completed, offset: int) -> bool:
        """Keep outcomes, or pass them on: that calls no code of users."""
        self.complete(completed, offset)
        return True

    def complete(self, completed: Completed, offset: int) -> None:
        """Keep outcomes, or pass them on; called under the master's lock."""
        start = completed.first - self.first
        self.left -= len(completed.values)
        if not self.left:
            self._nested.forget(self)
        if self.parent.over:
            return
        for at, value in enumerate(completed.values):
            error = completed.failures.get(at)
            self.items[start + at] = as_item(value) if error is None else error
        self._hand_on(range(start, start + len(completed.values)))

    def want(self, offsets: range) -> None:
        """Send the outcomes at these offsets to the task as soon as they are there."""
        self.wanted.update(offsets)
        self._hand_on(offsets)

    def give(self, offset: int) -> None:
        """Give an outcome to the calls that wait for it, now or when it is there."""
        self._needed.add(offset)
        self._hand_on(range(offset, offset + 1))

    def _hand_on(self, offsets: range) -> None:
        for offset in self._needed.intersection(offsets).intersection(self.items):
            self._needed.discard(offset)
            self._nested.give(self, offset, self.items[offset])
        for offset in offsets:
            if offset in self.joins and offset in self.items:
                self.joins.pop(offset).add(self.number + offset, self.items.pop(offset))
        ready = [offset for offset in offsets if offset in self.wanted and offset in self.items]
        self.wanted.difference_update(ready)
        for run in runs(ready):
            self._nested.send(self, run.start, [self.items.pop(offset) for offset in run])


class Join:
    """A task that has returned futures: its result is complete when what they stand for is there.

    Parameters
    ----------
    nested : NestedTasks
        Carries out what follows.
    parent : Parent
        The task.
    worker : int
        Who has run it.
    span : Span
        The span to which it belongs.
    outcomes : Outcomes
        Its outcome, with a template in the place of the result.
    """

    def __init__(
        self, nested: "NestedTasks", parent: Parent, worker: int, span: Span, outcomes: Outcomes
    ) -> None:
        assert outcomes.joins is not None
        self.parent = parent
        self.worker, self.span, self.outcomes = worker, span, outcomes
        self.numbers = outcomes.joins[0]
        self._nested = nested
        self._items: dict[int, Any] = {}

    def add(self, number: int, item: Any) -> None:
        """Take what one of the futures stands for."""
        if self.parent.over:
            return
        self._items[number] = item
        if isinstance(item, BaseException):
            if not isinstance(item, CancelledError):
                function = self._nested.name_of(self.outcomes)
                task = f"task {self.outcomes.first} {function}"
                spawned, offset = self.parent.find(number)
                item = without_result(task, HAS_NO_RESULT, spawned, offset, item)
            self._nested.finish_join(self, item)
        elif len(self._items) == len(self.numbers):
            template = self.outcomes.values[0]
            assert isinstance(template, Blob)
            self._nested.finish_join(self, join_results(template, self.numbers, self._items))


class MasterOfNested(Protocol):
    """What `NestedTasks` needs of the master."""

    scheduler: Scheduler
    outstanding: OutstandingTasks
    dependencies: Dependencies
    workers: WorkerTable
    farms: dict[int, OpenFarm]

    def prepare_to_add(
        self, function: RegisteredFunction, farm: OpenFarm | None = None, nested: bool = False
    ) -> OpenFarm:
        """Make sure that calls of a function can be queued."""

    def queue_around(
        self,
        whole: Span,
        arguments: Arguments,
        ready: dict[int, Any],
        queue: Callable[[Span], None],
    ) -> None:
        """Queue what lies between calls that cannot be sent and calls whose results are known."""

    def pass_on(self, worker: int, span: Span, outcomes: Outcomes) -> None:
        """Process outcomes as those of a task that has to do with no other."""

    def settle_outcomes(self, worker: int, span: Span, outcomes: Outcomes, completed: Completed) -> None:
        """Process outcomes that are known."""


class NestedTasks:
    """Keeps the tasks that have submitted tasks, and those that they have submitted.

    Parameters
    ----------
    master : Master
        The master; all methods are called under its lock.
    """

    def __init__(self, master: MasterOfNested) -> None:
        self._master = master
        self._scheduler, self._outstanding = master.scheduler, master.outstanding
        self._parents: dict[int, Parent] = {}
        self._sources: dict[int, SpawnedCalls] = {}
        self._joins: dict[int, Join] = {}
        self._functions: dict[tuple[int, int], NewFunction] = {}
        self._finished: list[tuple[Join, Any]] = []
        self._finishing = False

    # What workers send

    def handle(self, worker: int, message: Spawn | Await | GoOn | Withdraw) -> None:
        """Handle a message of a worker."""
        match message:
            case Spawn():
                self._spawn(worker, message)
            case Await():
                self._await(worker, message)
            case GoOn():
                self._scheduler.go_on(worker)
                self._outstanding.note_resumed(worker)
            case Withdraw():
                self._withdraw(worker, message)

    def _spawn(self, worker: int, message: Spawn) -> None:
        if message.new is not None and message.new.by_name:
            self._functions[worker, message.function] = message.new
        parent = self._parents.get(message.task)
        if parent is None:
            source = self._outstanding.pending.source_of(message.source, message.task)
            parent = self._parents[message.task] = Parent(
                worker, message.task, message.source, source.function
            )
            self._scheduler.note_spawning(source.function.id)
        spawned = SpawnedCalls(self, parent, message)
        parent.spawned.append(spawned)
        parent.numbers.append(message.first)
        try:
            self._queue(worker, message, parent, spawned)
        except TaskFarmError as error:
            spawned.complete(Completed.failed(spawned.first, error, message.count), 0)

    def _queue(self, worker: int, message: Spawn, parent: Parent, spawned: SpawnedCalls) -> None:
        farm = self._master.farms[parent.function.farm]
        new = message.new or self._functions[worker, message.function]
        function = self._register(new, parent.function, farm)
        spawned.function = function
        if function.policy.ranks > 1:
            raise UsageError(
                f"{function.name} needs {function.policy.ranks} ranks, so a task cannot submit it: "
                "submit it in the job"
            )
        self._master.prepare_to_add(function, farm, nested=True)
        futures = message.futures or {}
        arguments = self._arguments(message, parent.function)
        spawned.first, entry = self._outstanding.add(function, arguments, spawned, None)
        self._sources[spawned.first] = spawned
        span = Span(spawned.first, spawned.first, message.count, function.id)

        needs = {offset: {key(number) for number in found} for offset, found in futures.items()}

        def queue(part: Span) -> None:
            first = spawned.first
            wait = [first + one for one in needs if part.first <= first + one < part.end]
            for piece, waits in part.cut_out(wait):
                needed = needs[piece.first - first] if waits else ()
                self._scheduler.spawn(piece, parent.task, parent.source, needed)

        self._master.queue_around(span, arguments, entry.values, queue)
        if arguments.call_nbytes:
            self._scheduler.estimate(function.id).argument_bytes = arguments.call_nbytes
        for number in {number for found in futures.values() for number in found}:
            needed, offset = parent.find(number)
            needed.give(offset)

    def _register(self, new: NewFunction, parent: RegisteredFunction, farm: OpenFarm) -> RegisteredFunction:
        """The entry of a function; names in it mean what they mean to the task that calls it."""
        blob = new.blob._replace(needs=_needs(new.blob.needs, parent.blob.needs))
        called = None
        if self._outstanding.journal is not None:
            # Its code is a part of the keys of its calls.
            called = loads(new.blob)
        return farm.functions.register_pickle(new.name, blob, new.policy, called, fresh=not new.by_name)

    def _arguments(self, message: Spawn, parent: RegisteredFunction) -> Arguments:
        calls, futures = message.calls, message.futures or {}
        if isinstance(calls, bytes):
            return Arguments.from_columns(load_plain(calls))
        blobs = [blob._replace(needs=_needs(blob.needs, parent.blob.needs)) for blob in calls]
        arguments = Arguments.from_blobs(
            blobs, {offset: dict.fromkeys(found, True) for offset, found in futures.items()}
        )
        if self._outstanding.journal is not None:
            # Another run cannot tell that a result among the arguments is the same.
            unknown: Any = ((object(),), {})
            arguments.unpickled = [
                unknown if offset in futures else loads(blob) for offset, blob in enumerate(calls)
            ]
        if shared.OPEN:
            tokens = {token for blob in calls for token in shared.tokens_in(blob)}
            arguments.handles = shared.alive(tokens)
        return arguments

    def _await(self, worker: int, message: Await) -> None:
        for first, count in sorted(message.tasks, reverse=True):
            self._scheduler.requeue(worker, first, count)
        parent = self._parents.get(message.task)
        if parent is None:
            return
        self._scheduler.wait(worker, message.task, parent.function.id)
        self._outstanding.note_suspended(worker, parent.source, message.task)
        for number, count in message.wanted:
            end = number + count
            while number < end:
                spawned, offset = parent.find(number)
                stop = min(spawned.count, offset + end - number)
                spawned.want(range(offset, stop))
                number += stop - offset

    def _withdraw(self, worker: int, message: Withdraw) -> None:
        parent = self._parents.get(message.task)
        withdrawn: list[tuple[int, int]] = []
        if parent is not None:
            spawned, offset = parent.find(message.first)
            for span in self._cancel(spawned, offset, message.count):
                withdrawn.append((spawned.number + span.first - spawned.first, span.count))
        self._master.workers.send(worker, Withdrawn(withdrawn))

    # Outcomes

    def concerns(self, outcomes: Outcomes) -> bool:
        """Whether one of these tasks has submitted tasks, or was submitted by one."""
        if outcomes.source in self._sources:
            return True
        tasks = range(outcomes.first, outcomes.first + outcomes.count)
        return any(task in tasks for task in self._parents)

    def results(self, worker: int, span: Span, outcomes: Outcomes) -> None:
        """Process outcomes of which one `concerns` this."""
        joins = outcomes.joins or {}
        outcomes = outcomes._replace(joins=None)
        joined = [(offset, numbers) for offset, numbers in joins.items() if offset not in outcomes.failures]
        for offset in range(outcomes.count):
            if offset not in joins or offset in outcomes.failures:
                self._end(worker, outcomes.first + offset, failed=offset in outcomes.failures)
        if not joined:
            self._finish(worker, span, outcomes)
            return
        for offset in range(outcomes.count):
            one = _one_of(outcomes, offset)
            if offset in joins and offset not in outcomes.failures:
                self._join(worker, span, one._replace(joins={0: joins[offset]}))
            else:
                self._finish(worker, span, one)

    def _finish(
        self, worker: int, span: Span, outcomes: Outcomes, error: BaseException | None = None
    ) -> None:
        """Process outcomes; `error` is the failure of a single task, if it is known here."""
        spawned = self._sources.get(outcomes.source)
        if spawned is None:
            self._master.pass_on(worker, span, outcomes)
            return
        failures: dict[int, BaseException] = {
            offset: annotated(ForwardedFailure(failure), failure)
            for offset, failure in outcomes.failures.items()
        }
        if error is not None:
            failures = {0: error}
        values = outcomes.values
        items: list[Any]
        if isinstance(values, bytes):
            items = load_plain(values)
        else:
            function = spawned.function
            items = [self._result(blob, function) for blob in values]
        completed = Completed(outcomes.first, items, failures, result_nbytes(outcomes))
        self._master.settle_outcomes(worker, span, outcomes, completed)

    def _result(self, blob: Blob, function: RegisteredFunction) -> Blob:
        return blob._replace(needs=_needs(blob.needs, function.blob.needs))

    def _end(self, worker: int, task: int, failed: bool) -> None:
        """Note that a task runs no more, and has returned no futures."""
        parent = self._parents.pop(task, None)
        if parent is None:
            return
        self._scheduler.end_spawning(worker, task, parent.function.farm)
        parent.over = True
        for spawned in parent.spawned:
            spawned.items.clear()
            if failed:
                self._cancel(spawned, 0, spawned.count)

    def _cancel(self, spawned: SpawnedCalls, offset: int, count: int) -> list[Span]:
        """Cancel those of some calls that are still in the queue, or whose futures were returned."""
        if not spawned.left:
            return []
        farm = spawned.function.farm
        first = spawned.first + offset
        spans = self._scheduler.cancel(first, count, farm)
        for span in spans:
            self._outstanding.events.tasks_dropped(span.first, span.count)
            self._outstanding.pending.release(span.source, span.first, span.count)
            spawned.left -= span.count
        if not spawned.left:
            self.forget(spawned)
        self.cancel_joined(first, count)
        return spans

    # Tasks that have returned futures

    def _join(self, worker: int, span: Span, outcomes: Outcomes) -> None:
        task = outcomes.first
        parent = self._parents.pop(task)
        self._scheduler.end_spawning(worker, task, parent.function.farm)
        self._scheduler.join(task, span.function)
        self._joins[task] = join = Join(self, parent, worker, span, outcomes)
        for number in join.numbers:
            spawned, offset = parent.find(number)
            spawned.joins[offset] = join
            spawned.wanted.discard(offset)
        for number in join.numbers:
            spawned, offset = parent.find(number)
            spawned._hand_on(range(offset, offset + 1))

    def finish_join(self, join: Join, outcome: Any) -> None:
        """Complete a task that has returned futures: with an item, or with an exception."""
        if join.parent.over:
            return
        join.parent.over = True
        del self._joins[join.parent.task]
        for spawned in join.parent.spawned:
            spawned.items.clear()
            spawned.joins.clear()
        # A chain of tasks that return futures may have any length.
        self._finished.append((join, outcome))
        if self._finishing:
            return
        self._finishing = True
        try:
            while self._finished:
                self._complete(*self._finished.pop())
        finally:
            self._finishing = False

    def _complete(self, join: Join, outcome: Any) -> None:
        outcomes = join.outcomes._replace(joins=None)
        if isinstance(outcome, BaseException):
            for spawned in join.parent.spawned:
                self._cancel(spawned, 0, spawned.count)
            if isinstance(outcome, CancelledError):
                single = Span(outcomes.source, outcomes.first, 1, join.span.function)
                self._scheduler.cancel_joined(outcomes.first, join.span.function)
                self._outstanding.fail(single, outcome)
                return
            failure = failure_of(outcome, "")
            outcomes = outcomes._replace(values=[NO_BLOB], failures={0: failure})
            self._scheduler.attempts.give_up(join.span.function, outcomes.first)
            self._finish(join.worker, join.span, outcomes, outcome)
            return
        self._finish(join.worker, join.span, outcomes._replace(values=as_values([outcome])))

    def name_of(self, outcomes: Outcomes) -> str:
        """The name of the function of a task."""
        return self._outstanding.pending.source_of(outcomes.source, outcomes.first).function.name

    def cancel_joined(self, first: int, count: int) -> int:
        """Cancel those of some tasks that wait for what their futures stand for; returns how many."""
        tasks = range(first, first + count)
        if count > len(self._joins):
            found = [join for task, join in self._joins.items() if task in tasks]
        else:
            found = [self._joins[task] for task in tasks if task in self._joins]
        for join in found:
            self.finish_join(
                join, CancelledError("cancelled while it waited for tasks that it has submitted")
            )
        return len(found)

    # Losses

    def lost(self, worker: int) -> None:
        """Cancel what tasks on a lost worker have submitted: they run again, or have failed."""
        for task in [task for task, parent in self._parents.items() if parent.worker == worker]:
            self._end(worker, task, failed=True)
        for key in [key for key in self._functions if key[0] == worker]:
            del self._functions[key]

    def returned(self, worker: int, tasks: list[tuple[int, int]]) -> None:
        """Cancel what tasks have submitted that are in the queue again: they were interrupted."""
        for first, count in tasks:
            for task in [task for task in self._parents if first <= task < first + count]:
                self._end(worker, task, failed=True)

    # What sinks call

    def give(self, spawned: SpawnedCalls, offset: int, item: Any) -> None:
        """Give an outcome to the calls that wait for it; if it is a failure, they are not run."""
        number = spawned.number + offset
        needed = Needed(key(number), spawned.function.farm, number, spawned.first + offset)
        if not isinstance(item, BaseException):
            given = to_give(item if type(item) is Blob else dumps(item))
            self._master.dependencies.give(needed, given)
            return

        def reason(span: Span) -> BaseException:
            task = f"task {span.first} {self._outstanding.pending.function_of(span).name}"
            return without_result(task, NOT_RUN, spawned, offset, item)

        self._master.dependencies.refuse(needed, item, reason)

    def forget(self, spawned: SpawnedCalls) -> None:
        """Drop calls that have all ended."""
        if self._sources.pop(spawned.first, None) is not None:
            self._scheduler.forget_spawned(spawned.first, spawned.function.farm)

    def send(self, spawned: SpawnedCalls, offset: int, items: list[Any]) -> None:
        """Send outcomes to the task that has submitted the calls."""
        worker = spawned.parent.worker
        number = spawned.number + offset
        failures = {
            at: failure_of(item, f"task {spawned.first + offset + at} {spawned.function.name}")
            for at, item in enumerate(items)
            if isinstance(item, BaseException)
        }
        items = [NO_BLOB if at in failures else item for at, item in enumerate(items)]
        needs = dict.fromkeys(need for item in items if type(item) is Blob for need in item.needs)
        definitions = self._master.workers.missing_definitions(worker, tuple(needs))
        message = Settled(number, len(items), as_values(items), failures, definitions)
        self._master.workers.send(worker, message)


def key(number: int) -> int:
    """What a call of a task is known by where others wait for it; unlike any id of a task."""
    return -1 - number


def without_result(
    task: str, why: str, spawned: SpawnedCalls, offset: int, error: BaseException
) -> DependencyFailed:
    """The failure of a task that needs, or has returned, the result of a call that has failed."""
    call = heading_of(error) or f"task {spawned.first + offset} {spawned.function.name}"
    return because_of(error, task, why, call, f"{call} failed")


def failure_of(error: BaseException, heading: str) -> Failure:
    """An exception in a form that can be sent."""
    if isinstance(error, ForwardedFailure):
        return error.failure
    if isinstance(error, DependencyFailed):
        cause = None if error.__cause__ is None else failure_of(error.__cause__, "")
        return Failure(dumps(error), summarize(error), "", "", cause)
    return capture_exception(error, heading)


def _needs(names: tuple[Any, ...], before: tuple[Any, ...]) -> Needs:
    """What a blob of a worker needs: of its names, the definitions that the function `before` it had."""
    if not names:
        return Needs()
    known = {name for definition in before for name in definition.names}
    missing = [name for name in names if type(name) is str and name not in known]
    others = [one for one in names if type(one) is not str]
    if not (missing or others) and isinstance(before, Needs):
        return before
    return Needs(dict.fromkeys((*before, *others, *(DEFINITIONS.needed((), missing) if missing else ()))))


def _one_of(outcomes: Outcomes, offset: int) -> Outcomes:
    """The outcome of one of several tasks."""
    values = outcomes.values
    return outcomes._replace(
        first=outcomes.first + offset,
        count=1,
        values=as_values([load_plain(values)[offset]]) if isinstance(values, bytes) else [values[offset]],
        failures={0: outcomes.failures[offset]} if offset in outcomes.failures else {},
        kept={0: outcomes.kept[offset]} if outcomes.kept and offset in outcomes.kept else None,
        seconds=outcomes.seconds / outcomes.count,
        started=outcomes.started + outcomes.seconds * offset / outcomes.count,
        cpu=outcomes.cpu / outcomes.count,
        core_wait=outcomes.core_wait / outcomes.count,
    )
