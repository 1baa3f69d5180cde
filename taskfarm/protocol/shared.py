"""Handles on data that many tasks need: they travel in the place of the data, wherever it is used.

A handle is pickled as a token. Every process loads the data that it stands for when it first asks for it,
and keeps it until the job frees it. Tokens are easy to find in a pickle, so whoever keeps a pickle until it
is sent finds out which handles to keep alive with it.
"""

import os
import re
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar
from weakref import ref

from taskfarm.errors import BuildFailed, HostMemoryError, SharedDataError
from taskfarm.protocol.messages import FREED, LOST, NO_BUILD, NO_ROOM, Blob
from taskfarm.protocol.sides import here

T_co = TypeVar("T_co", covariant=True)

_MARK, _RANDOM = b"taskfarm shared:", 12
_TOKEN = re.compile(re.escape(_MARK) + b".{%d}" % _RANDOM, re.DOTALL)

HANDLE_BYTES = 128
"""Approximate size of a pickled handle, in bytes."""

OPEN: dict[bytes, "ref[Shared[Any]]"] = {}
"""The handles of this process that are not freed, by token: those that the job has made."""


class Freed(deque[bytes]):
    """The tokens of what the job has freed since somebody has looked."""


_FREED: list["ref[Freed]"] = []


def follow_freed() -> Freed:
    """A new queue of the tokens of what is freed from now on."""
    freed = Freed()
    _FREED[:] = [*(known for known in _FREED if known() is not None), ref(freed)]
    return freed


def _note_freed(token: bytes, followers: list["ref[Freed]"] = _FREED) -> None:
    # The garbage collector may call this at any moment.
    for follower in tuple(followers):
        if (freed := follower()) is not None:
            freed.append(token)


ERRORS: dict[str, type[SharedDataError]] = {
    FREED: SharedDataError,
    NO_BUILD: BuildFailed,
    NO_ROOM: HostMemoryError,
    LOST: SharedDataError,
}
"""The error for each reason why there is no data."""


class Stored(NamedTuple):
    """Data in the memory of this host.

    Attributes
    ----------
    segment : Segment
        The memory, as `protocol.layout` writes it.
    needs : tuple of Definition
        The definitions that its pickle needs.
    handles : sequence of Shared
        The handles in it.
    """

    segment: Any
    needs: tuple[Any, ...] = ()
    handles: Sequence["Shared[Any]"] = ()


class Recipe(NamedTuple):
    """Data that each process, or one of each host, makes by itself.

    Attributes
    ----------
    blob : Blob
        The function, its arguments and its keywords.
    for_host : bool
        Whether the processes of a host share the result.
    parts : tuple
        The same as the blob, as they were given.
    """

    blob: Blob
    for_host: bool
    parts: tuple[Any, ...] = ()

    @property
    def needs(self) -> tuple[Any, ...]:
        """The definitions that the blob needs."""
        return self.blob.needs


