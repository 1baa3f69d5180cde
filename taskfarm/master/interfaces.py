"""What the master talks to without importing it: result sinks, maps, observers and the journal."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Held, Outcomes
from taskfarm.protocol.outcomes import Completed
from taskfarm.protocol.references import Given

Position: TypeAlias = tuple[int | tuple[int, ...], int]
"""A random stream, and an index in it; the stream of what a task has submitted is a tuple."""

Observer: TypeAlias = Callable[[float], None]
"""Looks at the master ten times a second; it gets the time and runs under the master's lock."""


class ResultSink(Protocol):
    """Where the outcomes of calls go: a future, a map, or the task that has submitted the calls."""

    def mark_running(self) -> None:
        """Note that some of the tasks are on their way to a worker; called under the master's lock."""

    def rng_position(self, count: int) -> Position:
        """The random stream of the `count` tasks that are queued now, and the index of the first in it."""

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Count tasks that have ended, those of them that have failed, and those that will be retried.

        Called under the master's lock, before the outcomes are delivered.
        """

    def note_key(self, key: bytes, restored: bool = False) -> None:
        """Note the key of a single call in the journal, and whether its result is from there.

        The key is empty if `on_error` has replaced what the call raised.
        """

    def complete_at_once(self, completed: Completed, offset: int) -> bool:
        """Receive outcomes as `complete` does, but under the master's lock, and call no code of users.

        False if that cannot be: then `complete` follows.
        """

    def complete(self, completed: Completed, offset: int) -> None:
        """Receive outcomes: a map uses all of them, a future the one at `offset`.

        Called without the lock, from whichever thread runs the event loop.
        """


class Dependency(Protocol):
    """A future among the arguments of calls.

    Attributes
    ----------
    task_id : int or None
        Its task; None if its call could not be queued.
    farm : int
        The farm of its task.
    key : int
        Identifies it among the futures of its master: the id of its task if there is one.
    journal_key : bytes
        The key of its call in the journal; empty if another run could not tell that its result is the same.
    restored : bool
        Whether its result is from the journal.
    """

    task_id: int | None
    farm: int
    journal_key: bytes
    restored: bool

    @property
    def key(self) -> int: ...

    def failure(self) -> BaseException | None:
        """Why there is no result, after it has ended: CancelledError if it was cancelled."""

    def given(self) -> Given:
        """Its result, pickled; may call code of users."""

    def note_seen(self) -> None:
        """Note that tasks which need it tell the job of its failure."""

    def call_when_ended(self) -> None:
        """Make it call `Master.settle` when it has ended; at once if it has."""


class AskingSink(ResultSink, Protocol):
    """A sink of large results: workers hold them back until it asks for them."""

    def offer(self, worker: int, held: Held) -> None:
        """Learn of results that a worker holds back; called under the master's lock."""


class MapFeeder(Protocol):
    """A map that can draw more arguments.

    Attributes
    ----------
    thread : int
        The thread that consumes it.
    farm : int
        The farm of its tasks.
    """

    thread: int
    finishing: bool
    farm: int

    def feed(self) -> None:
        """Draw as many arguments as the farm should have in its queue now."""

    def finish(self) -> None:
        """Draw on until the end in this thread, if nobody has begun to consume the map."""

    def give_up(self) -> None:
        """Draw no more, and say what is left."""

    def close(self) -> None:
        """Cancel the tasks in the queue, and drop the results of the others."""


class JournalEntry(NamedTuple):
    """What the journal knows of calls that are about to be queued.

    Attributes
    ----------
    keys : list of bytes
        The key of each call, 16 bytes.
    values : dict of int to object
        Results from an earlier run, by offset; those calls need not run.
    """

    keys: list[bytes]
    values: dict[int, Any]


class JournalInterface(Protocol):
    """Records outcomes, and looks up those of an earlier run. Called under the master's lock.

    Every method may raise JournalError; then nothing recorded since the last commit counts.

    Attributes
    ----------
    restored : int
        Results taken from an earlier run.
    """

    restored: int

    def open_farm(
        self,
        farm: int,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
        seed: int | None,
    ) -> None:
        """Note what else the results of a farm depend on; `seed` is None if nobody chose one."""

    def close_farm(self, farm: int) -> None:
        """Forget a farm whose tasks have ended."""

    def lookup(
        self, function: RegisteredFunction, arguments: Arguments, position: Position = (0, 0)
    ) -> JournalEntry:
        """Compute the keys of calls, and look up their results.

        `position` is the random stream of the calls, and the index of the first in it.
        """

    def record(
        self,
        worker: int,
        function: RegisteredFunction,
        keys: Sequence[bytes],
        outcomes: Outcomes,
        position: Position = (0, 0),
        columns: Sequence[Sequence[Any]] = (),
    ) -> None:
        """Record the outcomes of a part, except those with an empty key: their tasks will be retried.

        `position` is as for `lookup`; `columns` are the arguments, if they are plain.
        """

    def record_failed(
        self, function: RegisteredFunction, keys: Sequence[bytes], first: int, error: BaseException
    ) -> None:
        """Record that tasks failed on the master for one reason."""

    def commit(self, now: float) -> None:
        """Make sure that what was recorded outlives this process; called before any result is delivered."""

    def close(self) -> None:
        """Write everything to disk and release the file."""
