"""The journal: records the results of tasks for a later run that makes the same calls.

A row holds the outcomes of a whole part of a batch, as the worker sent them, so thousands of small tasks
cost one row.
"""

import contextlib
import json
import os
import pickle
import secrets
import struct
import traceback
import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pickle import PickleBuffer
from typing import Any

from taskfarm.console import say
from taskfarm.errors import JournalError
from taskfarm.journal.keys import CallKeys
from taskfarm.journal.reader import NO_KEY, Reader, Results, failures_of, keys_of, segment_in
from taskfarm.journal.store import Writer, create, write_results_file
from taskfarm.master.interfaces import JournalEntry
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Blob, Failure, Outcomes, Values

MAX_INLINE_BYTES = 1 << 20
"""If the results of a part are larger than this, in bytes, they go to a separate file."""

_CACHED_SEGMENTS = 16
"""Number of segments whose results are kept in memory."""


def _pickles(values: Values) -> list[bytes]:
    """The pickles to store, with their buffers inside: a single one of all results, or one per result."""
    if isinstance(values, bytes):
        return [values]
    pickles = []
    for blob in values:
        buffers = list(map(PickleBuffer, blob.buffers))
        pickles.append(pickle.dumps((PickleBuffer(blob.data), buffers), 5))
    return pickles


