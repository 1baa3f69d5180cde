"""`map_array` and `over`: a map whose results land in one array."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from taskfarm.errors import WorkerLost
from taskfarm.job.decorator import Task, derived_task
from taskfarm.job.expecting import expect_block
from taskfarm.job.gathering import GatheringRun
from taskfarm.protocol import shared
from taskfarm.protocol.outcomes import Completed
from taskfarm.protocol.serialize import dumps
from taskfarm.protocol.task_base import unwrap_task
from taskfarm.worker.blocks import call_with_block, key_of_block

BLOCK_BYTES, MOST_BLOCK_BYTES, BLOCKS = 1 << 18, 1 << 22, 256
"""Bounds on the bytes of a block, in and out together, and the number of blocks in between.

Unless the caller says how many rows a block has: a message costs as much as moving some 100 KB.
"""

_STILL_RECEIVED = (
    "a worker was given up, or has stopped, while it sent a block, which may still arrive in the array: do "
    "not use that array any more, and pass another one as out="
)

OVERLAP_WORK: Any = 10_000
"""Candidates that numpy tries to find out whether arrays share memory; after that, they may."""

POINTS = 4096
"""Points of broadcast arrays that are turned into Python numbers at once."""


def task_of_blocks(function: Callable[..., Any], axis: int) -> Task[..., Any]:
    """The task that `map_array` maps over blocks."""
    called = functools.partial(call_with_block, unwrap_task(function), axis)
    return derived_task(
        function,
        called,
        functools.partial(functools.partial, key_of_block),
        functools.partial(functools.partial, expect_block),
    )


class Blocks:
    """Arrays, cut alike into blocks of whole rows: iterates over tuples of a range of rows and the blocks.

    Parameters
    ----------
    arrays : sequence
        Arrays, or what has their ``shape``, ``dtype`` and slices.
    axis : int
        The axis along which to cut; counts from the end of the first array if negative.
    rows : int or None
        Rows in a block; None: so many that there are about `BLOCKS` blocks, or that a block has
        `BLOCK_BYTES` to `MOST_BLOCK_BYTES`.
    out : object
        Where results will go; None: an array that is made for them.

    Attributes
    ----------
    axis : int
        The same axis, 0 or more.
    num_rows : int
        Rows of each array.
    rows : int
        Rows in a block.
    overlaps_out : bool
        Whether a block so far may share memory with `out`.

    Raises
    ------
    TypeError, ValueError
        The arrays cannot be cut alike, or the number of rows is wrong.
    """

    def __init__(self, arrays: Sequence[Any], axis: int, rows: int | None, out: Any) -> None:
        _check_out(out)
        self._arrays = [_apart(_as_array(array), out) for array in arrays]
        dimensions = len(self._arrays[0].shape)
        if not dimensions:
            raise ValueError(
                f"{type(arrays[0]).__name__} has no axis 0, along which map_array cuts: pass an array, or "
                "the result() of a future"
            )
        if not -dimensions <= axis < dimensions:
            raise ValueError(
                f"axis {axis} is out of bounds for an array of dimension {dimensions}: pass one of its axes"
            )
        self.axis = axis % dimensions
        lengths = [
            array.shape[self.axis] if len(array.shape) > self.axis else None for array in self._arrays
        ]
        if len(set(lengths)) > 1:
            shapes = ", ".join(str(array.shape) for array in self._arrays)
            raise ValueError(
                f"the arrays cannot be cut alike along axis {self.axis}, since their shapes are {shapes}: "
                "pass what every block needs whole as a keyword"
            )
        self.num_rows = int(lengths[0] or 0)
        self._out = out if _is_plain(out) else None
        self.overlaps_out = False
        if out is not None and self._rows_of(out) not in (None, self.num_rows):
            raise ValueError(
                f"out has {self._rows_of(out)} rows along axis {self.axis}, and the arrays have "
                f"{self.num_rows}: pass an out with as many"
            )
        self.rows = self._default_rows(out) if rows is None else rows

    def _rows_of(self, out: Any) -> int | None:
        shape = getattr(out, "shape", None)
        if shape is None:
            return None
        return int(shape[self.axis]) if len(shape) > self.axis else 0

    def _default_rows(self, out: Any) -> int:
        """Rows in a block, from bytes alone: so no number of workers changes what a call gets."""
        sizes = [_row_nbytes(array, self.num_rows) for array in self._arrays]
        # Unless it is known, a result is as large as the largest of the blocks.
        returned = _row_nbytes(out, self.num_rows) if hasattr(out, "dtype") else max(sizes)
        row = max(1, sum(sizes) + returned)
        return max(1, min(MOST_BLOCK_BYTES, max(BLOCK_BYTES, row * self.num_rows // BLOCKS)) // row)

    def __len__(self) -> int:
        return -(-self.num_rows // self.rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        import numpy

        for start in range(0, self.num_rows, self.rows):
            rows = range(start, min(start + self.rows, self.num_rows))
            index = at_rows(self.axis, rows)
            blocks = [_block(array[index]) for array in self._arrays]
            if self._out is not None and not self.overlaps_out:
                self.overlaps_out = any(numpy.may_share_memory(block, self._out) for block in blocks)
            yield rows, *blocks

    def rows_of(self, first: int, count: int = 1) -> range:
        """The rows of consecutive blocks."""
        return range(first * self.rows, min((first + count) * self.rows, self.num_rows))


def _is_plain(out: Any) -> bool:
    """Whether an array is in ordinary memory, not that of a file, with its rows one after the other."""
    import numpy

    if type(out) is not numpy.ndarray or out.dtype.hasobject:
        return False
    base: Any = out
    while isinstance(base, numpy.ndarray):
        base = base.base
    return base is None and out.flags.c_contiguous and out.flags.writeable


def _as_array(value: Any) -> Any:
    import numpy

    value = shared.value_of(value)
    is_array = hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")
    # What pandas has is not read by slices of all axes.
    return value if is_array and not hasattr(value, "iloc") else numpy.asarray(value)


def _block(rows: Any) -> Any:
    """Rows of an array, C-contiguous, with the mask or whatever else a subclass adds; but not as a file."""
    import numpy

    return numpy.asanyarray(numpy.asarray(rows) if isinstance(rows, numpy.memmap) else rows, order="C")


def _check_out(out: Any) -> None:
    """Raise ValueError if nothing can be written to an array."""
    import numpy

    if isinstance(out, numpy.ndarray) and not out.flags.writeable:
        raise ValueError("out is read-only: pass an array that can be written to, or a copy")


def _apart(array: Any, out: Any) -> Any:
    """An array that is read while results are written to `out`.

    If `out` shares its memory but is not the same array, results would overwrite what is still to be read,
    so this is a copy then, as in a ufunc. Rows that are replaced by their own result were read before.
    """
    import numpy

    if not (isinstance(array, numpy.ndarray) and isinstance(out, numpy.ndarray)):
        return array
    if _place(array) == _place(out) or not numpy.may_share_memory(array, out, max_work=OVERLAP_WORK):
        return array
    return array.copy()


def _place(array: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Where each element of an array is in memory."""
    return array.__array_interface__["data"][0], array.strides, array.shape


