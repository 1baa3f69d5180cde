"""Finds futures of other libraries in what is to be pickled; only rank 0 loads this, after an error."""

import concurrent.futures
import io
import multiprocessing.pool
from typing import Any

import cloudpickle

PICKLABLE = ("distributed",)
"""Libraries whose futures can be pickled, and would arrive as futures."""

_KINDS = (concurrent.futures.Future, multiprocessing.pool.ApplyResult, multiprocessing.pool.IMapIterator)


class _Found(BaseException):
    """Ends the pickling; its argument is the type of the future."""


class _Finder(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if is_foreign(kind):
            raise _Found(kind)
        return super().reducer_override(obj)


def is_foreign(kind: type) -> bool:
    """Whether a type is that of futures of another library."""
    if issubclass(kind, _KINDS):
        return not kind.__module__.startswith("taskfarm.job.")
    library = kind.__module__.partition(".")[0]
    if library in PICKLABLE:
        return kind.__name__ == "Future"
    return hasattr(kind, "_asyncio_future_blocking") or kind.__module__ == "taskfarm.compat.async_results"


def find(value: Any) -> type | None:
    """The type of the first future of another library in what pickle finds of a value, if any."""
    try:
        _Finder(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: False).dump(value)
    except _Found as found:
        kind: type = found.args[0]
        return kind
    except Exception:
        return None
    return None
