"""The results of a journal as a table, in CSV or Parquet: a row for each task, a column for each part."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from taskfarm.errors import JournalError

MAX_PARTS = 64
"""Longest tuple, list or array that gets a column for each of its parts."""

Row = dict[str, Any]


def row_of(head: Mapping[str, Any], result: Any, error: str | None) -> Row:
    """Return the row of a task.

    Parameters
    ----------
    head : mapping of str to object
        What is known of the task besides its result.
    result : object
        What it returned. The parts of a tuple, a list, a dict or a one-dimensional array become the columns
        ``result.0``, ``result.1`` and so on, or ``result.NAME``; anything else becomes ``result``.
    error : str or None
        The summary of its failure.
    """
    row = dict(head)
    if error is None:
        for name, part in _parts(result):
            row[name] = _cell(part)
    else:
        row["error"] = error
    return row


def _parts(result: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(result, "dtype") and hasattr(result, "tolist"):
        result = result.tolist()
    if hasattr(result, "_asdict"):
        result = result._asdict()
    if isinstance(result, dict) and 0 < len(result) <= MAX_PARTS:
        yield from ((f"result.{name}", part) for name, part in result.items())
    elif isinstance(result, tuple | list) and 0 < len(result) <= MAX_PARTS:
        yield from ((f"result.{index}", part) for index, part in enumerate(result))
    else:
        yield "result", result


def _cell(value: Any) -> Any:
    """A value that both formats can hold: as it is if it is plain, else as JSON, else its repr."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        return _cell(value.item())
    try:
        return json.dumps(value, default=_listed)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _listed(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _columns(rows: Iterable[Row]) -> list[str]:
    """All columns, in the order in which rows have them; the error last."""
    found = dict.fromkeys(name for row in rows for name in row)
    return sorted(found, key=lambda name: name == "error")


def write_csv(file: BinaryIO, rows: list[Row]) -> None:
    """Write a table as CSV in UTF-8, with the names of the columns in the first line."""
    text = io.TextIOWrapper(file, "utf-8", newline="", errors="backslashreplace")
    writer = csv.DictWriter(text, _columns(rows), restval="")
    writer.writeheader()
    writer.writerows(rows)
    text.detach()


def write_parquet(file: BinaryIO, rows: list[Row]) -> None:
    """Write a table as Parquet. A column of several types becomes text, except that integers become floats.

    Raises
    ------
    JournalError
        There is no pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise JournalError("a .parquet file needs pyarrow: pip install pyarrow") from error
    columns = {}
    for name in _columns(rows):
        cells = [row.get(name) for row in rows]
        kinds = {type(cell) for cell in cells if cell is not None}
        if len(kinds) > 1:
            convert = float if kinds == {int, float} else str
            cells = [None if cell is None else convert(cell) for cell in cells]
        try:
            columns[name] = pyarrow.array(cells)
        except (OverflowError, UnicodeError, pyarrow.ArrowException):
            # An integer of more than 64 bits, or text that is no Unicode.
            columns[name] = pyarrow.array([None if cell is None else ascii(cell) for cell in cells])
    parquet.write_table(pyarrow.table(columns), file)