def _row_nbytes(array: Any, rows: int) -> int:
    """Bytes of a row of an array."""
    size: int = array.dtype.itemsize
    for length in array.shape:
        size *= int(length)
    return size // max(1, rows)


def at_rows(axis: int, rows: range) -> tuple[slice, ...]:
    """The index of some rows in an array."""
    return (*[slice(None)] * axis, slice(rows.start, rows.stop))


class ArrayRun(GatheringRun):
    """A running map whose results are written into an array as they arrive.

    Until the first result by position is there, the others wait: it decides on shape and type, if nobody
    has given an array. They are bounded like the results of any map.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._out: Any = None
        self._early: dict[int, list[Any]] = {}
        self._next = 0

    def fill(self, out: Any) -> Any:
        """Wait until all results are in `out`, or in a new array; returns it."""
        self._out = out
        self.gather()
        if self._out is None:
            raise ValueError("no call has returned an array that tells the shape of the result: pass out=")
        return self._out

    def place(self, position: int, completed: Completed) -> int:
        """Write results, or keep them until there is an array."""
        for value in completed.values:
            # Of `on_error="return"`: no array has a place for it.
            if isinstance(value, BaseException):
                raise value
        if self._out is not None:
            self.write(position, completed.values)
            return len(completed.values)
        self._early[position] = completed.values
        while self._out is None and self._next in self._early:
            values = self._early[self._next]
            self._out = self.make_array(values)
            self._next += len(values)
        if self._out is None:
            return 0
        early, self._early = self._early, {}
        for start, values in early.items():
            self.write(start, values)
        return sum(map(len, early.values()))

    @abstractmethod
    def make_array(self, values: list[Any]) -> Any:
        """The array for all results, from some of them; None if these do not tell its shape."""

    @abstractmethod
    def write(self, position: int, values: list[Any]) -> None:
        """Write the results from a position on."""


class BlocksRun(ArrayRun):
    """A running `map_array`.

    Once there is an array, blocks that fit are received in their place in it. So it must not be used while
    a message may be on its way there: see `ResultPlaces.close`.
    """

    def fill_blocks(self, blocks: Blocks, out: Any) -> Any:
        """Wait until the results of these blocks are in `out`, or in a new array; returns it.

        Raises
        ------
        WorkerLost
            A worker was given up while it sent a block, which may still come to be in `out`.
        """
        self._blocks = blocks
        self._pickles: dict[int, bytes] = {}
        self._received: Any = None
        if out is not None:
            self._receive_into(out)
        try:
            self.fill(out)
        except BaseException as error:
            if not self._end_receiving():
                error.add_note(_STILL_RECEIVED)
            raise
        if self._end_receiving():
            return self._out
        if out is not None:
            raise WorkerLost(_STILL_RECEIVED)
        return self._out.copy()

    def feed(self) -> None:
        """Draw arguments, but only since it is known where results go: they may arrive from then on."""
        if self.begun:
            super().feed()

    def _receive_into(self, out: Any) -> None:
        """Receive blocks in their place from now on, where that is safe.

        If ranks may be lost, one may be lost in the middle of a block.
        """
        transport = self._master.transport
        if self._blocks.axis == 0 and _is_plain(out) and not (transport.in_process or transport.survives):
            self._received = out
            self._master.result_places.open(self)

    def _end_receiving(self) -> bool:
        """Whether nothing is received into the array any more."""
        return self._received is None or self._master.result_places.close(self, self._received)

    def place_of(self, task: int, data: bytes) -> Any | None:
        """Where the block of a task goes, if it fits exactly; see `PlacingSink`."""
        # A call whose block is overwritten could not be made again.
        if self._closed or self._out is None or self._blocks.overlaps_out:
            return None
        rows = self._blocks.rows_of(self.position_of(task))
        target = self._out[rows.start : rows.stop]
        return _as_bytes(target) if data == self._pickled(target) else None

    def _pickled(self, block: Any) -> bytes:
        """What a block of this shape and type is pickled to, apart from its buffer."""
        if len(block) not in self._pickles:
            self._pickles[len(block)] = bytes(dumps(block, in_band=0).data)
        return self._pickles[len(block)]

    def make_array(self, values: list[Any]) -> Any:
        """The array for all results: its shape is that of a block, but for the number of rows."""
        import numpy

        for value in values:
            # What `on_error` has put in the place of a block need not be one.
            if isinstance(value, numpy.ndarray) and value.ndim > self._blocks.axis:
                shape = list(value.shape)
                shape[self._blocks.axis] = self._blocks.num_rows
                # Of the same class, such as a masked array.
                made = numpy.empty_like(value, shape=shape, order="C")
                self._receive_into(made)
                return made
        return None

    def write(self, position: int, values: list[Any]) -> None:
        """Write blocks where they belong."""
        axis = self._blocks.axis
        for place, block in enumerate(values, position):
            rows = self._blocks.rows_of(place)
            if not self._is_in_place(rows, block):
                write_into(self._out, at_rows(axis, rows), block, f"rows {rows.start}:{rows.stop}")

    def _is_in_place(self, rows: range, block: Any) -> bool:
        """Whether a block was received in its place, where only a block is that fits."""
        if self._received is None:
            return False
        target = self._out[rows.start : rows.stop]
        return _address(block) == _address(target)


def _as_bytes(array: Any) -> Any:
    """The memory of a contiguous array as an array of bytes."""
    import numpy

    return numpy.frombuffer(array, numpy.uint8)


def _address(array: Any) -> int | None:
    """Where the first element of an array is in memory; None if this is no array."""
    found = getattr(array, "__array_interface__", None)
    return None if found is None else found["data"][0]


class Points:
    """Arrays that are broadcast against each other, and their elements as columns of Python numbers.

    Parameters
    ----------
    arrays : sequence
        Arrays, or numbers.
    out : ndarray or None
        Where results will go.

    Raises
    ------
    TypeError, ValueError
        The arrays cannot be broadcast, have masked elements, or `out` is not for their elements.
    """

    def __init__(self, arrays: Sequence[Any], out: Any = None) -> None:
        import numpy

        _check_out(out)
        found = [numpy.asanyarray(shared.value_of(array)) for array in arrays]
        if any(map(numpy.ma.is_masked, found)):
            raise ValueError(
                "over() has no call for a masked element: pass array.compressed(), or array.filled(value)"
            )
        self._arrays = numpy.broadcast_arrays(*[_apart(array, out) for array in found])
        self.shape: tuple[int, ...] = self._arrays[0].shape
        self.size = int(self._arrays[0].size)
        if out is None:
            return
        if not isinstance(out, numpy.ndarray):
            raise TypeError(f"the out of over() must be a numpy array, not {type(out).__name__}")
        if out.shape[: len(self.shape)] != self.shape:
            raise ValueError(
                f"out has the shape {out.shape}, and the arrays together have {self.shape}: pass an "
                "out that begins with these axes"
            )

    def columns(self) -> list["_Column"]:
        """One iterable for each array, in C order."""
        return [_Column(array) for array in self._arrays]


class _Column:
    """The elements of an array as Python objects, made when they are wanted."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return int(self._array.size)

    def __iter__(self) -> Iterator[Any]:
        flat = self._array.flat
        return chain.from_iterable(
            flat[start : start + POINTS].tolist() for start in range(0, len(self), POINTS)
        )


