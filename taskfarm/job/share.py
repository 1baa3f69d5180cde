"""`share` and `build`: data that many tasks need, once on each host."""

import pickle
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from weakref import WeakValueDictionary

from taskfarm.errors import BuildFailed, CallNotPicklable, UsageError, wrap
from taskfarm.job.current_farm import registry
from taskfarm.protocol import layout, shared
from taskfarm.protocol.array_buffers import make_read_only, reduce_array
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.messages import FREED, Blob
from taskfarm.protocol.serialize import dumps, loads
from taskfarm.protocol.shared import Recipe, Shared, Stored
from taskfarm.protocol.sides import JOB, here
from taskfarm.transport.segments import store
from taskfarm.worker.context import IN_TASK

if TYPE_CHECKING:
    from taskfarm.job.farm import Farm

T = TypeVar("T")

_by_object: "WeakValueDictionary[int, Shared[Any]]" = WeakValueDictionary()
"""The handle of each object that was shared, by its id; whether it still is that object, is checked."""


def share(value: T) -> Shared[T]:
    """Share data that many tasks need: each host gets it once, and its ranks read the same memory.

    The data is copied once, here, so the caller may change or drop the original. It travels when the first
    task of a host needs it.

    Parameters
    ----------
    value : object
        A numpy array, or anything that can be pickled. Arrays in it, and other buffers that pickle protocol
        5 hands over, are shared and read-only, also in a serial run. The rest, such as the dictionary
        around the arrays, is a copy in each process. A handle is returned as it is.

    Returns
    -------
    Shared
        The handle to give to tasks. An object that is shared again, unchanged, has the same one.

    Raises
    ------
    HostMemoryError
        This host has no room; the message has what is needed and what is free. Another host that has none
        raises it in the tasks there.
    CallNotPicklable
        The value cannot be pickled.
    UsageError
        The caller is a task.

    Examples
    --------
    >>> table = taskfarm.share(np.load("table.npy"))
    >>> rates = list(tof.map(pressures, itertools.repeat(table)))
    """
    _refuse_in_task("share")
    again: Any = value
    if type(again) is Shared:
        if again.source is None:
            raise shared.unavailable(FREED)
        return again
    blob = _dumps(_contiguous(value), f"the shared {type(value).__qualname__}", reduce_array)
    known = _by_object.get(id(value))
    source = None if known is None else known.source
    if known is not None and isinstance(source, Stored) and layout.holds(source.segment.view, blob):
        return known
    stored = Stored(store(blob), blob.needs, shared.alive(shared.tokens_in(blob)))
    handle: Shared[T] = shared.open_handle(stored.segment.view.nbytes, stored)
    _by_object[id(value)] = handle
    return handle


def build(
    function: Callable[..., T], /, *args: Any, per: Literal["host", "worker"] = "host", **kwargs: Any
) -> Shared[T]:
    """Make data where it is needed, by a function, instead of sending it.

    The function runs when a task first needs the result. If it raises, each task that needs the result
    fails with `BuildFailed`, and the function is not called there again.

    Parameters
    ----------
    function : callable
        Makes the data.
    *args, **kwargs
        Its arguments, which must be picklable; a handle arrives as its value.
    per : {"host", "worker"}
        Who calls the function: one worker of each host, and the others get the result as from `share`; or
        each worker for itself, for what cannot be pickled or must not be read-only.

    Returns
    -------
    Shared
        The handle to give to tasks.

    Raises
    ------
    CallNotPicklable
        The function or one of its arguments cannot be pickled.
    ValueError
        `per` is neither.
    UsageError
        The caller is a task.

    Examples
    --------
    >>> model = taskfarm.build(load_model, "m.pt", per="worker")
    >>> answers = list(ask.map(questions, itertools.repeat(model)))
    """
    _refuse_in_task("build")
    if per not in ("host", "worker"):
        raise ValueError(f'per must be "host" or "worker", not {per!r}')
    if not callable(function):
        raise TypeError("the first argument of build must be a callable")
    values = tuple(map(shared.as_value, args))
    keywords = {name: shared.as_value(value) for name, value in kwargs.items()}
    blob = _dumps((function, values, keywords), "the function of build, or one of its arguments,")
    # The caller may change an array before a worker gets it.
    copies = [pickle.PickleBuffer(bytearray(buffer)) for buffer in blob.buffers]
    blob = blob._replace(buffers=copies)
    return shared.open_handle(0, Recipe(blob, per == "host", (function, args, kwargs)))


def _refuse_in_task(name: str) -> None:
    if IN_TASK.get() is not None or not here().is_job:
        raise UsageError(
            f"a task cannot share data with other tasks: call taskfarm.{name} in the job itself, and pass "
            "what it returns to the task"
        )


def _dumps(value: object, what: str, reduce: Callable[[Any], Any] | None = None) -> Blob:
    try:
        return dumps(value, in_band=0, reduce=reduce)
    except MemoryError:
        raise
    except Exception as error:
        raise wrap(CallNotPicklable, error, f"{what} cannot be pickled: {summarize(error)}") from error


def _contiguous(value: Any) -> Any:
    """An array as one piece of memory; numpy would copy any other one into its pickle."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.flags.forc:
        return value
    return numpy.ascontiguousarray(value)


def _load_on_job(token: bytes) -> Any:
    """The value of a handle in the job itself."""
    handle = shared.find(token)
    if handle is None or handle.source is None:
        raise shared.unavailable(FREED)
    if handle.value_on_job is None:
        value = None
        if isinstance(handle.source, Recipe) and handle.built is None:
            value = _build_here(handle.source)
            if handle.source.for_host:
                blob = _dumps(value, "what the function of build returned", reduce_array)
                handle.built = Stored(store(blob), blob.needs)
        stored = handle.stored
        if stored is not None:
            value = loads(layout.read(stored.segment.view))
            make_read_only(value)
        handle.value_on_job = value
    return handle.value_on_job


def _build_here(recipe: Recipe) -> Any:
    """What a recipe makes.

    Raises
    ------
    BuildFailed
        Its function has raised an exception.
    """
    function, args, kwargs = loads(recipe.blob)
    try:
        return function(*args, **kwargs)
    except Exception as error:
        text = f"the function of `taskfarm.build` failed in the job: {summarize(error)}"
        raise BuildFailed(text) from error


def _tell_workers() -> None:
    """Let the workers know at once what was freed."""
    farm = registry.any_open
    master = registry.current_master or (None if farm is None else cast("Farm", farm)._master)
    if master is not None and not master.forked:
        master.drop_freed()


JOB.load_shared = _load_on_job
shared.call_when_freed(_tell_workers)