class Shared(Generic[T_co]):
    """A handle on data that many tasks need; `taskfarm.share` and `taskfarm.build` return one.

    Given directly to a task, as an argument, an item of a map or a keyword, it arrives as the value itself.
    Anywhere else (in a container, a closure, a `functools.partial` or a global) it arrives as a handle.
    The data is freed at the end of a ``with`` block, by `free`, or when nothing refers to the handle any
    more; the tasks in the queue count.

    Attributes
    ----------
    nbytes : int
        Size of the data, in bytes; 0 for what is built.
    """

    __slots__ = ("__weakref__", "_blocks", "built", "digest", "nbytes", "source", "token", "value_on_job")

    def __init__(self, token: bytes, nbytes: int, source: Stored | Recipe | None = None) -> None:
        self.token = token
        self.nbytes = nbytes
        self.source = source
        self.built: Stored | None = None
        self.digest: bytes | None = None
        self.value_on_job: Any = None
        self._blocks = 0

    @property
    def stored(self) -> Stored | None:
        """The data in the memory of this process, if it is there."""
        return self.source if isinstance(self.source, Stored) else self.built

    @property
    def value(self) -> T_co:
        """The data; arrays in it are read-only.

        Raises
        ------
        SharedDataError
            The data was freed, could not be built (`BuildFailed`), or its host has no room for it
            (`HostMemoryError`).
        """
        load = here().load_shared
        if load is None:
            raise SharedDataError(
                "only the job and its tasks have shared data: give other processes the `.value` of a handle"
            )
        return load(self.token)  # type: ignore[no-any-return]

    def free(self) -> None:
        """Free the data on all hosts; a task that still needs it fails with `SharedDataError`.

        An array that somebody has taken out of the handle stays valid, and keeps its memory, in that
        process. A second call does nothing.
        """
        self.source = self.built = self.value_on_job = None
        if OPEN.pop(self.token, None) is not None:
            _note_freed(self.token)
        if _when_freed is not None:
            _when_freed()

    def __enter__(self) -> Self:
        self._blocks += 1
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the data at the end of the outermost block."""
        self._blocks -= 1
        if not self._blocks:
            self.free()

    def __del__(self, close: Any = OPEN.pop, note: Any = _note_freed) -> None:
        # The garbage collector may run at any moment, so this only notes what the event loop has to do.
        if self.source is not None and close(self.token, None) is not None:
            note(self.token)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source is None and here().is_job:
            raise unavailable(FREED)
        return _restore, (self.token, self.nbytes)

    def __repr__(self) -> str:
        """Show the size."""
        state = f"{self.nbytes:,} bytes" if self.nbytes else "built where it is used"
        return f"<Shared: {state}>"


_when_freed: Any = None


def call_when_freed(function: Any) -> None:
    """Call a function whenever the job frees data itself, so that workers learn of it at once."""
    global _when_freed
    _when_freed = function


def open_handle(nbytes: int, source: Stored | Recipe) -> "Shared[Any]":
    """A new handle of the job."""
    handle: Shared[Any] = Shared(_MARK + os.urandom(_RANDOM), nbytes, source)
    OPEN[handle.token] = ref(handle)
    return handle


def find(token: bytes) -> "Shared[Any] | None":
    """The job's handle with a token, if this process has it and it is not freed."""
    found = OPEN.get(token)
    return None if found is None else found()


def _restore(token: bytes, nbytes: int) -> "Shared[Any]":
    return (find(token) if here().is_job else None) or Shared(token, nbytes)


def unavailable(why: str, text: str = "") -> SharedDataError:
    """The error for a reason why there is no data."""
    return ERRORS[why](
        text
        or "shared data was freed before this use of it: keep the handle, or stay in its `with` block, "
        "until the tasks that need the data have ended"
    )


def reason_of(error: SharedDataError) -> str:
    """The reason of such an error."""
    return next((why for why, kind in ERRORS.items() if type(error) is kind), FREED)


class AsValue:
    """Pickles as the value of a handle.

    Attributes
    ----------
    handle : Shared
        The handle.
    """

    __slots__ = ("handle",)

    def __init__(self, handle: "Shared[Any]") -> None:
        self.handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        return value_of, (self.handle,)


def value_of(argument: Any) -> Any:
    """The value of a handle; anything else unchanged."""
    return argument.value if type(argument) is Shared else argument


def as_value(argument: Any) -> Any:
    """What to pickle in the place of an argument, so that a handle arrives as its value."""
    return AsValue(argument) if type(argument) is Shared else argument


def all_tokens_in(data: Any) -> tuple[bytes, ...]:
    """The tokens of handles in a pickle, whoever has made them."""
    return tuple(dict.fromkeys(_TOKEN.findall(data)))


def tokens_in(blob: Blob) -> frozenset[bytes]:
    """The tokens of the job's handles to which a blob refers, directly or through its definitions."""
    pickles = [blob.data, *(definition.blob.data for definition in blob.needs)]
    found = {token for data in pickles for token in _TOKEN.findall(data)}
    return frozenset(found & OPEN.keys())


def alive(tokens: Iterable[bytes]) -> list["Shared[Any]"]:
    """The handles with some tokens, except for those that are freed."""
    return [handle for token in tokens if (handle := find(token)) is not None]
