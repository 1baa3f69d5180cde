"""A map: it draws arguments from iterables as needed, and yields results in order or as they arrive."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice, repeat, starmap
from operator import length_hint
from typing import Any, NamedTuple, NoReturn, cast

from taskfarm import interrupts
from taskfarm.console import say
from taskfarm.errors import UsageError
from taskfarm.job.expecting import expect_calls
from taskfarm.job.html import table
from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.protocol import shared
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.outcomes import Completed
from taskfarm.schedule.batching import MAX_AHEAD

_SMALL = (int, float, complex, type(None))


class MapOptions(NamedTuple):
    """How to run a map.

    Attributes
    ----------
    timeout : float or None
        Seconds from the call of map after which waiting for a result raises TimeoutError.
    chunksize : int or None
        Tasks to send together; None: the farm measures the best number.
    buffersize : int or None
        Maximum number of tasks drawn from the iterables and not yet consumed; None: the farm decides.
    unordered : bool
        Whether results are yielded as they arrive, not in the order of the arguments.
    with_arguments : bool
        Whether each result is yielded in a pair with the arguments of its call.
    """

    timeout: float | None = None
    chunksize: int | None = None
    buffersize: int | None = None
    unordered: bool = False
    with_arguments: bool = False

    def checked(self) -> "MapOptions":
        """Return these options; raises what the standard library raises for a wrong value."""
        for name, words in (("chunksize", ">= 1."), ("buffersize", "None or > 0")):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                raise TypeError(f"{name} must be an integer or None")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be {words}")
        return self


class MapArguments:
    """Draws arguments from the iterables that the caller passed to a map.

    Parameters
    ----------
    iterables : sequence of iterables
        For ``map``: one per position. For ``starmap``: a single one, of tuples.
    star : bool
        Whether the call is ``starmap``.
    keep : bool
        Whether to keep what was drawn last in `drawn`.

    Attributes
    ----------
    size : int or None
        How many calls the iterables claim to have; None if one does not say. Only a hint: the claim may
        be wrong.
    exhausted : bool
        Whether there are no more arguments.
    error : BaseException or None
        What the iterables have raised.
    drawn : sequence
        What was drawn last, if it is kept.
    """

    def __init__(self, iterables: Sequence[Iterable[Any]], star: bool, keep: bool = False) -> None:
        sizes = [_size(iterable) for iterable in iterables]
        known = [size for size in sizes if size is not None]
        self.size = min(known, default=0) if len(known) == len(sizes) else None
        self._make: Callable[[Sequence[Any]], Arguments] = Arguments.from_rows
        self._items: Iterator[Any]
        self._range: range | None = None
        if star:
            self._items = map(_row, iter(iterables[0]))
        elif len(iterables) == 1:
            self._items = iter(iterables[0])
            self._make = self._of_column
            if type(iterables[0]) is range:
                # It is cut, not drawn, and its parts travel as ranges.
                self._range = iterables[0]
        else:
            self._items = zip(*iterables, strict=False)
        self._kept: Sequence[Any] = []
        self.exhausted = False
        self.error: BaseException | None = None
        self._keep = keep
        self.drawn: Sequence[Any] = []

    def draw(self, count: int, drawing: AbstractContextManager[None]) -> Arguments | None:
        """The arguments of up to `count` more calls; None if there are none now.

        Whatever the iterables raise is kept in `error`, for the place in the map where it was raised. Their
        code runs inside `drawing`.
        """
        if self._range is not None and not (self._kept or self.exhausted):
            items: Sequence[Any] = self._range[:count]
            self._range = self._range[count:]
            self.exhausted = len(items) < count
        else:
            items = self._extend_kept(count, drawing)
        try:
            if self._keep:
                self.drawn = items
            return self._make(items) if items else None
        except BaseException as error:
            # Only an interruption comes here: the items are not lost.
            self._kept, self.exhausted = items, False
            interrupts.postpone(error)
            return None

    def _extend_kept(self, count: int, drawing: AbstractContextManager[None]) -> Sequence[Any]:
        """The items that are kept, and others up to `count`."""
        items, self._kept = [*self._kept], []
        if not self.exhausted:
            if self._range is not None:
                self._items, self._range = iter(self._range), None
            try:
                with drawing:
                    # If an iterable raises, extend keeps the items before that.
                    items.extend(islice(self._items, count - len(items)))
                self.exhausted = len(items) < count
            except BaseException as error:
                self._end_with(error)
        return items

    def _end_with(self, error: BaseException) -> None:
        if interrupts.is_interrupt(error):
            interrupts.postpone(error)
            assert error.__traceback__ is not None
            inside = error.__traceback__.tb_next
            if inside is None or inside.tb_frame.f_code.co_filename == interrupts.__file__:
                # Not in the iterables' own code, so they can go on.
                return
            error = UsageError(
                f"the arguments of this map end early: {summarize(error)} was raised while they were "
                "drawn, and what draws them cannot go on; map again what is missing"
            )
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Draw no more: `error` follows what was drawn before."""
        self.error = error
        self.exhausted = True

    def peek(self, drawing: AbstractContextManager[None]) -> Arguments | None:
        """The arguments of the next call, which will be drawn again; None if there is none now."""
        keep, self._keep = self._keep, True
        first = self.draw(1, drawing)
        self._keep = keep
        if first is not None:
            self._kept, self.drawn = self.drawn, []
        return first

    def drop_iterables(self) -> None:
        """Forget the iterables, from which nothing more is drawn."""
        self._items, self._range = iter(()), None

    @staticmethod
    def _of_column(items: Sequence[Any]) -> Arguments:
        return Arguments.from_columns([items])


