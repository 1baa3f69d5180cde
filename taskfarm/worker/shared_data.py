"""The shared data of a worker, or of its child process: found once, and loaded once for each namespace."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from taskfarm import interrupts
from taskfarm.errors import BuildFailed, SharedDataError
from taskfarm.protocol import layout, shared
from taskfarm.protocol.array_buffers import make_read_only, reduce_array
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.messages import FREED, NO_BUILD, Blob, DefineNames, Definitions, Location
from taskfarm.protocol.serialize import dumps, loads
from taskfarm.transport.segments import Segment, store
from taskfarm.worker.context import Place
from taskfarm.worker.namespace import Namespace


class Found(NamedTuple):
    """Data in the memory of this host.

    Attributes
    ----------
    segment : Segment
        The memory.
    needs : tuple of int
        The definitions that its pickle needs.
    definitions : list
        Those of them that this process may not have.
    """

    segment: Segment
    needs: tuple[int, ...] = ()
    definitions: Definitions = ()


class ToBuild(NamedTuple):
    """Data that this process makes.

    Attributes
    ----------
    blob : Blob
        The function, its arguments and its keywords.
    for_host : bool
        Whether the other processes of the host get the result.
    definitions : list
        What the blob needs, as far as this process may not have it.
    """

    blob: Blob
    for_host: bool
    definitions: Definitions = ()

    @property
    def needs(self) -> tuple[int, ...]:
        """The definitions that the blob needs."""
        return self.blob.needs


Source: TypeAlias = Found | ToBuild


class Supplier:
    """Where the data comes from; this one knows of none. The job's own process needs no other."""

    def fetch(self, token: bytes) -> Source:
        """Find data that this process does not have.

        Raises
        ------
        SharedDataError
            There is none.
        """
        raise shared.unavailable(FREED)

    def held(self, token: bytes) -> Segment | None:
        """The memory of data that was fetched and is not dropped."""
        return None

    def have(self, token: bytes, location: Location) -> None:
        """Let the other processes of this host use data that this one has."""

    def failed(self, token: bytes, error: SharedDataError, why: str, final: bool) -> None:
        """Let the other processes of this host know why there is no data."""


class SharedData:
    """What a process has of shared data.

    Parameters
    ----------
    place : Place
        Rank and host.
    supplier : Supplier
        Where data comes from that this process does not have.
    define : callable
        Keeps definitions for the namespaces of this process.
    """

    def __init__(self, place: Place, supplier: Supplier, define: Callable[[DefineNames], None]) -> None:
        self._place = place
        self._define = define
        self._supplier = supplier
        self._sources: dict[bytes, Source] = {}
        self._failures: dict[bytes, str] = {}
        self._locks: dict[bytes, threading.RLock] = {}
        self._changing = threading.Lock()

    def load(self, namespace: Namespace, token: bytes) -> Any:
        """The value of a handle.

        Raises
        ------
        SharedDataError
            As for `Shared.value`.
        """
        values = namespace.shared_values
        if token in values:
            return values[token]
        with self._changing:
            lock = self._locks.setdefault(token, threading.RLock())
        # Threads of a task may ask for the same data at the same time.
        with lock:
            if token not in values:
                values[token] = self._load(namespace, token)
            return values[token]

    def find(self, token: bytes) -> Source:
        """Where data is, or how it is made. Raises what `load` raises."""
        if token in self._failures:
            raise shared.unavailable(NO_BUILD, self._failures[token])
        source = self._sources.get(token)
        if source is None:
            source = self._sources[token] = self._in_process(token) or self._supplier.fetch(token)
            self._define(DefineNames(source.definitions))
        return source

    def held(self, token: bytes) -> Segment | None:
        """The memory of data, if this process has fetched it."""
        return self._supplier.held(token)

    def drop(self, tokens: Iterable[bytes]) -> None:
        """Forget data that was freed; memory that a task still refers to stays until it does no more."""
        for token in tokens:
            for kept in (self._sources, self._failures, self._locks):
                kept.pop(token, None)

    def adopt(self, token: bytes, location: Location) -> None:
        """Take over what a child process has built, and let the others of the host use it."""
        segment = Segment.open(location)
        self._sources[token] = Found(segment, self._sources[token].needs)
        self._supplier.have(token, segment.location)

    def give_up(self, token: bytes, text: str, final: bool) -> None:
        """Note that a child process has not built what it should have."""
        if final:
            self._failures[token] = text
        else:
            self._sources.pop(token, None)
        self._supplier.failed(token, BuildFailed(text), NO_BUILD, final)

    def _in_process(self, token: bytes) -> Source | None:
        """The data of a handle that this very process has made."""
        handle = shared.find(token)
        if handle is None:
            return None
        if handle.stored is not None:
            return Found(handle.stored.segment, *_for_namespace(handle.stored.needs))
        if not isinstance(handle.source, shared.Recipe):
            return None
        blob, for_host, _ = handle.source
        needs, definitions = _for_namespace(blob.needs)
        return ToBuild(blob._replace(needs=needs), for_host, definitions)

    def _load(self, namespace: Namespace, token: bytes) -> Any:
        source = self.find(token)
        if isinstance(source, ToBuild):
            value = self._build(namespace, token, source)
            if not source.for_host:
                return value
            source = self._publish(token, source, value)
            del value
        value = namespace.load(layout.read(source.segment.view, source.needs))
        make_read_only(value)
        return value

    def _build(self, namespace: Namespace, token: bytes, source: ToBuild) -> Any:
        try:
            return namespace.load(source.blob, _call)
        except Exception as error:
            raise self._failed(token, source, "failed", error) from error
        except BaseException:
            # The task was broken off; another worker may build it.
            self._sources.pop(token, None)
            if source.for_host:
                self._supplier.failed(token, BuildFailed("it was broken off"), NO_BUILD, final=False)
            raise

    def _publish(self, token: bytes, source: ToBuild, value: Any) -> Found:
        """Move what was built into memory that the processes of this host share."""
        try:
            segment = store(dumps(value, in_band=0, reduce=reduce_array))
        except Exception as error:
            what = 'returned what the ranks of a host cannot share (use `per="worker"`)'
            raise self._failed(token, source, what, error) from error
        found = self._sources[token] = Found(segment, source.needs)
        self._supplier.have(token, segment.location)
        handle = shared.find(token)
        if handle is not None and isinstance(handle.source, shared.Recipe):
            # All workers are in this process.
            handle.built = shared.Stored(segment, handle.source.needs)
        return found

    def _failed(self, token: bytes, source: ToBuild, what: str, error: Exception) -> BuildFailed:
        """The error of a build, which is not tried again here."""
        text = f"the function of `taskfarm.build` {what} on {self._place}: {summarize(error)}"
        self._failures[token] = text
        failure = BuildFailed(text)
        if source.for_host:
            self._supplier.failed(token, failure, NO_BUILD, final=True)
        return failure


@interrupts.interruptible
def _call(blob: Blob) -> Any:
    function, arguments, keywords = loads(blob)
    return function(*arguments, **keywords)


def _for_namespace(needs: tuple[Any, ...]) -> tuple[tuple[int, ...], Definitions]:
    """The ids of definitions of the job, and what a message would carry of them."""
    return tuple(one.id for one in needs), [(one.id, one.names, one.blob) for one in needs]