class PointsRun(ArrayRun):
    """A running `over`."""

    def fill_points(self, points: Points, out: Any) -> Any:
        """Wait until the results of all points are in `out`, or in a new array; returns that."""
        self._points = points
        flat = None if out is None else _flattened(out, len(points.shape), points.size)
        self._is_flat = out is None or flat is not None
        found = self.fill(out if flat is None else flat)
        if out is not None:
            return out
        return found.reshape(points.shape + found.shape[1:])

    def make_array(self, values: list[Any]) -> Any:
        """The array for all results, one after the other."""
        import numpy

        first = _stacked(values[:1], None, "the first result")
        # Later texts may be longer.
        dtype = object if first.dtype.kind in "SU" else first.dtype
        return numpy.empty((self._points.size, *first.shape[1:]), dtype)

    def write(self, position: int, values: list[Any]) -> None:
        """Write the results of consecutive points."""
        import numpy

        end = position + len(values)
        index: Any = (slice(position, end),)
        if not self._is_flat:
            index = numpy.unravel_index(numpy.arange(position, end), self._points.shape)
        what = f"points {position}:{end}"
        write_into(self._out, index, _stacked(values, self._out, what, self._out[index].ndim), what)


def _stacked(values: list[Any], out: Any, what: str, dimensions: int = 0) -> Any:
    """Results of calls as one array, whose values are those that a loop would assign to `out`.

    Raises
    ------
    TypeError, ValueError
        The results have not the same shape, or a number is too large for `out`.
    """
    import numpy

    if out is not None and out.dtype.hasobject and dimensions == 1:
        block = numpy.empty(len(values), object)
        for place, value in enumerate(values):
            block[place] = value
        return block
    try:
        # Otherwise numpy would turn numbers beside a text into texts.
        block = numpy.asarray(values, object if out is not None and out.dtype == object else None)
        if out is not None and block.dtype.kind == "u" and out.dtype.kind == "i":
            # Python's numbers have no type that could be refused.
            block = numpy.asarray(values, out.dtype)
    except OverflowError as error:
        text = f"{what} came back with a number too large for {out.dtype}: pass an out= of another type"
        raise TypeError(text) from error
    except ValueError as error:
        raise ValueError(
            f"{what} came back with different shapes: let every call return the same, or pass an "
            "out= of objects"
        ) from error
    return block


