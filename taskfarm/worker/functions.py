"""The functions that a worker has: loaded once, or for each call if calls may change their state."""

import mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from taskfarm.protocol.messages import Blob, Define
from taskfarm.protocol.serialize import loads
from taskfarm.protocol.sides import switch
from taskfarm.protocol.task_base import unwrap_task
from taskfarm.worker.namespace import Namespace

if TYPE_CHECKING:
    from taskfarm.protocol.reduction import Operation

MAPPED_BYTES = 1 << 18
"""Size of the buffers of a callable from which they are mapped instead of copied for each call."""


class LoadedFunction:
    """A function that tasks call.

    Parameters
    ----------
    message : Define
        The function.
    namespace : Namespace
        The globals of the job's file.

    Attributes
    ----------
    name : str
        Its name in messages.
    called : callable
        What to call, after `load`.
    operation : callable or None
        What combines its results, after `load`; None if nothing does.
    farm : int
        Its farm.
    namespace : Namespace
        As given.
    moves : bool
        Whether its calls have changed the current folder.
    """

    def __init__(self, message: Define, namespace: Namespace) -> None:
        self.name = message.name
        self.moves = False
        self.called: Callable[..., Any] = _not_loaded
        self.operation: Operation | None = None
        self._blob = message.blob
        self._fresh = message.fresh
        self.farm = message.farm
        self.namespace = namespace
        self._version = -1

    def load(self) -> None:
        """Let names of the job's file mean what they mean to this function, and load it if it is not.

        Raises
        ------
        Exception
            Whatever unpickling raises.
        """
        namespace = self.namespace
        switch(namespace.side)
        if self._blob.needs != namespace.in_use:
            namespace.use(self._blob.needs)
        if self._version == namespace.version:
            return
        if not self._fresh:
            self.called, self.operation = _split(unwrap_task(loads(self._blob)))
        elif self.called is _not_loaded:
            pristine = PristineCallable(self._blob)
            _, self.operation = _split(pristine.copy())
            self.called = partial(_call_copy, pristine)
        self._version = namespace.version

    def unload_if_it_has(self, tokens: Iterable[bytes]) -> None:
        """Forget what was loaded if it contains shared data with one of these tokens."""
        data = bytes(self._blob.data)
        if any(token in data for token in tokens):
            self.called, self._version = _not_loaded, -1


class PristineCallable:
    """A callable with a state, as it was when its calls were queued; each call gets a copy.

    Large buffers, such as arrays, are kept in a file in memory. Each copy maps it privately, so the system
    copies only the pages that a call changes.

    Parameters
    ----------
    blob : Blob
        The callable.
    """

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        buffers = [*blob.buffers, *chain.from_iterable(result.buffers for _, result in blob.results)]
        self._sizes = [memoryview(buffer).nbytes for buffer in buffers]
        self._file: int | None = None
        self._small: list[bytes] = []
        if sum(self._sizes) >= MAPPED_BYTES:
            # Most workers never need it.
            from taskfarm.transport.segments import memory_file

            self._file = memory_file()
            for buffer, size in zip(buffers, self._sizes, strict=True):
                _write(self._file, memoryview(buffer).cast("B"))
                os.lseek(self._file, -size % mmap.PAGESIZE, os.SEEK_CUR)
        else:
            self._small = [bytes(buffer) for buffer in buffers]
        # The originals are not needed any more.
        self._blob = _with_buffers(blob, iter([None] * len(buffers)))

    def copy(self) -> Any:
        """A copy of the callable."""
        buffers: list[Any] = [bytearray(buffer) for buffer in self._small]
        if self._file is not None:
            offset = 0
            for size in self._sizes:
                kind = mmap.MAP_PRIVATE
                buffers.append(mmap.mmap(self._file, size, kind, offset=offset))
                offset += size + -size % mmap.PAGESIZE
        return unwrap_task(loads(_with_buffers(self._blob, iter(buffers))))

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def _split(called: Any) -> "tuple[Any, Operation | None]":
    """What tasks call, and what combines their results."""
    # Without a reduction, no worker has loaded this.
    reduction = sys.modules.get("taskfarm.protocol.reduction")
    return (called, None) if reduction is None else reduction.split(called)


def _with_buffers(blob: Blob, buffers: Iterator[Any]) -> Blob:
    """A blob and its results with these buffers in the place of their own."""
    own = list(islice(buffers, len(blob.buffers)))
    results = tuple((task, _with_buffers(result, buffers)) for task, result in blob.results)
    return blob._replace(buffers=own, results=results)


def _not_loaded() -> None:
    """Stands for a function before it is loaded."""


def _call_copy(pristine: PristineCallable, *arguments: Any, **keywords: Any) -> Any:
    return pristine.copy()(*arguments, **keywords)


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]