class Journal:
    """The journal that the master uses, a `JournalInterface`.

    It keeps an index of the finished tasks of earlier runs in memory, about 100 bytes per task, and the
    keys of this run's calls, which take as much again.

    Parameters
    ----------
    path : str
        The file; created if it does not exist.
    resume : bool
        Whether to continue a file that exists.

    Attributes
    ----------
    restored : int
        Results taken from an earlier run.
    recorded : int
        Results added by this run.
    """

    def __init__(self, path: str, resume: bool) -> None:
        self.restored = 0
        self.recorded = 0
        self._path = os.path.realpath(path)
        self._index: dict[bytes, int] = {}
        self._functions: dict[tuple[str, bytes], int] = {}
        self._function_of: dict[int, tuple[str, bytes]] = {}
        self._reported: set[str] = set()
        self._results: OrderedDict[int, Results] = OrderedDict()
        self._keys = CallKeys()
        self._token = secrets.token_hex(8)
        self._files = 0
        self._open(path, resume)
        self._codes = {(name, code) for name, code in self._functions if code}
        self._names = {name for name, _ in self._codes}

    def _open(self, path: str, resume: bool) -> None:
        if not os.path.lexists(self._path) and not os.path.islink(path):
            create(self._path)
        elif not resume:
            raise JournalError(
                f"the journal {path} already exists: add --resume to continue it, or name another file"
            )
        else:
            with Reader(self._path) as reader:
                self._load(reader)
        self._writer = Writer(self._path)
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{self._path}.d"):
                if name.endswith(".tmp"):  # left by a job that was killed
                    os.unlink(os.path.join(f"{self._path}.d", name))

    def _load(self, reader: Reader) -> None:
        self._functions = {identity: id for id, identity in reader.functions.items()}
        for segment in reader.segments():
            self._function_of[segment.id] = reader.functions[segment.function]
            keys = keys_of(segment)
            self._index.update(dict.fromkeys(keys, segment.id))
            for offset in failures_of(segment):
                self._index.pop(keys[offset], None)
        self._index.pop(NO_KEY, None)

    def lookup(self, function: RegisteredFunction, arguments: Arguments) -> JournalEntry:
        """Compute the keys of calls, and look up their results."""
        keys = self._keys.of(function, arguments)
        self._report_code_change(function)
        values: dict[int, Any] = {}
        if self._index:
            for offset, id in enumerate(map(self._index.get, keys)):
                if id is not None:
                    self._restore(function, id, keys[offset], offset, values)
        self.restored += len(values)
        return JournalEntry(keys, values)

    def _restore(
        self, function: RegisteredFunction, id: int, key: bytes, offset: int, values: dict[int, Any]
    ) -> None:
        results = self._results.get(id)
        if results is None:
            segment = segment_in(self._writer.connection, self._path, id)
            results = self._results[id] = Results(self._path, segment)
            if len(self._results) > _CACHED_SEGMENTS:
                self._results.popitem(last=False)
        try:
            values[offset] = results.value(results.offsets[key])
        except Exception as error:
            for lost in results.offsets if results.plain else [key]:
                self._index.pop(lost, None)
            if function.name not in self._reported:
                self._reported.add(function.name)
                say(
                    f"a result of {function.name!r} in the journal cannot be loaded, so its task runs "
                    f"again: {summarize(error)}"
                )

    def _report_code_change(self, function: RegisteredFunction) -> None:
        """Print a line, once, if all recorded results of that function name are from other code."""
        name, code = _identity(function)
        if name not in self._names or not code:
            return
        self._names.discard(name)
        if (name, code) in self._codes:
            return
        finished = Counter(self._function_of[id] for id in self._index.values())
        count = sum(
            tasks
            for (other_name, other_code), tasks in finished.items()
            if other_name == name and other_code
        )
        if count:
            say(
                f"the code of {name!r} has changed since the journal was written: its {count} finished "
                "tasks run again"
            )

    def record(
        self, worker: int, function: RegisteredFunction, keys: Sequence[bytes], outcomes: Outcomes
    ) -> None:
        """Record the outcomes of a part, except those with an empty key: their tasks will be retried."""
        missing = keys.count(b"")
        if missing == len(keys):
            return
        packed_keys = b"".join(key or NO_KEY for key in keys) if missing else b"".join(keys)
        failures = {
            offset: (failure.summary, failure.trace)
            for offset, failure in outcomes.failures.items()
            if keys[offset]
        }
        packed_failures = zlib.compress(json.dumps(failures).encode(), 1) if failures else b""
        pickles = _pickles(outcomes.values)
        function_row = self._function_row(function)
        sizes = struct.pack(f"<{len(pickles)}Q", *map(len, pickles))
        data, file, checks = self._store(pickles)
        self._writer.add(
            "segments",
            self._writer.run,
            function_row,
            outcomes.first,
            len(keys),
            worker,
            float(outcomes.seconds),
            int(isinstance(outcomes.values, bytes)),
            packed_keys,
            packed_failures,
            sizes,
            data,
            file,
            checks,
        )
        self.recorded += len(keys) - missing - len(failures)

    def record_failed(
        self, function: RegisteredFunction, keys: Sequence[bytes], first: int, error: BaseException
    ) -> None:
        """Record that tasks failed on the master for one reason."""
        failure = Failure(Blob(b"", []), summarize(error), "".join(traceback.format_exception(error)))
        failures = dict.fromkeys(range(len(keys)), failure)
        self.record(0, function, keys, Outcomes(first, first, len(keys), b"", failures, 0.0))

    def _store(self, pickles: list[bytes]) -> tuple[bytes, bytes, bytes]:
        """Store results in the row, or in a file; returns the row's fields data, file and checks."""
        if sum(map(len, pickles)) <= MAX_INLINE_BYTES:
            return b"".join(pickles), b"", b""
        self._files += 1
        name = f"{self._token}-{self._files:06d}"
        self._writer.files.append(write_results_file(self._path, name, pickles))
        checks = b"".join(blake2b(piece, digest_size=16).digest() for piece in pickles)
        return b"", name.encode(), checks

    def _function_row(self, function: RegisteredFunction) -> int:
        """The id of a function's row."""
        name, code = _identity(function)
        id = self._functions.get((name, code))
        if id is None:
            id = self._writer.add("functions", name.encode("utf-8", "surrogatepass"), code)
            self._functions[name, code] = id
        return id

    def commit(self, now: float) -> None:
        """Pass what was recorded to the operating system, and force it to disk, at most once per second."""
        self._writer.commit(now)

    def close(self) -> None:
        """Force everything to disk, and release the file."""
        self._writer.close()


def _identity(function: RegisteredFunction) -> tuple[str, bytes]:
    """What identifies a function in the journal: its name, and its code unless it has a ``key=``."""
    return function.name, b"" if function.policy.key is not None else function.code
