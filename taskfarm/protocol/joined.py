"""Results with futures inside: what the futures stand for is filled in without opening any of it."""

import pickle
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from taskfarm.protocol.messages import NO_BLOB, Blob, Values
from taskfarm.protocol.serialize import (
    PickledCall,
    collect_large,
    dump_plain,
    dumps,
    loads,
    make_blob,
    plain_nbytes,
)

_FILLING: ContextVar[Mapping[int, Any]] = ContextVar("taskfarm_filling")


def placeholder(number: int) -> Any:
    """What a future in a result unpickles to: the outcome that `fill` was given for its number."""
    item = _FILLING.get()[number]
    return loads(item) if type(item) is Blob else item


def fill(template: Blob, items: Mapping[int, Any]) -> Any:
    """Unpickle a result, with items in the places of its futures."""
    token = _FILLING.set(items)
    try:
        return loads(template)
    finally:
        _FILLING.reset(token)


def join_results(template: Blob, numbers: list[int], items: Mapping[int, Any]) -> Any:
    """A result whose futures have ended.

    Parameters
    ----------
    template : Blob
        The pickle of the result; `NO_BLOB` if it is a future itself.
    numbers : list of int
        The numbers of its futures.
    items : mapping of int to object
        What each future stands for: a blob, or a plain value.

    Returns
    -------
    Blob or object
        A blob, or a plain value.
    """
    if template == NO_BLOB:
        return items[numbers[0]]
    buffers: list[Any] = []
    inner = {number: _nested(items[number]) for number in numbers}
    call = PickledCall(fill, _nested(template), inner)
    data = pickle.dumps(call, protocol=5, buffer_callback=collect_large(buffers))
    needs = dict.fromkeys(
        need for one in (template, *inner.values()) if type(one) is Blob for need in one.needs
    )
    return make_blob(data, buffers, tuple(needs))


def _nested(item: Any) -> Any:
    """An item as a part of another pickle, which keeps its buffers out of band."""
    if type(item) is not Blob:
        return item
    data = item.data if type(item.data) is bytes else pickle.PickleBuffer(item.data)
    return Blob(data, [pickle.PickleBuffer(buffer) for buffer in item.buffers])


def as_item(value: Any) -> Any:
    """A value as a blob, or as itself if it is plain."""
    return value if type(value) is Blob or plain_nbytes([value]) is not None else dumps(value)


def as_values(items: list[Any]) -> Values:
    """Items as a message carries them."""
    if all(type(item) is not Blob for item in items):
        return dump_plain(items)
    return [item if type(item) is Blob else dumps(item) for item in items]
