"""A map: it draws arguments from iterables as needed, and yields results in order or as they arrive."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import chain, islice, repeat, starmap
from typing import Any, NamedTuple

from taskfarm.errors import TaskFarmError, UsageError
from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.protocol.arguments import Arguments
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
    """

    timeout: float | None = None
    chunksize: int | None = None
    buffersize: int | None = None
    unordered: bool = False

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
    """

    def __init__(self, iterables: Sequence[Iterable[Any]], star: bool) -> None:
        sizes = [len(iterable) for iterable in iterables if isinstance(iterable, Sized)]
        self.size = min(sizes, default=0) if len(sizes) == len(iterables) else None
        self._make = self._of_tuples if star else Arguments.from_rows
        self._items: Iterator[Any]
        if star:
            self._items = iter(iterables[0])
        elif len(iterables) == 1:
            self._items = iter(iterables[0])
            self._make = self._of_column
        else:
            self._items = zip(*iterables, strict=False)
        self.exhausted = False
        self.error: BaseException | None = None

    def draw(self, count: int) -> Arguments | None:
        """The arguments of up to `count` more calls; None if there are no more."""
        items: list[Any] = []
        try:
            # If an iterable raises, extend keeps the items before that.
            items.extend(islice(self._items, count))
        except Exception as error:
            self.error = error
        self.exhausted = len(items) < count
        return self._make(items) if items else None

    def fail(self, error: BaseException) -> None:
        """Draw no more: `error` follows what was drawn before."""
        self.error = error
        self.exhausted = True

    @staticmethod
    def _of_column(items: list[Any]) -> Arguments:
        return Arguments.from_columns([items])

    @staticmethod
    def _of_tuples(items: list[Any]) -> Arguments:
        return Arguments.from_rows([tuple(item) for item in items])


class MapRun:
    """A running map: the result sink of its tasks. The caller iterates over `results`."""

    def __init__(
        self, master: Master, function: RegisteredFunction, arguments: MapArguments, options: MapOptions
    ) -> None:
        self._master = master
        self._function = function
        self._arguments = arguments
        self._options = options
        self._deadline = master.deadline(options.timeout)
        self._consumed = 0
        self._farm = master.farm_of(function)
        self.farm = self._farm.id
        self._stream = next(self._farm.map_streams)
        self._progress = MapProgress(function.name, arguments.size, number=next(master.map_numbers))
        master.maps.add(self._progress)
        self._feeding = False
        self._closed = False
        self._order: deque[tuple[int, int]] = deque()
        self._arrived: dict[int, Completed] = {}
        self._expected = 0
        self._remaining = 0
        self._window: Callable[[], int] = self._default_window
        self._limit: Callable[[], int] = self._default_limit
        if options.buffersize is not None:
            self._limit = lambda: options.buffersize or 1
        master.undrawn += arguments.size or 0
        self.thread = threading.get_ident()
        master.feeders[id(self)] = self

    def feed(self) -> None:
        """Draw as many arguments as the farm should have in its queue now; only in the caller's thread."""
        if self._feeding or self._closed or not self._farm.accepting:
            return
        self._feeding = True
        try:
            while not self._arguments.exhausted and (room := self._room()):
                self._draw(room)
        finally:
            self._feeding = False
        if self._arguments.exhausted:
            self._master.feeders.pop(id(self), None)
            self._progress.total = self._progress.drawn

    def _room(self) -> int:
        """How many tasks to draw now; 0 if there is room for too few."""
        if not self._progress.drawn:
            # The first task shows how large the arguments are.
            return 1
        limit, window = self._limit(), self._window()
        room = min(
            window - (self._progress.drawn - self._progress.ended),
            limit - (self._progress.drawn - self._consumed),
        )
        return room if room >= max(1, min(window, limit) // 4) else 0

    def _default_window(self) -> int:
        window = self._master.scheduler.estimate(self._function.id).window(self._master.num_workers)
        return max(window, 4 * self._master.num_workers * (self._options.chunksize or 1))

    def _default_limit(self) -> int:
        limit = self._master.scheduler.estimate(self._function.id).ahead(self._master.num_workers)
        return max(limit, 4 * self._master.num_workers * (self._options.chunksize or 1))

    def _draw(self, count: int) -> None:
        arguments = self._arguments.draw(count)
        if arguments is None:
            return
        self._progress.drawn += arguments.count
        if self._arguments.size is not None:
            self._master.undrawn -= arguments.count
        with self._master.lock:
            chunksize = self._options.chunksize or 0
            try:
                first = self._master.queue_calls(self._function, arguments, self, chunksize)
            except TaskFarmError as error:
                # This may be the thread of a caller who waits for something else.
                self._progress.drawn -= arguments.count
                self._arguments.fail(error)
                return
            self._order.append((first, arguments.count))
        self._master.deliver_restored()

    def feed_all(self) -> None:
        """Draw the arguments that are left, if their number is known and there is no `buffersize`."""
        if self._arguments.size is not None and self._options.buffersize is None:
            self._limit = self._window = lambda: self._progress.drawn + MAX_AHEAD
            self.feed()

    def mark_running(self) -> None:
        """Do nothing: a map does not show which tasks are running."""

    def rng_position(self, count: int) -> tuple[int, int]:
        """The random stream of this map, and how many tasks it had drawn before these."""
        return self._stream, self._progress.drawn - count

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Count tasks that have ended, those that have failed, and those that will be retried."""
        self._progress.add(ended, failed, retried)

    def complete(self, completed: Completed, offset: int) -> None:
        """Store outcomes, which arrive in any order."""
        with self._master.lock:
            if not self._closed:
                self._arrived[completed.first] = completed

    def results(self) -> Iterator[Any]:
        """The results; an exception of a task is raised in place of its result, and ends the map."""
        # Iterating in C keeps the cost per result low.
        return chain.from_iterable(map(_consume, self._batches()))

    def _batches(self) -> Iterator[list[Any]]:
        """The results in lists, which the receiver may empty."""
        try:
            while (completed := self._next()) is not None:
                values = completed.values
                if completed.failures:
                    offset = min(completed.failures)
                    if offset:
                        yield values[:offset]
                    raise completed.failures[offset]
                count = len(values)
                yield values
                self._consumed += count
            if self._arguments.error is not None:
                raise self._arguments.error
        finally:
            self.close()

    def _next(self) -> Completed | None:
        """The next outcomes to yield; None after the last."""
        self.feed()
        if not self._available():
            if not self._arguments.exhausted and not self._farm.accepting:
                raise UsageError(
                    "the farm was shut down before this map had drawn all its arguments: consume "
                    "its results inside the `with` block"
                )
            if not self._master.run_until(self._available, self._deadline):
                raise TimeoutError("the next result of the map did not arrive in time")
        if self._consumed_all():
            return None
        # Another thread may be running the event loop and adding outcomes.
        with self._master.lock:
            key = next(iter(self._arrived)) if self._options.unordered else self._expected
            completed = self._arrived.pop(key)
        self._expected += len(completed.values)
        self._remaining -= len(completed.values)
        return completed

    def _available(self) -> bool:
        """Whether the next outcomes have arrived, or the map has ended."""
        if self._options.unordered:
            return bool(self._arrived) or self._consumed_all()
        if not self._remaining and self._order:
            self._expected, self._remaining = self._order.popleft()
        if self._remaining:
            return self._expected in self._arrived
        return self._consumed_all()

    def _consumed_all(self) -> bool:
        return self._arguments.exhausted and self._consumed == self._progress.drawn

    def close(self) -> None:
        """Cancel the tasks in the queue, and drop the results of the others."""
        if self._closed:
            return
        self._closed = self._progress.closed = True
        self._master.feeders.pop(id(self), None)
        if self._arguments.size is not None:
            self._master.undrawn -= max(0, self._arguments.size - self._progress.drawn)
        with self._master.lock:
            cancelled = self._master.cancel_all_of(self)
            self._progress.ended += cancelled
            self._arrived.clear()


def _consume(values: list[Any]) -> Iterator[Any]:
    """The values of a list; large ones are removed from it, so that each is freed with its receiver."""
    if isinstance(values[0], _SMALL):
        return iter(values)
    values.reverse()
    return starmap(values.pop, repeat((), len(values)))
