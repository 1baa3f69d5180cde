"""A report of a journal's contents, and an export of the results."""

import contextlib
import heapq
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from taskfarm.errors import JournalError
from taskfarm.journal import stand_ins, table
from taskfarm.journal.reader import NO_KEY, Reader, Results, failures_of, keys_of, segment_in
from taskfarm.protocol.failures import summarize


class _Task(NamedTuple):
    """The latest outcome of a call; `error` is the summary and the traceback of a failure."""

    task: int
    segment: int
    offset: int
    function: str
    code: bytes
    seconds: float
    rank: int
    error: tuple[str, str] | None

    @property
    def head(self) -> dict[str, Any]:
        """What is known of it besides its arguments and its result."""
        return {"task": self.task, "function": self.function, "seconds": self.seconds, "rank": self.rank}


class _Stored:
    """What the journal holds of each call."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._segment = lru_cache(16)(self._load)

    def _load(self, id: int) -> Results:
        path, connection = self._reader.path, self._reader.connection
        return Results(path, segment_in(connection, path, id))

    def result(self, task: _Task) -> Any:
        """The result of a task.

        Raises
        ------
        JournalError
            It cannot be loaded.
        """
        try:
            return self._segment(task.segment).value(task.offset)
        except Exception as error:
            raise JournalError(
                f"the result of task {task.task} of {task.function} cannot be loaded: "
                f"{summarize(error)}; export where its modules and files are available"
            ) from error

    def arguments(self, task: _Task) -> list[Any] | None:
        """The arguments of a task; None if they were not plain."""
        return self._segment(task.segment).arguments(task.offset)

    def named_arguments(self, task: _Task) -> dict[str, Any]:
        """The same, by the names of their columns in a table."""
        names = self._reader.parameters[task.function, task.code]
        arguments = self.arguments(task) or []
        return {
            f"argument.{names[index] if index < len(names) else index}": value
            for index, value in enumerate(arguments)
        }


def report(path: str, export: str | None = None) -> int:
    """Print a report of a journal; also write the results to the file `export`, if it is not None.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    JournalError
        The journal cannot be read, or the file cannot be written.
    """
    write = _WRITERS.get(os.path.splitext(export)[1]) if export else None
    if export and write is None:
        raise JournalError(f"cannot export to {export}: name a file that ends in {', '.join(_WRITERS)}")
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise JournalError(f"there is no journal {path}: name the file that was passed to --journal")
    with Reader(real) as reader:
        tasks = _tasks(reader)
        print("\n".join(_lines(path, reader.runs, tasks)))
        if export and write:
            _export(reader, tasks, export, write)
    return 0


def _tasks(reader: Reader) -> list[_Task]:
    """The latest outcome of each call, in order of task id."""
    latest: dict[bytes, int] = {}
    heads = []
    for segment in reader.segments():
        latest.update(dict.fromkeys(keys_of(segment), segment.id))
        heads.append(segment._replace(data=b""))
    latest[NO_KEY] = 0
    tasks = []
    for head in heads:
        errors = failures_of(head)
        function, code = reader.functions[head.function]
        for offset, key in enumerate(keys_of(head)):
            if latest[key] == head.id:
                task = _Task(
                    task=head.first + offset,
                    segment=head.id,
                    offset=offset,
                    function=function,
                    code=code,
                    seconds=head.seconds / head.count,
                    rank=head.rank,
                    error=errors.get(offset),
                )
                tasks.append(task)
    # If a function's code has changed, only the outcome under the new code counts.
    codes = {(task.function, task.task): task.code for task in tasks}
    return sorted(task for task in tasks if codes[task.function, task.task] == task.code)


def _lines(path: str, runs: int, tasks: list[_Task]) -> Iterator[str]:
    failed = [task for task in tasks if task.error]
    yield f"{path}: runs {runs}, tasks done {len(tasks) - len(failed)}, tasks failed {len(failed)}"
    seconds: dict[str, list[float]] = {}
    for task in tasks:
        seconds.setdefault(task.function, []).append(task.seconds)
    for name, each in sorted(seconds.items()):
        yield f"  {name}: {len(each)} tasks, {sum(each) / len(each):.3g} s each"
    alike = Counter((task.error[0], task.error[1].partition("\n")[2]) for task in failed if task.error)
    for (summary, trace), count in alike.most_common(10):
        yield f"failed {count} times: {summary}"
        yield from (f"    {line}" for line in trace.splitlines())
    if len(alike) > 10:
        yield f"and {len(alike) - 10} other failures"
    if tasks:
        yield "slowest tasks:"
    for task in heapq.nlargest(10, tasks, key=lambda task: task.seconds):
        yield f"  {task.seconds:.3g} s  {task.function}  task {task.task}  rank {task.rank}"


def _export(reader: Reader, tasks: list[_Task], export: str, write: "_Write") -> None:
    stand_ins.install(reader.tuples)
    stored = _Stored(reader)
    try:
        with open(export, "xb") as file, _removed_on_error(export):
            write(file, tasks, stored)
    except FileExistsError as error:
        raise JournalError(f"{export} already exists: name another file to export to") from error
    except OSError as error:
        raise JournalError(f"cannot export to {export}: {error.strerror or error}") from error


@contextlib.contextmanager
def _removed_on_error(path: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.unlink(path)
        raise


def _write_jsonl(file: BinaryIO, tasks: list[_Task], stored: _Stored) -> None:
    for task in tasks:
        line = task.head
        if (arguments := stored.arguments(task)) is not None:
            line["arguments"] = arguments
        if task.error:
            text = json.dumps({**line, "error": task.error[0], "traceback": task.error[1]})
        else:
            result = stored.result(task)
            try:
                text = json.dumps({**line, "result": result}, default=_array_to_list, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                text = json.dumps({**line, "result": {"repr": repr(result)}})
        file.write(text.encode() + b"\n")


def _array_to_list(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _write_npz(file: BinaryIO, tasks: list[_Task], stored: _Stored) -> None:
    import numpy

    done: dict[str, list[_Task]] = {}
    for task in tasks:
        if not task.error:
            done.setdefault(task.function, []).append(task)
    with zipfile.ZipFile(file, "w") as archive:
        for name, tasks_of_name in done.items():
            arrays = [numpy.asarray(stored.result(task)) for task in tasks_of_name]
            shapes = {array.shape for array in arrays}
            kinds = {array.dtype.kind for array in arrays}
            mixed = len(kinds) > 1 and kinds & set("USV")
            if len(shapes) > 1 or "O" in kinds or mixed:
                raise JournalError(f"the results of {name} do not stack into an array: export to .jsonl")
            ids = numpy.array([task.task for task in tasks_of_name])
            columns = {name: numpy.stack(arrays), f"{name}.tasks": ids}
            for column, array in columns.items():
                with archive.open(f"{column}.npy", "w", force_zip64=True) as member:
                    numpy.lib.format.write_array(member, array, allow_pickle=False)


def _rows(tasks: list[_Task], stored: _Stored) -> list[table.Row]:
    rows = []
    for task in tasks:
        head = task.head | stored.named_arguments(task)
        error = task.error[0] if task.error else None
        rows.append(table.row_of(head, None if error else stored.result(task), error))
    return rows


def _write_csv(file: BinaryIO, tasks: list[_Task], stored: _Stored) -> None:
    table.write_csv(file, _rows(tasks, stored))


def _write_parquet(file: BinaryIO, tasks: list[_Task], stored: _Stored) -> None:
    table.write_parquet(file, _rows(tasks, stored))


_Write: TypeAlias = Callable[[BinaryIO, list[_Task], _Stored], None]
_WRITERS: dict[str, _Write] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".jsonl": _write_jsonl,
    ".npz": _write_npz,
}
