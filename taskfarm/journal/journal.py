"""The journal: keeps what tasks returned, and gives it to a later run that makes the same calls.

A row holds the outcomes of a whole part, as they travelled; so thousands of small tasks cost one row.
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
"""Results of a part that take more bytes than this go to a file of their own."""

_LOADED = 16
"""Segments whose results are at hand."""


def _pickles(values: Values) -> list[bytes]:
    """What to store: one pickle of all results, or one of each, that hold their buffers."""
    if isinstance(values, bytes):
        return [values]
    return [pickle.dumps((PickleBuffer(b.data), list(map(PickleBuffer, b.buffers))), 5) for b in values]


class Journal:
    """A journal as the master uses it, a `JournalInterface`.

    An index of the finished tasks of earlier runs is in memory: about 100 bytes a task; so are the keys
    of this run's calls, as much again.

    Parameters
    ----------
    path : str
        The file; made if there is none.
    resume : bool
        Whether to go on with a file that is there.

    Attributes
    ----------
    restored : int
        Results that an earlier run has left.
    recorded : int
        Results that this run has added.
    """

    def __init__(self, path: str, resume: bool) -> None:
        self.restored = self.recorded = 0
        self._path = os.path.realpath(path)
        self._index: dict[bytes, int] = {}
        self._functions: dict[tuple[str, bytes], int] = {}
        self._function_of: dict[int, tuple[str, bytes]] = {}
        self._reported: set[str] = set()
        self._results: OrderedDict[int, Results] = OrderedDict()
        self._keys = CallKeys()
        self._token, self._files = secrets.token_hex(8), 0
        self._open(path, resume)
        self._codes = {(name, code) for name, code in self._functions if code}
        self._names = {name for name, _ in self._codes}

    def _open(self, path: str, resume: bool) -> None:
        if not os.path.lexists(self._path) and not os.path.islink(path):
            create(self._path)
        elif not resume:
            raise JournalError(
                f"the journal {path} exists already: add --resume to go on with it, or name another file"
            )
        else:
            with Reader(self._path) as reader:
                self._load(reader)
        self._writer = Writer(self._path)
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{self._path}.d"):
                if name.endswith(".tmp"):  # of a job that was killed
                    os.unlink(os.path.join(f"{self._path}.d", name))

    def _load(self, reader: Reader) -> None:
        self._functions = {named: id for id, named in reader.functions.items()}
        for segment in reader.segments():
            self._function_of[segment.id] = reader.functions[segment.function]
            keys = keys_of(segment)
            self._index.update(dict.fromkeys(keys, segment.id))
            for offset in failures_of(segment):
                self._index.pop(keys[offset], None)
        self._index.pop(NO_KEY, None)

    def lookup(self, function: RegisteredFunction, arguments: Arguments) -> JournalEntry:
        """Name calls, and look for their results."""
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
            if len(self._results) > _LOADED:
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
        """Say so, once, if only other code of that name has left results."""
        name, code = _named(function)
        if name not in self._names or not code:
            return
        self._names.discard(name)
        if (name, code) in self._codes:
            return
        left = Counter(self._function_of[id] for id in self._index.values())
        count = sum(tasks for (other, code), tasks in left.items() if other == name and code)
        if count:
            say(
                f"the code of {name!r} has changed since the journal was written: its {count} finished "
                "tasks run again"
            )

    def record(
        self, worker: int, function: RegisteredFunction, keys: Sequence[bytes], outcomes: Outcomes
    ) -> None:
        """Keep the outcomes of a part, apart from those whose key is empty."""
        missing = keys.count(b"")
        if missing == len(keys):
            return
        packed = b"".join(key or NO_KEY for key in keys) if missing else b"".join(keys)
        failures = {o: (f.summary, f.trace) for o, f in outcomes.failures.items() if keys[o]}
        failed = zlib.compress(json.dumps(failures).encode(), 1) if failures else b""
        pickles = _pickles(outcomes.values)
        self._writer.add(
            "segments",
            *(self._writer.run, self._function_row(function), outcomes.first, len(keys), worker),
            *(float(outcomes.seconds), int(isinstance(outcomes.values, bytes)), packed, failed),
            *(struct.pack(f"<{len(pickles)}Q", *map(len, pickles)), *self._place(pickles)),
        )
        self.recorded += len(keys) - missing - len(failures)

    def record_failed(
        self, function: RegisteredFunction, keys: Sequence[bytes], first: int, error: BaseException
    ) -> None:
        """Keep that tasks failed on the master for one reason."""
        failure = Failure(Blob(b"", []), summarize(error), "".join(traceback.format_exception(error)))
        failures = dict.fromkeys(range(len(keys)), failure)
        self.record(0, function, keys, Outcomes(first, first, len(keys), b"", failures, 0.0))

    def _place(self, pickles: list[bytes]) -> tuple[bytes, bytes, bytes]:
        """Put results into the row, or into a file; returns the row's data, file and checks."""
        if sum(map(len, pickles)) <= MAX_INLINE_BYTES:
            return b"".join(pickles), b"", b""
        self._files += 1
        name = f"{self._token}-{self._files:06d}"
        self._writer.files.append(write_results_file(self._path, name, pickles))
        checks = b"".join(blake2b(piece, digest_size=16).digest() for piece in pickles)
        return b"", name.encode(), checks

    def _function_row(self, function: RegisteredFunction) -> int:
        """The row of a function."""
        named = name, code = _named(function)
        id = self._functions.get(named)
        if id is None:
            id = self._writer.add("functions", name.encode("utf-8", "surrogatepass"), code)
            self._functions[named] = id
        return id

    def commit(self, now: float) -> None:
        """Hand what was kept to the system; at most every second, see that it is on the disk."""
        self._writer.commit(now)

    def close(self) -> None:
        """See that all is on the disk, in one file and the folder beside it."""
        self._writer.close()


def _named(function: RegisteredFunction) -> tuple[str, bytes]:
    """What a function is called in the journal; its code does not count where calls have keys."""
    return function.name, b"" if function.policy.key is not None else function.code
