"""Rank 0's part in results that stay with their workers: it knows where each is, and who needs it."""

from collections import deque
from functools import partial
from typing import Any, Protocol
from weakref import ref

from taskfarm.errors import ResultLost
from taskfarm.master.data_server import DataServer, Origin
from taskfarm.master.interfaces import Position
from taskfarm.master.lineage import Lineage
from taskfarm.master.workers import WorkerTable
from taskfarm.protocol import layout
from taskfarm.protocol.kept import Kept
from taskfarm.protocol.messages import (
    LOST,
    Blob,
    Failed,
    Fetch,
    Have,
    Release,
    SendKept,
    SentKept,
)
from taskfarm.protocol.outcomes import Completed, Packed
from taskfarm.protocol.references import Given, to_give
from taskfarm.protocol.serialize import dumps
from taskfarm.transport.segments import Segment

COPIED_BY_JOB = 1 << 28
"""Results up to this size, in bytes, are copied for the job, which may have many of them at a time."""

_LOST_TEXT = "the worker that kept a result is lost"


class Keeper(Protocol):
    """What a kept result needs of rank 0."""

    def call_when_there(self, result: "KeptResult") -> None:
        """Let `settle` be called when a result is there, if calls wait for it."""

    def await_result(self, result: "KeptResult") -> None:
        """Let `settle` be called when a result is there: it is made again if it is lost."""

    def settle(self, result: "KeptResult") -> None:
        """Let calls go on that wait for a result that is there, or cannot be had."""

    def take_over(self, result: "KeptResult", made: "KeptResult") -> None:
        """Let a result that was lost be the one that was made in its place."""

    def wait_for(self, result: "KeptResult", timeout: float | None = None) -> Blob:
        """Wait for a result; returns its pickle."""