def _flattened(out: Any, dimensions: int, size: int) -> Any:
    """A view of an array that has one axis in the place of its first ones; None if there is none."""
    flat = out.view()
    try:
        # Unlike reshape, this raises rather than copy.
        flat.shape = (size, *out.shape[dimensions:])
    except AttributeError:
        return None
    return flat


def write_into(out: Any, index: tuple[Any, ...], block: Any, what: str) -> None:
    """Write a block into an array, or into anything that can be assigned to by index.

    Raises
    ------
    ValueError
        The block has another shape.
    TypeError
        The array has a type to which the block's cannot be cast without losing its kind.
    """
    import numpy

    if not (isinstance(out, numpy.ndarray) and isinstance(block, numpy.ndarray)):
        out[index] = block
        return
    target = out[index]
    if target.shape != block.shape:
        raise ValueError(
            f"{what} came back with the shape {block.shape}, but their place has the shape {target.shape}: "
            "let every call return rows of the same shape, or pass an out= of that shape"
        )
    # A longer text would be cut off, and so would be a number that becomes one.
    is_text = block.dtype.kind in "SU" or target.dtype.kind in "SU"
    if not numpy.can_cast(block.dtype, target.dtype, "safe" if is_text else "same_kind"):
        raise TypeError(
            f"{what} came back as {block.dtype}, which cannot be cast to {target.dtype} ('same_kind'): "
            "let every call return the same type, or pass an out= of a type that holds all"
        )
    if not isinstance(out, numpy.ma.MaskedArray) and numpy.ma.is_masked(block):
        raise TypeError(
            f"{what} came back with masked elements, and the array of all results has no mask: return "
            "a masked array from every call, or pass an out= of numpy.ma.empty"
        )
    # The mask of a masked array belongs to the whole of it.
    out[index] = block
