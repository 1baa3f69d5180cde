"""A map in a task: it submits calls as its results are consumed."""

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskfarm.protocol.arguments import Arguments
from taskfarm.worker.child_futures import ChildFuture

if TYPE_CHECKING:
    from taskfarm.worker.spawning import Spawner

WINDOW = 256
"""Calls that are submitted before their results are consumed."""

SPAWNED_TOGETHER = 64
"""Most calls that travel in one message."""


class ChildMap:
    """A map in a task.

    Parameters
    ----------
    spawner : Spawner
        The farm of the task.
    fn : callable
        The function.
    rows : iterator
        The arguments of each call.
    single : bool
        Whether these are no tuples, but the only argument itself.
    stream : tuple of int
        The random stream of the calls.
    ahead : int
        Calls to submit ahead of what the caller has consumed.
    """

    def __init__(
        self,
        spawner: "Spawner",
        fn: Any,
        rows: Iterator[Any],
        single: bool,
        stream: tuple[int, ...],
        ahead: int,
    ) -> None:
        self._spawner, self._fn, self._rows, self._single = spawner, fn, rows, single
        self._stream, self._ahead = stream, ahead
        self._drawn = 0
        self._waiting: deque[tuple[ChildFuture[Any], Any]] = deque()
        self._error: BaseException | None = None
        self._exhausted = False

    def draw(self) -> None:
        """Submit calls until enough are ahead of the caller."""
        while not self._exhausted and (room := self._ahead - len(self._waiting)) > 0:
            items: list[Any] = []
            try:
                items.extend(islice(self._rows, min(room, SPAWNED_TOGETHER)))
                self._exhausted = not items
            except BaseException as error:
                self._exhausted, self._error = True, error
            if not items:
                return
            arguments = Arguments.from_columns([items]) if self._single else Arguments.from_rows(items)
            futures = self._spawner.spawn(self._fn, arguments, self._stream, self._drawn)
            self._drawn += len(futures)
            for future in futures:
                self._spawner.want(future)
            self._waiting.extend(zip(futures, items, strict=True))

    def results(self, deadline: float | None, unordered: bool, with_arguments: bool) -> Iterator[Any]:
        """The results, in order or as they arrive."""
        try:
            while self._waiting:
                at = self._next(deadline, unordered)
                self._waiting.rotate(-at)
                future, item = self._waiting.popleft()
                self._waiting.rotate(at)
                self.draw()
                result = future.result()
                yield (item, result) if with_arguments else result
            if self._error is not None:
                raise self._error
        finally:
            for future, _ in self._waiting:
                future.cancel()

    def _next(self, deadline: float | None, unordered: bool) -> int:
        """The place of the next future that has ended."""
        looked = list(self._waiting) if unordered else [self._waiting[0]]

        def ended() -> bool:
            return any(future.has_ended for future, _ in looked)

        timeout = None if deadline is None else deadline - time.monotonic()
        if not self._spawner.wait_until(ended, timeout):
            raise TimeoutError("the next result of the map did not arrive in time")
        return next(at for at, (future, _) in enumerate(looked) if future.has_ended)
