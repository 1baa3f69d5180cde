"""Large arrays that many calls have as an argument: shared, in the place of joblib's memory maps."""

import sys
from typing import Any
from weakref import ref

from taskfarm.errors import HostMemoryError
from taskfarm.job.share import share
from taskfarm.protocol.shared import AsValue, Shared


class RepeatedArrays:
    """Replaces arrays from their second use on by handles, which arrive as the arrays.

    The first use shares nothing: most arrays have only one, and would be kept for nothing.

    Parameters
    ----------
    least : int
        Size of the smallest array to share, in bytes.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._used: dict[int, ref[Any]] = {}
        self._handles: dict[int, Shared[Any]] = {}

    def replaced(self, value: Any) -> Any:
        """What to pickle in the place of an argument."""
        numpy = sys.modules.get("numpy")
        if numpy is None or type(value) is not numpy.ndarray or value.nbytes < self._least:
            return value
        if value.dtype.hasobject:
            return value
        key = id(value)
        if key not in self._used:
            self._used[key] = ref(value, lambda _: self._forget(key))
            return value
        try:
            # An array that has changed since gets another handle.
            handle = self._handles[key] = share(value)
        except HostMemoryError:
            return value
        return AsValue(handle)

    def _forget(self, key: int) -> None:
        self._used.pop(key, None)
        self._handles.pop(key, None)

    def clear(self) -> None:
        """Forget all arrays; calls that are queued keep what they need."""
        self._used.clear()
        self._handles.clear()