class KeptResult:
    """A result that stays with the worker that made it; freed when nobody refers to it any more.

    It is what other tasks wait for when it was lost, and where its call delivers what it makes again.

    Parameters
    ----------
    keeper : Keeper
        Knows where it is, and makes it again.
    blob : Blob
        What travels in its place.
    lineage : Lineage
        How it was made.
    farm : int
        The farm of its task.
    journal_key : bytes
        The key of its call in the journal, if there is one.

    Attributes
    ----------
    at : Kept or None
        Where it is; None if it is lost, or rank 0 has it.
    token : bytes
        What identifies it, or has identified what is lost; empty if no worker has had it.
    handles : sequence of Shared
        The handles of shared data to which it refers, so that they are not freed before.
    asked : Kept or None
        The worker that rank 0 has asked for it.
    holders : dict of int to Kept
        The workers that have it, one or more of each host.
    arrived : Blob or None
        The result itself, once rank 0 has got it.
    error : BaseException or None
        Why it could not be made again.
    making : bool
        Whether it is being made again.
    times_made : int
        How often it has been made again.
    """

    __slots__ = (
        *("__weakref__", "_given", "arrived", "asked", "at", "blob", "error", "farm", "holders"),
        *("handles", "journal_key", "keeper", "lineage", "making", "task_id", "times_made"),
        "token",
    )

    def __init__(
        self, keeper: Keeper, blob: Blob, lineage: Lineage, farm: int, journal_key: bytes = b""
    ) -> None:
        self.keeper = keeper
        self.blob = blob
        self.lineage = lineage
        self.task_id: int | None = lineage.task
        self.farm = farm
        self.journal_key = journal_key
        self.at: Kept | None = None
        self.handles: Any = ()
        self.asked: Kept | None = None
        self.token = b""
        self.holders: dict[int, Kept] = {}
        self.arrived: Blob | None = None
        self.error: BaseException | None = None
        self.making = False
        self.times_made = 0
        self._given: ref[Given] | None = None

    @property
    def nbytes(self) -> int:
        """Its size, in bytes, as far as it is known."""
        return 0 if self.at is None else self.at.nbytes

    @property
    def is_lost(self) -> bool:
        """Whether nobody has it who could give it to tasks."""
        return self.at is None and self.arrived is not self.blob

    def place(self, kept: Kept, blob: Blob) -> None:
        """Note that a worker has it."""
        self.at, self.holders, self.blob, self.token = kept, {kept.worker: kept}, blob, kept.token
        self._given = None

    # What other tasks need of it: it is a `Dependency`.

    restored = False

    @property
    def key(self) -> int:
        """The id under which calls refer to it."""
        return self.lineage.task

    def failure(self) -> BaseException | None:
        """Why it cannot be had."""
        return self.error

    def given(self) -> Given:
        """What tasks get that need it."""
        given = None if self._given is None else self._given()
        if given is None:
            given = to_give(self.blob)
            if self.arrived is not self.blob:
                # Who has been given it keeps it alive.
                given.kept = self
            self._given = ref(given)
        return given

    def note_seen(self) -> None:
        """Do nothing: the job looks at its future."""

    def call_when_ended(self) -> None:
        """Let `Master.settle` be called when it is there."""
        self.keeper.call_when_there(self)

    def fetch(self, timeout: float | None = None) -> Blob:
        """The result itself, for the job.

        Raises
        ------
        ResultLost
            It was lost, and cannot be made again.
        TimeoutError
            It has not come in time.
        """
        return self.keeper.wait_for(self, timeout)

    # Where its call delivers: it is a `ResultSink`.

    def mark_running(self) -> None:
        """Do nothing: nobody asks whether it is running."""

    def rng_position(self, count: int) -> Position:
        """The place of its call in the random streams."""
        return self.lineage.stream, self.lineage.index

    def update_progress(self, ended: int, failed: int, retried: int) -> None:
        """Do nothing: it has no progress."""

    def note_key(self, key: bytes, restored: bool = False) -> None:
        """Do nothing: its key is known."""

    def complete_at_once(self, completed: Completed, offset: int) -> bool:
        """Refuse: `complete` may call code of users."""
        return False

    def complete(self, completed: Completed, offset: int) -> None:
        """Take what was made again."""
        error = completed.failures.get(offset)
        value = completed.values[offset]
        if error is not None:
            self.error = ResultLost(f"{self.lost_text}; making it again has failed: {error}")
            self.error.__cause__ = error
        elif type(value) is Packed and value.kept is not None:
            self.keeper.take_over(self, value.kept)
        else:
            self.arrived = self.blob = value.blob if type(value) is Packed else dumps(value)
            self._given = None
        self.making = False
        if self.error is None and self.is_lost:
            # Its worker died in between.
            self.keeper.await_result(self)
        else:
            self.keeper.settle(self)

    # For messages

    @property
    def name(self) -> str:
        """Names its task."""
        lineage = self.lineage
        return f"task {lineage.task} {lineage.arguments.describe(lineage.function.name, 0)}"

    @property
    def lost_text(self) -> str:
        """Says that it was lost."""
        return f"the kept result of {self.name} was lost with its worker"


