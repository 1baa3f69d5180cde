"""What is owed: from the moment that calls are queued until their owners are told what became of them."""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from functools import partial

from taskfarm.errors import JournalError, TaskFarmError
from taskfarm.master.interfaces import Entered, Keeper, Owner, Post
from taskfarm.master.pending_calls import Source, Sources
from taskfarm.master.recorders import Records
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.outcomes import Completed
from taskfarm.schedule.spans import Span
from taskfarm.transport.waiting import Clock


class Accounts:
    """Gives ids, keeps outcomes in the journal if there is one, and posts them to their owners.

    Attributes
    ----------
    sources : Sources
        What is queued, and whose it is.
    keeper : Keeper or None
        The journal.
    records : Records
        What recorders are told.
    broken : TaskFarmError or None
        Why the journal can keep nothing any more; every outcome from then on is this error.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.records = Records()
        self.sources = Sources()
        self.keeper: Keeper | None = None
        self.broken: TaskFarmError | None = None
        self._post = Post()
        self._next_id = self._submits = 0

    def enter(
        self, function: RegisteredFunction, arguments: Arguments, owner: Owner, single: bool
    ) -> tuple[int, Entered]:
        """Give calls their ids; returns the first, and what the journal says of them."""
        entered = Entered([], {})
        if self.keeper is not None:
            entered = self.keeper.enter(function, arguments)
        first = self._next_id
        self._next_id += arguments.count
        queued = self._clock.now() if self.records else 0.0
        place = (0, self._submits) if single else owner.number(arguments.count)
        self._submits += single
        self.sources.add(first, Source(arguments, owner, function, entered.keys, queued, *place), single)
        return first, entered

    def complete(
        self, worker: int, outcomes: Outcomes, completed: Completed, again: Collection[int]
    ) -> None:
        """Take in what a worker says of some tasks; those at the offsets `again` have not ended."""
        if self.records:
            self._record(worker, outcomes, completed, again)
        ended, failed = outcomes.count - len(again), len(completed.failures) - len(again)
        self.sources.advance(outcomes.source, ended, failed, len(again))
        if (keeper := self._open) is not None:
            self._keep(keeper, worker, outcomes, completed, again)
        for piece in _pieces(completed, again):
            self._tell(outcomes.source, piece, as_wished=True)

    def fail(self, span: Span, error: BaseException, as_wished: bool = False) -> None:
        """End tasks for one reason that was found here."""
        if as_wished and (keeper := self._open) is not None:
            keys, function = self.sources.keys(span), self.sources.function_of(span)
            self._try(partial(keeper.keep_failed, function, keys, span.first, error))
        cancelled = isinstance(error, CancelledError)
        if not cancelled:
            function = self.sources.function_of(span)
            self.records.failed(self._clock.now(), function, span.first, span.count, error)
        self.sources.advance(span.source, span.count, 0 if cancelled else span.count)
        self._tell(span.source, Completed.failed(span.first, error, span.count), as_wished)

    def give(self, source: int, completed: Completed) -> None:
        """Hand out what is known without a worker."""
        self.sources.advance(source, len(completed.values), len(completed.failures))
        self._tell(source, completed, as_wished=True)

    def commit(self, now: float) -> None:
        """See that the journal has all that is about to be told."""
        if (keeper := self._open) is not None:
            self._try(partial(keeper.commit, now))

    def deliver(self) -> None:
        """Tell the owners."""
        self._post.deliver()

    @property
    def delivering(self) -> bool:
        """Whether this thread is telling an owner, further up its stack."""
        return self._post.busy

    @property
    def _open(self) -> Keeper | None:
        """The journal, while it can keep something."""
        return None if self.broken else self.keeper

    def _record(
        self, worker: int, outcomes: Outcomes, completed: Completed, again: Collection[int]
    ) -> None:
        source, first, count, _, _, seconds, started = outcomes
        arguments, _, function, _, queued, *_ = self.sources.of_task(source, first)
        size = completed.nbytes + count * arguments.call_nbytes
        run = (first, count, started, seconds)
        self.records.ended(
            self._clock.now(), worker, function, queued, run, completed.failures, again, size
        )

    def _keep(
        self, keeper: Keeper, worker: int, outcomes: Outcomes, completed: Completed, again: Collection[int]
    ) -> None:
        span = Span(outcomes.source, outcomes.first, outcomes.count, 0)
        keys, function = self.sources.keys(span), self.sources.function_of(span)
        for offset in again:
            keys[offset] = b""
        for offset in completed.failures.keys() - outcomes.failures.keys() - set(again):
            # It was found here that the result cannot be loaded.
            task, error = span.first + offset, completed.failures[offset]
            self._try(partial(keeper.keep_failed, function, [keys[offset]], task, error))
            keys[offset] = b""
        self._try(partial(keeper.keep, worker, function, keys, outcomes))

    def _try(self, use: Callable[[], None]) -> None:
        """Use the journal; if that fails, what it has not kept counts as failed."""
        try:
            use()
        except JournalError as error:
            self.broken = error
            self._post.spoil(error)

    def _tell(self, source: int, completed: Completed, as_wished: bool) -> None:
        if self.broken is not None:
            completed = Completed.failed(completed.first, self.broken, len(completed.values))
        self.sources.complete(source, completed, self._post, as_wished)


def _pieces(completed: Completed, without: Collection[int]) -> Iterator[Completed]:
    """What lies between the offsets `without`."""
    if not without:
        yield completed
        return
    start = 0
    for offset in [*sorted(without), len(completed.values)]:
        if offset > start:
            failures = {o - start: e for o, e in completed.failures.items() if start <= o < offset}
            yield Completed(completed.first + start, completed.values[start:offset], failures, 0)
        start = offset + 1


def runs(ready: Mapping[int, object], errors: Mapping[int, BaseException]) -> Iterator[Completed]:
    """Outcomes that are known beforehand, gathered where they are neighbours; `first` is an offset."""
    values: list[object] = []
    failures: dict[int, BaseException] = {}
    first = 0
    for offset in sorted(ready.keys() | errors.keys()):
        if values and offset != first + len(values):
            yield Completed(first, values, failures, 0)
            values, failures = [], {}
        if not values:
            first = offset
        if offset in errors:
            failures[offset - first] = errors[offset]
        values.append(ready.get(offset))
    if values:
        yield Completed(first, values, failures, 0)
