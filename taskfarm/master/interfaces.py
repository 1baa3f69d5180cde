"""Those whom the master tells: the owners of tasks, maps that can draw more, observers."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.outcomes import Completed, apply_on_error
from taskfarm.schedule.policy import OnError

Observer: TypeAlias = Callable[[float], None]
"""Looks at the master every `TICK` seconds, with the time; called under the master's lock."""

TICK = 0.1
"""Seconds between two looks of the observers."""


class Owner(Protocol):
    """Who queued a source: a future, or a map."""

    def start(self) -> None:
        """Some of the tasks are on their way to a worker; called under the master's lock."""

    def number(self, count: int) -> tuple[int, int]:
        """Which numbers tasks that are queued now have: their stream, and the index of the first."""

    def advance(self, ended: int, failed: int, again: int) -> None:
        """Some of several tasks have ended, some of these badly, and some will be tried again.

        Called under the master's lock, before they are delivered.
        """

    def complete(self, completed: Completed, offset: int) -> None:
        """Take outcomes: a map all of them, a future the one at `offset`.

        Called without the lock, from whichever thread drives.
        """


@dataclass(eq=False)
class Progress:
    """How far a map is.

    Attributes
    ----------
    name : str
        What to call it.
    total : int or None
        Its tasks; None while that is not function.
    ended, failed : int
        Those that have ended, and those of them that have failed.
    retried : int
        How often a task of it was queued again.
    drawn : int
        Those that have been queued.
    closed : bool
        Whether its caller wants no more of it.
    number : int
        Maps are numbered in the order in which they began.
    """

    name: str
    total: int | None
    ended: int = 0
    failed: int = 0
    retried: int = 0
    drawn: int = 0
    closed: bool = False
    number: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing more will become of it."""
        return self.closed or self.ended == self.total


class Feeder(Protocol):
    """A map that can draw more arguments."""

    thread: int

    def feed(self) -> None:
        """Draw as many as the farm should have at hand now."""

    def finish(self) -> None:
        """Draw the rest, if there is an end to it."""


class Entered(NamedTuple):
    """What a journal says of calls that are to be queued.

    Attributes
    ----------
    keys : list of bytes
        What names each call, 16 bytes.
    values : dict of int to object
        Results that are there already, by offset; those calls need not run.
    """

    keys: list[bytes]
    values: dict[int, Any]


class Keeper(Protocol):
    """A journal: keeps outcomes, and knows those of an earlier run. Called under the master's lock.

    Every method may raise JournalError; none of what was kept since the last commit counts then.

    Attributes
    ----------
    restored : int
        Results that it knew.
    """

    restored: int

    def enter(self, function: RegisteredFunction, arguments: Arguments) -> Entered:
        """Name calls, and look for their results."""

    def keep(
        self, worker: int, function: RegisteredFunction, keys: Sequence[bytes], outcomes: Outcomes
    ) -> None:
        """Keep the outcomes of a part, apart from those whose key is empty: they will be tried again."""

    def keep_failed(
        self, function: RegisteredFunction, keys: Sequence[bytes], first: int, error: BaseException
    ) -> None:
        """Keep that tasks failed on the master for one reason."""

    def commit(self, now: float) -> None:
        """See that what was kept outlives this process; called before any owner is told of it."""

    def close(self) -> None:
        """See that all is on the disk, and give the file back."""


class Post:
    """Outcomes on their way to their owners, whose code may submit, or wait and so turn the farm."""

    def __init__(self) -> None:
        self._letters: deque[tuple[Owner, Completed, int | None, OnError]] = deque()
        self._delivering: set[int] = set()

    def put(self, owner: Owner, completed: Completed, offset: int | None, on_error: OnError) -> None:
        """Keep outcomes for their owner: the one at `offset`, or all."""
        self._letters.append((owner, completed, offset, on_error))

    def spoil(self, error: BaseException) -> None:
        """Put an error in the place of all that has not been delivered."""
        for _ in range(len(self._letters)):
            owner, completed, offset, _ = self._letters.popleft()
            self.put(
                owner, Completed.failed(completed.first, error, len(completed.values)), offset, "raise"
            )

    @property
    def busy(self) -> bool:
        """Whether this thread is delivering, further up its stack."""
        return threading.get_ident() in self._delivering

    def deliver(self) -> None:
        """Tell the owners."""
        if not self._letters:
            return
        nested = self.busy
        self._delivering.add(threading.get_ident())
        try:
            while self._letters:
                try:
                    owner, completed, offset, on_error = self._letters.popleft()
                except IndexError:  # another thread was faster
                    return
                if on_error != "raise":
                    completed = apply_on_error(completed, offset, on_error)
                owner.complete(completed, offset or 0)
        finally:
            if not nested:
                self._delivering.discard(threading.get_ident())