class KeptResults:
    """Follows where kept results are, answers workers that need one, and tells them what was freed.

    Parameters
    ----------
    workers : WorkerTable
        The workers.

    Attributes
    ----------
    needed : deque of KeptResult
        Results that somebody waits for: `Master` makes those again that are lost.
    """

    def __init__(self, workers: WorkerTable) -> None:
        self._workers = workers
        self._data = DataServer(workers, self._origin, LOST, _LOST_TEXT)
        self._results: dict[bytes, ref[KeptResult]] = {}
        # The garbage collector may run at any moment, so it only notes what the event loop has to do.
        self.dropped: deque[bytes] = deque()
        self.needed: deque[KeptResult] = deque()

    def add(self, kept: Kept, result: KeptResult, blob: Blob) -> None:
        """Enter what a worker has kept."""
        result.place(kept, blob)
        self._results[kept.token] = ref(result, partial(_note, self.dropped, kept.token))
        self._data.places.keep(kept.worker, kept.token, kept.host, kept.location)

    def take_over(self, result: KeptResult, made: KeptResult) -> None:
        """Let a result that was lost be the one that was made in its place."""
        if result.token:
            # Who still asks for the lost one is told so, and then gets the new one.
            del self._results[result.token]
            self._data.drop(result.token)
            result.token = b""
        kept = made.at
        if kept is None:
            # Lost again.
            return
        holders = made.holders
        self._results[kept.token] = ref(result, partial(_note, self.dropped, kept.token))
        result.place(kept, made.blob)
        result.holders, result.handles = holders, made.handles

    def find(self, token: bytes) -> KeptResult | None:
        """The result with a token, unless it is freed."""
        found = self._results.get(token)
        return None if found is None else found()

    def await_result(self, result: KeptResult) -> None:
        """Let `settle` be called when a result is there: it is made again if it is lost."""
        if not result.making:
            self.needed.append(result)

    # Messages

    def handle(self, worker: int, message: Fetch | Have | Failed) -> None:
        """Answer a message of a worker."""
        match message:
            case Have(token, host, location):
                result = self.find(token)
                if result is None or result.at is None:
                    self._workers.send(worker, Release([token]))
                    return
                result.holders[worker] = result.at._replace(worker=worker, host=host, location=location)
                self._data.handle(worker, message._replace(sends=True))
            case Failed(token, _, why) if why == LOST:
                self._lose(worker, token)
            case _:
                self._data.handle(worker, message)

    def receive(self, message: SentKept) -> None:
        """Take a result that rank 0 has asked for."""
        if (result := self.find(message.token)) is not None:
            result.arrived = message.result

    def remove(self, worker: int) -> None:
        """Note that a worker is lost, and what it kept."""
        self._data.remove(worker)
        for token in list(self._results):
            self._lose(worker, token)

    def _lose(self, worker: int, token: bytes) -> None:
        """Note that a worker does not have a result, or not any more."""
        result = self.find(token)
        if result is not None:
            result.holders.pop(worker, None)
            if result.at is not None and result.at.worker == worker:
                result.at = next(iter(result.holders.values()), None)
        self._data.forget(worker, token)
        if result is not None and result.at is None:
            self._data.drop(token)

    def release_dropped(self) -> None:
        """Let the workers drop what nobody needs any more."""
        if not self.dropped:
            return
        tokens: dict[int, list[bytes]] = {}
        while self.dropped:
            token = self.dropped.popleft()
            found = self._results.get(token)
            if found is None or found() is not None:
                # Another one has taken over.
                continue
            del self._results[token]
            for worker in self._data.places.holders(token):
                tokens.setdefault(worker, []).append(token)
            self._data.drop(token)
        for worker, dropped in tokens.items():
            if worker in self._workers.connected:
                self._workers.send(worker, Release(dropped))

    def fetch(self, result: KeptResult) -> Blob | None:
        """A result as it was pickled, if rank 0 has it or its worker is on the same host.

        Otherwise it is asked for: `KeptResult.arrived`, or no `KeptResult.at`, tells when to ask again.
        """
        if result.arrived is not None:
            blob = result.arrived
            if blob is not result.blob:
                # Who gets it may change what is in its memory.
                result.arrived = result.asked = None
            return blob
        if result.at is None:
            return None
        for kept in result.holders.values():
            if kept.host == self._data.host:
                try:
                    return layout.read(Segment.open(kept.location, mapped=False).copy(COPIED_BY_JOB))
                except OSError:
                    # Its process has ended, or the processes of this host cannot see each other.
                    continue
        if result.asked != result.at:
            result.asked = result.at
            self._workers.send(result.at.worker, SendKept(result.at.token))
        return None

    def _origin(self, token: bytes) -> Origin | None:
        result = self.find(token)
        return None if result is None or result.at is None else Origin(result.at)


def _note(dropped: deque[bytes], token: bytes, _: Any) -> None:
    dropped.append(token)
