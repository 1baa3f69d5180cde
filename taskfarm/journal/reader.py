"""Reads a journal, for a run that resumes from it and for reports."""

import contextlib
import fcntl
import json
import os
import pickle
import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from itertools import accumulate
from sqlite3 import Connection
from typing import Any

from taskfarm.journal import store
from taskfarm.journal.safety import check_file, refuse_unsafe
from taskfarm.journal.store import Segment, translate_errors

NO_KEY = bytes(16)
"""Takes the place of a key in a row if the task's outcome does not count, because it is retried."""


class Reader:
    """Reads a journal without changing it, even after a job that was killed.

    After such a job, SQLite would change the file when it closes it. So the reader holds SQLite's lock
    itself, and SQLite opens the file read-only and without locks.

    Attributes
    ----------
    functions : dict of int to (str, bytes)
        Names and code digests of functions, by row.
    parts : dict of (str, bytes) to bytes
        The digests of what each of them uses, as JSON.
    parameters : dict of (str, bytes) to list of str
        The names of the positional parameters of each of them, as far as they are known.
    tuples : dict of str to list of str
        The fields of the named tuples of the job's file.
    runs : int
        Number of runs.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with translate_errors(path, "read"), contextlib.ExitStack() as stack:
            if path in store.OPEN_HERE:
                raise store.in_use_error(path)
            check_file(path)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            try:
                fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, *store.READ_LOCK)
            except (BlockingIOError, PermissionError) as error:
                raise store.in_use_error(path) from error
            self.connection = store.connect(path, "mode=ro&vfs=unix-none")
            stack.callback(self.connection.close)
            self._verify()
            self._stack = stack.pop_all()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _verify(self) -> None:
        tables = self.connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
        if tables != [(sql.encode(),) for sql in store.SCHEMA]:
            raise store.damaged_error(self.path)
        if self.connection.execute("PRAGMA quick_check").fetchall() != [(b"ok",)]:
            raise store.damaged_error(self.path)
        self.functions: dict[int, tuple[str, bytes]] = {}
        self.parts: dict[tuple[str, bytes], bytes] = {}
        self.tuples: dict[str, list[str]] = {}
        self.parameters: dict[tuple[str, bytes], list[str]] = {}
        for id, name, code, parts, names in _rows(self.connection, self.path, "SELECT * FROM functions"):
            identity = self.functions[id] = (str(name, "utf-8", "surrogatepass"), code)
            self.parts[identity] = parts
            self.parameters[identity], tuples = json.loads(names)
            self.tuples.update(tuples)
        self.runs = len(list(_rows(self.connection, self.path, "SELECT * FROM runs")))

    def segments(self) -> Iterator[Segment]:
        """All segments, the oldest first."""
        for row in _rows(self.connection, self.path, "SELECT * FROM segments ORDER BY id"):
            segment = Segment._make(row)
            if segment.function not in self.functions:
                raise store.damaged_error(self.path)
            yield segment


def _rows(connection: Connection, path: str, query: str, *values: int) -> Iterator[tuple[Any, ...]]:
    with translate_errors(path, "read"):
        for row in connection.execute(query, values):
            if store.digest_of(row[:-1]) != row[-1]:
                raise store.damaged_error(path)
            yield row[:-1]


def segment_in(connection: Connection, path: str, id: int) -> Segment:
    """The segment with an id."""
    for row in _rows(connection, path, "SELECT * FROM segments WHERE id = ?", id):
        return Segment._make(row)
    raise store.damaged_error(path)


def failures_of(segment: Segment) -> dict[int, tuple[str, str]]:
    """Summary and traceback of the tasks that failed, by offset."""
    if not segment.failures:
        return {}
    failures = json.loads(zlib.decompress(segment.failures))
    return {int(offset): (summary, trace) for offset, (summary, trace) in failures.items()}


def keys_of(segment: Segment) -> list[bytes]:
    """The keys of a segment's tasks, by offset."""
    return [key for (key,) in struct.iter_unpack("16s", segment.keys)]


class Results:
    """The results of a segment; each is unpickled separately, unless all are plain."""

    def __init__(self, path: str, segment: Segment) -> None:
        self._path = path
        self._segment = segment
        self.plain = segment.plain
        self._sizes = struct.unpack(f"<{len(segment.sizes) // 8}Q", segment.sizes)
        self._starts = list(accumulate(self._sizes, initial=0))
        self._values: list[Any] | None = None
        self.offsets = {key: offset for offset, key in enumerate(keys_of(segment))}
        self.draws = segment.draws
        self._columns: list[Any] | None = None

    def arguments(self, offset: int) -> list[Any] | None:
        """The arguments of a call; None if they were not plain."""
        if self._columns is None:
            self._columns = pickle.loads(self._segment.arguments) if self._segment.arguments else []
        return [column[offset] for column in self._columns] or None

    def value(self, offset: int) -> Any:
        """The result of a task; raises any exception that unpickling raises."""
        if not self.plain:
            data, buffers = pickle.loads(self._pickle(offset))
            return pickle.loads(data, buffers=buffers)
        if self._values is None:
            self._values = pickle.loads(self._pickle(0))
        return self._values[offset]

    def _pickle(self, index: int) -> Any:
        start = self._starts[index]
        size = self._sizes[index]
        if not self._segment.file:
            return memoryview(self._segment.data)[start : start + size]
        name = os.path.join(f"{self._path}.d", self._segment.file.decode())
        refuse_unsafe(name, "the file of results")
        with open(name, "rb") as file:
            file.seek(start)
            piece = file.read(size)
        if blake2b(piece, digest_size=16).digest() != self._segment.checks[16 * index : 16 * index + 16]:
            raise OSError("its file is damaged")
        return piece