def _size(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]
    except Exception:
        # A bar around a generator has a length that raises.
        return None


def _row(item: Iterable[Any]) -> tuple[Any, ...]:
    try:
        return tuple(item)
    except StopIteration as error:
        # It would look like the end of all items.
        raise RuntimeError("an item of starmap raised StopIteration") from error


class MapResults(chain[Any]):
    """The results of a map, an iterator.

    Attributes
    ----------
    progress : MapProgress
        How far the map is.
    """

    progress: MapProgress

    def __repr__(self) -> str:
        """Show how many of its tasks have ended."""
        total = self.progress.drawn if self.progress.total is None else self.progress.total
        return f"<results of {self.progress.name}: {self.progress.ended:,} of {total:,} tasks have ended>"

    def _repr_html_(self) -> str:
        """What a notebook shows: how many tasks have ended, and failed."""
        progress = self.progress
        total = "not known yet" if progress.total is None else progress.total
        rows = {"tasks": total, "drawn": progress.drawn, "ended": progress.ended, "failed": progress.failed}
        return table(f"Results of {progress.name}", rows)


class MapRun:
    """A running map: the result sink of its tasks. The caller iterates over `results`.

    Any thread may consume it, and several may at a time. The thread that made the map draws its arguments,
    or else the thread that consumed it last.
    """

    def __init__(
        self, master: Master, function: RegisteredFunction, arguments: MapArguments, options: MapOptions
    ) -> None:
        self._master = master
        self._function = function
        # The job may drop the function, and its handles, while arguments are still drawn.
        self._handles = shared.alive(function.tokens)
        self._arguments = arguments
        self._options = options
        self._deadline = master.deadline(options.timeout)
        self._taken = self._consumed = 0
        self._farm = master.farm_of(function)
        self.farm = self._farm.id
        self._stream = next(self._farm.map_streams)
        self._progress = MapProgress(function.name, arguments.size, number=master.number_map())
        master.maps.add(self._progress)
        self._feeding = threading.Lock()
        self._drawn_all = False
        self._closed = False
        self.finishing = False
        self._order: deque[tuple[int, int]] = deque()
        self._arrived: dict[int, Completed] = {}
        self._calls: dict[int, Any] = {}
        self._expected = 0
        self._remaining = 0
        self._first_nbytes = 0
        self._unseen = 0
        self.begun = self.dropped = False
        self._window: Callable[[], int] = self._default_window
        self._limit: Callable[[], int] = self._default_limit
        self._demand = function.demand
        if self._demand is not None and (self._demand.longest or self._demand.by_call):
            # Which are the longest, or end before the walltime, is known only of what was drawn.
            self._window = lambda: max(MAX_AHEAD, self._default_window())
        if options.buffersize is not None:
            self._limit = lambda: options.buffersize or 1
        self._undrawn = arguments.size or 0
        with master.lock:
            master.undrawn += self._undrawn
        self.thread = threading.get_ident()
        master.feeders[id(self)] = self

    def feed(self) -> None:
        """Draw as many arguments as the farm should have in its queue now."""
        if not self._farm.accepting:
            return
        if not self._feeding.acquire(blocking=False):
            # Another thread draws, or this one, further up its stack.
            return
        try:
            with self._master.working():
                while not (self._drawn_all or self._closed or interrupts.pending()) and (
                    room := self._room()
                ):
                    self._draw(room)
        finally:
            self._feeding.release()

    def _room(self) -> int:
        """How many tasks to draw now; 0 if there is room for too few."""
        if not self._progress.drawn:
            # The first task shows how large the arguments are.
            if self._demand is None or not self._demand.longest:
                return 1
            self._look_at_first()
        with self._master.lock:
            limit, window = self._limit(), self._window()
        room = min(
            window - (self._progress.drawn - self._progress.ended),
            limit - (self._progress.drawn - self._consumed),
        )
        return room if room >= max(1, min(window, limit) // 4) else 0

    def _look_at_first(self) -> None:
        """Learn how large the arguments are, but queue none: the first call may be a short one."""
        first = self._arguments.peek(self._master.drawing())
        if first is not None:
            with self._master.lock:
                self._master.scheduler.estimate(self._function.id).argument_bytes = first.call_nbytes

    def _default_window(self) -> int:
        window = self._master.scheduler.estimate(self._function.id).window(self._master.num_workers)
        return max(window, 4 * self._master.num_workers * (self._chunk() or 1))

    def _default_limit(self) -> int:
        limit = self._master.scheduler.estimate(self._function.id).ahead(self._master.num_workers)
        return max(limit, 4 * self._master.num_workers * (self._chunk() or 1))

    def _chunk(self) -> int:
        """Tasks to send together; 0: as many as the farm chooses."""
        return self._options.chunksize or 0

    def _draw(self, count: int) -> None:
        master, progress = self._master, self._progress
        arguments = self._arguments.draw(count, master.drawing())
        if self._demand is not None:
            arguments = self._with_durations(arguments)
        with master.lock:
            if arguments is not None and not self._closed:
                if not progress.drawn:
                    self._first_nbytes = arguments.call_nbytes
                progress.drawn += arguments.count
                self._count_undrawn(arguments.count)
                if progress.total is not None and progress.drawn > progress.total:
                    progress.total = None
                try:
                    first = master.queue_calls(self._function, arguments, self, self._chunk())
                    self._order.append((first, arguments.count))
                    if self._options.with_arguments:
                        self._calls.update(enumerate(self._arguments.drawn, first))
                except Exception as error:
                    # The farm is broken; that is for the consumer of this map, not for the caller of this.
                    progress.drawn -= arguments.count
                    self._arguments.fail(error)
            if self._arguments.exhausted:
                self._end_drawing()
        if arguments is not None:
            master.watch(self._function, arguments)
        if self._drawn_all:
            self._release()
        master.deliver_restored()

    def _with_durations(self, arguments: Arguments | None) -> Arguments | None:
        """The same arguments, with how long each call should take; None if nobody can tell."""
        assert self._demand is not None
        if arguments is not None and self._demand.by_call:
            try:
                expect_calls(self._function, arguments)
            except UsageError as error:
                self._arguments.fail(error)
                return None
        return arguments

    def _release(self) -> None:
        """Forget what arguments are drawn from: this object may wait for the garbage collector."""
        self._handles = []
        self._arguments.drop_iterables()

    def _count_undrawn(self, count: int) -> None:
        count = min(count, self._undrawn)
        self._undrawn -= count
        self._master.undrawn -= count

    def _end_drawing(self) -> None:
        """Note, under the lock, that all arguments are drawn: consumers of this map rely on it."""
        self._drawn_all = True
        self._count_undrawn(self._undrawn)
        self._progress.total = self._progress.drawn
        self._master.feeders.pop(id(self), None)
        if self._arguments.error is not None and not self.begun:
            self._unseen = self._master.unseen.add(self._unseen, self._arguments.error)

    def finish(self) -> None:
        """Draw on until the end in this thread, if nobody has begun to consume the map.

        A map with a ``buffersize``, or one whose consumer stopped before the end, draws no more; if its
        length is unknown, it may have no end.
        """
        if self._options.buffersize is not None:
            return
        if self._arguments.size is not None:
            self._limit = self._window = lambda: self._progress.drawn + MAX_AHEAD
        elif not self.begun:
            # As many as the workers need: the iterables may have no end.
            self._limit = lambda: self._progress.drawn + MAX_AHEAD
        else:
            return
        self.finishing = True
        self.thread = threading.get_ident()
        self.feed()

    def give_up(self) -> None:
        """Draw no more, and say what is left."""
        if self._master.feeders.pop(id(self), None) is not None:
            say(
                f"the map of {self._function.name} ran {self._progress.drawn:,} tasks, and the rest of its "
                "arguments was not drawn: its results were not consumed before the farm was closed"
            )

    def mark_running(self) -> None:
        """Do nothing: a map does not show which tasks are running."""

    def rng_position(self, count: int) -> tuple[int, int]:
        """The random stream of this map, and how many tasks it had drawn before these."""
        return self._stream, self._progress.drawn - count

    def note_key(self, key: bytes, restored: bool = False) -> None:
        """Do nothing: no other task needs single results of a map."""

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Count tasks that have ended, those that have failed, and those that will be retried."""
        self._progress.add(ended, failed, retried)

    def complete_at_once(self, completed: Completed, offset: int) -> bool:
        """Refuse: outcomes of a map come in batches, and nothing would be gained."""
        return False

    def complete(self, completed: Completed, offset: int) -> None:
        """Store outcomes, which arrive in any order."""
        with self._master.lock:
            if self._closed:
                return
            if completed.failures and not self.begun:
                failures = completed.failures
                error = failures[min(failures)]
                self._unseen = self._master.unseen.add(self._unseen, error, len(failures))
            if not self.dropped:
                self._arrived[completed.first] = completed

    def results(self) -> Iterator[Any]:
        """The results; an exception of a task is raised in place of its result, and ends the map."""
        # Iterating in C keeps the cost per result low.
        results = cast(MapResults, MapResults.from_iterable(_Batches(self)))
        results.progress = self._progress
        return results

    def begin(self) -> None:
        """Note that somebody consumes the map: this thread draws its arguments from now on."""
        self.thread = threading.get_ident()
        if not self.begun:
            self.begun = True
            self._master.unseen.discard(self._unseen)

    def consumed(self, count: int) -> None:
        """Note that `count` results have been consumed."""
        with self._master.lock:
            self._consumed += count

    def set_timeout(self, timeout: float | None) -> None:
        """Let `wait` raise TimeoutError after so many seconds from now on."""
        self._deadline = self._master.deadline(timeout)

    def take(self) -> Completed | None:
        """The next outcomes, if they have arrived; called under the master's lock."""
        if not self._available():
            return None
        first = next(iter(self._arrived)) if self._options.unordered else self._expected
        completed = self._arrived.pop(first)
        count = len(completed.values)
        self._taken += count
        self._expected += count
        self._remaining -= count
        return completed if not self._options.with_arguments else self._with_arguments(completed)

    def _with_arguments(self, completed: Completed) -> Completed:
        """The results, each with the arguments of its call."""
        numbered = enumerate(completed.values, completed.first)
        return completed._replace(values=[(self._calls.pop(number), value) for number, value in numbered])

    def wait(self) -> None:
        """Wait until there are outcomes to take, or the map has ended.

        Raises
        ------
        TimeoutError
            They have not arrived in time.
        UsageError
            The farm was shut down before the map had drawn all its arguments.
        """
        master = self._master
        self.feed()
        if self.is_ready():
            return
        if not self._drawn_all and id(self) not in master.feeders:
            raise UsageError(
                "the farm was shut down before this map had drawn all its arguments: consume "
                "its results inside the `with` block"
            )
        if not master.run_until(self.is_ready, self._deadline):
            raise TimeoutError("the next result of the map did not arrive in time")

    def is_ready(self) -> bool:
        """Whether there are outcomes to take, or the map has ended."""
        with self._master.lock:
            return self._available() or self.is_over()

    def _available(self) -> bool:
        """Whether the next outcomes have arrived."""
        if self._options.unordered:
            return bool(self._arrived)
        if not self._remaining and self._order:
            self._expected, self._remaining = self._order.popleft()
        return bool(self._remaining) and self._expected in self._arrived

    def is_over(self) -> bool:
        """Whether all outcomes have been taken, or the map was closed; called under the master's lock."""
        return self._closed or (self._drawn_all and self._taken == self._progress.drawn)

    def take_error(self) -> BaseException | None:
        """What the iterables have raised; once."""
        error, self._arguments.error = self._arguments.error, None
        return error

    def close(self) -> None:
        """Cancel the tasks in the queue, and drop the results of the others."""
        if self._master.forked:
            return
        with self._master.lock:
            if self._closed:
                return
            self._closed = self._progress.closed = True
            self._master.feeders.pop(id(self), None)
            self._count_undrawn(self._undrawn)
            cancelled = self._master.cancel_all_of(self)
            self._progress.ended += cancelled
            self._arrived.clear()
        self._release()


class _Batches(Iterator[Iterator[Any]]):
    """The results of a map, as iterators over those that have arrived together.

    As long as the last iterator has items, it is given again. So no result is lost or given twice if a
    consumer is interrupted, or if several threads consume the map. For the same reason this raises nothing
    itself (that would end the chain around it for good) but gives an iterator that raises.
    """

    def __init__(self, run: MapRun) -> None:
        self._run = run
        self._items: Iterator[Any] = iter(())
        self._left: object = ()
        self._count = 0
        self._failure: BaseException | None = None
        self._over = False

    def __next__(self) -> Iterator[Any]:
        run = self._run
        run.begin()
        while True:
            try:
                # Before the error that says what an interruption has cost.
                interrupts.raise_pending()
                with run._master.lock:
                    items = self._next_items()
                if items is not None:
                    return items
                run.wait()
            except StopIteration:
                raise
            except BaseException as error:
                if not interrupts.is_interrupt(error):
                    self._end()
                return map(_raise, (error,))

    def _next_items(self) -> Iterator[Any] | None:
        """The next results if they have arrived; raises what comes after them."""
        if length_hint(self._left):
            return self._items
        run = self._run
        run.consumed(self._count)
        self._count = 0
        if self._failure is not None:
            error, self._failure = self._failure, None
            self._end()
            # Not raised here: these frames say nothing to the reader of a traceback.
            return map(_raise, (error,))
        if self._over:
            raise StopIteration
        completed = run.take()
        if completed is not None:
            values = completed.values
            if completed.failures:
                offset = min(completed.failures)
                self._failure = completed.failures[offset]
                values = values[:offset]
            self._count = len(values)
            self._set(values)
            return self._items
        if run.is_over():
            self._end()
            if (raised := run.take_error()) is not None:
                raise raised
            raise StopIteration
        return None

    def _set(self, values: list[Any]) -> None:
        """Give these values; large ones leave the list, so that each is freed with its receiver."""
        if not values or issubclass(type(values[0]), _SMALL):
            self._items = self._left = iter(values)
            return
        values.reverse()
        times = repeat((), len(values))
        self._items, self._left = starmap(values.pop, times), times

    def _end(self) -> None:
        self._over = True
        self._run.close()

    def __del__(self) -> None:
        run = self._run
        if run.begun:
            if not self._over:
                run._master.abandoned.append(run)
        else:
            # The tasks run nevertheless, for what else they do.
            run.dropped = True


def _raise(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        # Otherwise the exception and its traceback would keep each other alive, and the map with them.
        del error
