"""Pickling arrays so that their data is always a buffer, which processes can share.

numpy hands over the memory of plain arrays only. Of masked arrays, other subclasses and datetimes it copies
the bytes into the pickle; everyone who loads that has a copy of their own.
"""

import sys
from typing import Any


def reduce_array(value: Any) -> Any:
    """A ``reducer_override`` for arrays whose data numpy would copy into the pickle.

    Returns
    -------
    tuple or NotImplemented
        NotImplemented for plain arrays, for objects that are no arrays, and for arrays that have references
        to objects or a pickle of their own.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or isinstance(value, numpy.memmap):
        return NotImplemented
    if type(value) is numpy.ma.MaskedArray:
        mask = value.mask if value.mask is not numpy.ma.nomask else None
        return _masked, (value.data, mask, value.fill_value, value.hardmask)
    kind, dtype = type(value), value.dtype
    if dtype.hasobject or not dtype.itemsize or _has_own_pickle(numpy, kind):
        return NotImplemented
    if kind is numpy.ndarray and not _has_dates(dtype):
        return NotImplemented
    plain = value.view(numpy.ndarray)
    in_columns = plain.flags.f_contiguous and not plain.flags.c_contiguous
    rows = plain.T if in_columns else numpy.ascontiguousarray(plain)
    return _array, (kind, rows.reshape(-1).view(numpy.uint8), dtype, value.shape, in_columns)


def _has_own_pickle(numpy: Any, kind: type) -> bool:
    return any(
        getattr(kind, name) is not getattr(numpy.ndarray, name)
        for name in ("__reduce__", "__reduce_ex__", "__setstate__")
    )


def _has_dates(dtype: Any) -> bool:
    """Whether a type has dates or times, which Python's buffers cannot describe."""
    if dtype.subdtype is not None:
        return _has_dates(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_has_dates(dtype.fields[name][0]) for name in dtype.names)
    return dtype.kind in "mM"


def _array(kind: type, data: Any, dtype: Any, shape: tuple[int, ...], in_columns: bool) -> Any:
    import numpy

    array = data.view(numpy.ndarray).view(dtype)
    return (array.reshape(shape[::-1]).T if in_columns else array.reshape(shape)).view(kind)


def _masked(data: Any, mask: Any, fill_value: Any, hard: bool) -> Any:
    from numpy import ma

    # What has an empty mask and no mask differ.
    return ma.MaskedArray(data, ma.nomask if mask is None else mask, fill_value=fill_value, hard_mask=hard)


def make_read_only(value: Any) -> None:
    """Let nobody write to an array, if this is one."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        value.flags.writeable = False
