"""Pickles of arrays whose type and shape have been pickled before.

Without its data, the pickle of an array (protocol 5) depends only on its dtype and shape. numpy spends more
time on it than on everything else that a small message needs, so the pickles are remembered: they are made
once, and read once or twice, for each dtype and shape.
"""

import pickle
from typing import Any

import numpy

MOST = 256
"""Number of pickles to remember; when there are more, all are forgotten."""

MAX_PICKLE = 512
"""Longest pickle to remember, in bytes: that of an array with 64 dimensions has 400."""

_Known = tuple[bool, Any, tuple[int, ...]]

_written: dict[_Known, bytes] = {}
"""The pickles by what they contain: whether it is a call, the number of the dtype, and the shape."""

_read: dict[bytes, _Known | bool] = {}
"""What pickles contain, with the dtype; True: not looked at yet, False: something else."""


def pickled(obj: Any, least: int = 0) -> tuple[bytes, Any] | None:
    """The pickle of an array, or of a call whose only argument is an array, and the array.

    Parameters
    ----------
    obj : object
        The array, or the call ``((array,), {})``.
    least : int
        Smallest size of an array, in bytes.

    Returns
    -------
    tuple of bytes and numpy.ndarray, or None
        None for everything else: smaller arrays, subclasses, arrays that are read-only or not contiguous,
        and dtypes that have more to them than a number.
    """
    array, is_call = obj, False
    if type(obj) is tuple:
        if len(obj) != 2 or type(obj[1]) is not dict or obj[1]:
            return None
        arguments, is_call = obj[0], True
        if type(arguments) is not tuple or len(arguments) != 1:
            return None
        array = arguments[0]
    if type(array) is not numpy.ndarray or array.nbytes < least:
        return None
    dtype, flags = array.dtype, array.flags
    if dtype.kind not in "biufc" or not dtype.isnative or dtype.metadata is not None:
        return None
    if not flags.c_contiguous or not flags.writeable:
        return None
    key = is_call, dtype.num, array.shape
    data = _written.get(key)
    if data is None:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(obj, protocol=5, buffer_callback=buffers.append)
        if len(buffers) != 1:
            return None
        _remember(_written, key, data)
    return data, array


def loaded(data: bytes, buffer: Any) -> Any:
    """Unpickle a pickle that refers to one buffer.

    Parameters
    ----------
    data : bytes
        The pickle.
    buffer : object with the buffer protocol
        What it refers to. An array refers to this memory, too.
    """
    known = _read.get(data)
    if type(known) is tuple:
        is_call, dtype, shape = known
        array = numpy.ndarray(shape, dtype, buffer)
        return ((array,), {}) if is_call else array
    obj = pickle.loads(data, buffers=(buffer,))
    if known is None:
        if len(data) <= MAX_PICKLE:
            _remember(_read, data, True)
    elif known:
        # It comes again. Only a pickle that is equal to that of the array contains nothing else.
        again, one = pickled(obj) or (b"", numpy.empty(0))
        _read[data] = again == data and (type(obj) is tuple, one.dtype, one.shape)
    return obj


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= MOST:
        known.clear()
    known[key] = value
