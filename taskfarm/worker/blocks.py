"""What a task of `map_array` does: it calls the user's function with blocks of whole rows."""

from collections.abc import Callable
from typing import Any

from taskfarm.worker.context import rows_of_task


def call_with_block(function: Callable[..., Any], axis: int, /, rows: range, *blocks: Any) -> Any:
    """Call `function` with blocks.

    Parameters
    ----------
    function : callable
        Takes one block of each array.
    axis : int
        The axis of the rows.
    rows : range
        Which rows of the arrays these are.
    *blocks : ndarray
        C-contiguous arrays in memory that belongs to this task.

    Returns
    -------
    ndarray
        What the function returns, C-contiguous and of the same class, such as a masked array.

    Raises
    ------
    ValueError
        The function returns another number of rows.
    """
    import numpy

    # What was read from memory that must not change arrives as such.
    own = [block if block.flags.writeable else block.copy() for block in blocks]
    with rows_of_task(rows):
        result = numpy.asanyarray(function(*own))
    if result.ndim <= axis or result.shape[axis] != len(rows):
        raise ValueError(
            f"rows {rows.start}:{rows.stop} came back with the shape {result.shape}: return a block with "
            f"{len(rows)} rows along axis {axis}, or use reduce to combine blocks"
        )
    if isinstance(result, numpy.memmap):
        result = numpy.asarray(result)
    return numpy.asanyarray(result, order="C")


def key_of_block(key: Callable[..., Any], /, rows: range, *blocks: Any) -> Any:
    """What identifies the call with a block in a journal, from the ``key=`` of the function."""
    return "rows", rows.start, rows.stop, key(*blocks)
