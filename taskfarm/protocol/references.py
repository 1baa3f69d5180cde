"""Futures inside what is pickled: they travel as references to the results of their tasks.

The pickle of a call is made when the call is submitted, and the results that it refers to may come later.
So a future is pickled as a reference by the id of its task, wherever pickle meets it, and the results go
beside the pickle (`Blob.results`), as pickles of their own that rank 0 does not open.
"""

import threading
from collections.abc import Mapping
from typing import Any

from taskfarm.protocol import shared
from taskfarm.protocol.messages import Blob


class _OfThread(threading.local):
    """What the calling thread pickles and unpickles.

    Attributes
    ----------
    found : list or None
        The futures that the pickle which is being made refers to; None: it must not refer to any.
    results : mapping of int to Blob
        The results that the pickle which is being loaded refers to, by task.
    """

    found: list[Any] | None = None
    results: Mapping[int, Blob] = {}


THREAD = _OfThread()


class Collected:
    """While it is entered, futures may be pickled in this thread; it gives the list of those that are.

    Parameters
    ----------
    refuse : bool
        If true, they may not be pickled.
    """

    __slots__ = ("_before", "_found")

    def __init__(self, refuse: bool = False) -> None:
        self._found: list[Any] | None = None if refuse else []

    def __enter__(self) -> list[Any]:
        self._before = THREAD.found
        THREAD.found = self._found
        return [] if self._found is None else self._found

    def __exit__(self, *_: object) -> None:
        THREAD.found = self._before


def refer(future: Any) -> tuple[Any, ...]:
    """How to pickle a future.

    Raises
    ------
    TypeError
        What is being pickled is no call.
    """
    if THREAD.found is None:
        raise TypeError(
            "a future can be pickled only inside the arguments of a task of its farm: pass it to the task, "
            "or take its result()"
        )
    THREAD.found.append(future)
    return load_result, (future.key,)


def load_result(task: int) -> Any:
    """The result of a task to which a pickle refers; pickles call it while they are loaded."""
    from taskfarm.protocol.serialize import loads

    return loads(THREAD.results[task])


class ResultsOf:
    """While it is entered, pickles that are loaded in this thread find the results of a blob."""

    __slots__ = ("_before", "_results")

    def __init__(self, blob: Blob) -> None:
        self._results = dict(blob.results)

    def __enter__(self) -> None:
        self._before = THREAD.results
        THREAD.results = self._results

    def __exit__(self, *_: object) -> None:
        THREAD.results = self._before


def joined(needs: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[Any, ...]:
    """The definitions that one of two blobs needs."""
    if not others:
        return needs
    from taskfarm.protocol.snapshot import Needs

    return Needs(dict.fromkeys((*needs, *others)))


def foreign_future(value: Any) -> TypeError | None:
    """Why a value cannot be pickled, if that is because it contains a future of another library.

    Never called unless the value cannot be pickled, or one of these libraries is loaded whose futures can.
    """
    from taskfarm.protocol.foreign_futures import find

    found = find(value)
    if found is None:
        return None
    return TypeError(
        f"{found.__module__}.{found.__qualname__} is a future of another library: tasks can wait only for "
        "futures of their own farm, so pass its result"
    )


class Given:
    """The result of a task as it is given to the tasks that need it; all of them share it.

    Attributes
    ----------
    blob : Blob
        The pickled result.
    handles : sequence
        The handles of shared data to which it refers.
    kept : KeptResult or None
        If the pickle only refers to a result that a worker keeps: that result.
    """

    __slots__ = ("__weakref__", "blob", "handles", "kept")

    def __init__(self, blob: Blob, handles: Any = ()) -> None:
        self.blob = blob
        self.handles = handles
        self.kept: Any = None

    def for_call(self) -> Blob:
        """The pickle for one call.

        Calls in one message share what is the same object, and what was sent out of band arrives in memory
        that a task may change. So each call has its own list of buffers.
        """
        blob = self.blob
        return blob._replace(buffers=list(blob.buffers)) if blob.buffers else blob


def to_give(blob: Blob) -> Given:
    """A pickled result, made ready to be sent to the tasks that need it."""
    if blob.needs and isinstance(blob.needs[0], str):
        from taskfarm.protocol.definitions import DEFINITIONS

        # It comes from a worker, which cannot know what the names stand for.
        blob = blob._replace(needs=DEFINITIONS.needed(blob.needs))
    if not shared.OPEN:
        return Given(blob)
    return Given(blob, shared.alive(shared.tokens_in(blob)))
