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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pickle import PickleBuffer
from typing import Any, NamedTuple

from taskfarm.console import say
from taskfarm.errors import JournalError
from taskfarm.journal.code_digest import Name, function_digest, names_set_by
from taskfarm.journal.column_names import named_tuples, positional_parameters
from taskfarm.journal.keys import CallKeys
from taskfarm.journal.reader import NO_KEY, Reader, Results, failures_of, keys_of, segment_in
from taskfarm.journal.safety import refuse_companions
from taskfarm.journal.store import Writer, create, write_results_file
from taskfarm.journal.value_digest import combine
from taskfarm.master.interfaces import JournalEntry, Position
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Blob, Failure, Outcomes, Values
from taskfarm.protocol.reduction import Partial
from taskfarm.protocol.serialize import dump_plain

MAX_INLINE_BYTES = 1 << 20
"""If the results of a part are larger than this, in bytes, they go to a separate file."""

NO_SEED = bytes(16)
"""Stands for a seed that nobody chose."""

_PLACE = struct.Struct("<qq")
"""A random stream and an index in it."""

_COVER = struct.Struct("<QQ")
"""The offset of a task, and a number of tasks."""

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


def _combined(results: Results, keys: list[bytes], offset: int, index: int) -> int:
    """How many calls the recorded value combines of which the one at `offset` is the last; else 0.

    They must be the same calls in the same order, and a reduction must combine them at their positions,
    too; `index` is the position of the first of the `keys`.
    """
    recorded = results.offsets[keys[offset]]
    covered = results.covered(recorded)
    if covered is None:
        return 0
    first, size = covered
    start = offset - size + 1
    if start < 0 or (index + start) % size:
        return 0
    same = all(results.offsets.get(keys[start + place]) == first + place for place in range(size))
    return size if same else 0


class _FarmFacts(NamedTuple):
    """What else the results of a farm depend on.

    Attributes
    ----------
    set_by_initializer : frozenset of Name
        The globals that its initializer sets.
    opening : bytes
        The digest of its initializer.
    seed : bytes
        The digest of its seed, if the user has chosen one.
    """

    set_by_initializer: frozenset[Name]
    opening: bytes
    seed: bytes


_NO_FACTS = _FarmFacts(frozenset(), b"", NO_SEED)


def _number_of(stream: int | tuple[int, ...]) -> int:
    """The number of a random stream in a journal; negative for streams of what tasks have submitted."""
    if isinstance(stream, int):
        return stream
    digest = blake2b(repr(stream).encode(), digest_size=8).digest()
    return -1 - (int.from_bytes(digest, "big") >> 1)


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
        self._recorded_parts: dict[str, dict[str, str]] = {}
        self._parts: dict[bytes, Mapping[str, bytes]] = {}
        self._parameters: dict[bytes, list[str]] = {}
        self._farms: dict[int, _FarmFacts] = {}
        self._reported: set[tuple[str, ...]] = set()
        self._results: OrderedDict[int, Results] = OrderedDict()
        self._keys = CallKeys(partial(self._report_unknown, "the arguments of"))
        self._token = secrets.token_hex(8)
        self._files = 0
        self._open(path, resume)
        self._codes = {(name, code) for name, code in self._functions if code}
        self._names = {name for name, _ in self._codes}

    def _open(self, path: str, resume: bool) -> None:
        if not os.path.lexists(self._path) and not os.path.islink(path):
            refuse_companions(self._path)
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
        # The last row of a name counts.
        self._recorded_parts = {
            name: json.loads(parts) for (name, _), parts in reader.parts.items() if parts
        }

    def code_digest(self, function: Any, farm: int) -> bytes:
        """The digest of a function's code and of what it uses; says what cannot be told to be equal."""
        digest = function_digest(function, self._facts(farm).set_by_initializer)
        self._parts[digest.code] = digest.parts
        if digest.code not in self._parameters:
            self._parameters[digest.code] = positional_parameters(function)
        if digest.unknown:
            self._report_unknown("", name_of(function), digest.unknown)
        return digest.code

    def _facts(self, farm: int) -> "_FarmFacts":
        return self._farms.get(farm, _NO_FACTS)

    def open_farm(
        self,
        farm: int,
        initializer: Callable[..., object] | None,
        initargs: Sequence[Any],
        seed: int | None,
    ) -> None:
        """Note what else the results of a farm depend on."""
        opening = b""
        # In a run with one rank, they are set in this process: what they hold follows from the initializer.
        names = names_set_by(initializer)
        if initializer is not None:
            digest = function_digest(partial(initializer, *initargs), names)
            opening = digest.code
            if digest.unknown:
                self._report_unknown("the initializer", name_of(initializer), digest.unknown)
        chosen = NO_SEED if seed is None else blake2b(str(seed).encode(), digest_size=16).digest()
        self._farms[farm] = _FarmFacts(names, opening, chosen)

    def close_farm(self, farm: int) -> None:
        """Forget a farm whose tasks have ended."""
        self._farms.pop(farm, None)

    def lookup(
        self, function: RegisteredFunction, arguments: Arguments, position: Position = (0, 0)
    ) -> JournalEntry:
        """Compute the keys of calls, and look up their results."""
        name, code = self._identity(function)
        stream, index = position
        place = (stream, index) if isinstance(stream, tuple) else None
        keys = self._keys.of(function, code, arguments, place)
        self._report_code_change(name, code)
        values: dict[int, Any] = {}
        if self._index:
            for offset, id in enumerate(map(self._index.get, keys)):
                if id is not None and _may_restore(function, arguments, offset):
                    self._restore(function, id, keys, offset, position, values)
        self.restored += len(values)
        return JournalEntry(keys, values)

    def _restore(
        self,
        function: RegisteredFunction,
        id: int,
        keys: list[bytes],
        offset: int,
        position: Position,
        values: dict[int, Any],
    ) -> None:
        key = keys[offset]
        results = self._results.get(id)
        if results is None:
            segment = segment_in(self._writer.connection, self._path, id)
            results = self._results[id] = Results(self._path, segment)
            if len(self._results) > _CACHED_SEGMENTS:
                self._results.popitem(last=False)
        if results.draws and not self._draws_alike(
            function, results.draws, results.offsets[key], position, offset
        ):
            self._say_once(
                ("draws", function.name),
                f"results of {function.name!r} in the journal are from random numbers of another seed, or "
                "of another place in the job, so those tasks run again",
            )
            return
        size = _combined(results, keys, offset, position[1]) if results.combines else 1
        if not size:
            return
        try:
            value = results.value(results.offsets[key])
            if results.combines:
                values.update(dict.fromkeys(range(offset - size + 1, offset + 1)))
                value = Partial(size, value)
            values[offset - size + 1] = value
        except Exception as error:
            for lost in results.offsets if results.plain else [key]:
                self._index.pop(lost, None)
            self._say_once(
                ("load", function.name),
                f"a result of {function.name!r} in the journal cannot be loaded, so its task runs "
                f"again: {summarize(error)}",
            )

    def _draws_alike(
        self,
        function: RegisteredFunction,
        draws: bytes,
        recorded: int,
        position: Position,
        offset: int,
    ) -> bool:
        """Whether a task would draw the random numbers that its recorded result is from, or any will do."""
        seed = self._facts(function.farm).seed
        if seed == NO_SEED:
            return draws.startswith(NO_SEED)
        stream, first = _PLACE.unpack(draws[len(NO_SEED) :])
        expected = _number_of(position[0]), position[1] + offset
        return draws.startswith(seed) and (stream, first + recorded) == expected

    def _say_once(self, what: tuple[str, ...], line: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            say(line)

    def _report_unknown(self, what: str, name: str, unknown: Sequence[str]) -> None:
        """Say, once, which values no later run can tell to be equal."""
        subject = f"{what} {name!r}".lstrip()
        verb = "hold" if what.endswith("of") else "uses"
        listed = ", ".join(dict.fromkeys(unknown[:3]))
        self._say_once(
            ("unknown", subject),
            f"{subject} {verb} what cannot be compared between runs ({listed}), so its tasks run again "
            "with every --resume, unless they have a key=",
        )

    def _report_code_change(self, name: str, code: bytes) -> None:
        """Print a line, once, if all recorded results of that function name are from other code."""
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
                f"{self._what_changed(name, code)} has changed since the journal was written: its {count} "
                "finished tasks run again"
            )

    def _what_changed(self, name: str, code: bytes) -> str:
        before, now = self._recorded_parts.get(name, {}), self._parts_of(code)
        changed = [part for part in sorted({*before, *now}) if before.get(part) != now.get(part)]
        if not changed or "" in changed:
            return f"the code of {name!r}"
        listed = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        return f"what {name!r} uses ({listed})"

    def _parts_of(self, code: bytes) -> dict[str, str]:
        return {part: digest.hex() for part, digest in self._parts.get(code, {}).items()}

    def record(
        self,
        worker: int,
        function: RegisteredFunction,
        keys: Sequence[bytes],
        outcomes: Outcomes,
        position: Position = (0, 0),
        columns: Sequence[Sequence[Any]] = (),
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
            self._facts(function.farm).seed + _PLACE.pack(_number_of(position[0]), position[1])
            if outcomes.drew
            else b"",
            dump_plain(columns) if columns else b"",
            b"".join(_COVER.pack(*cover) for cover in outcomes.covers or ()),
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
        name, code = self._identity(function)
        id = self._functions.get((name, code))
        if id is None:
            parts = json.dumps(self._parts_of(code)).encode()
            names = json.dumps([self._parameters.get(function.code, []), named_tuples()]).encode()
            id = self._writer.add("functions", name.encode("utf-8", "surrogatepass"), code, parts, names)
            self._functions[name, code] = id
        return id

    def commit(self, now: float) -> None:
        """Pass what was recorded to the operating system, and force it to disk, at most once per second."""
        self._writer.commit(now)

    def close(self) -> None:
        """Force everything to disk, and release the file."""
        self._writer.close()

    def _identity(self, function: RegisteredFunction) -> tuple[str, bytes]:
        """What identifies a function in the journal: its name, and its code unless it has a ``key=``.

        The initializer of its farm counts as a part of its code.
        """
        code, opening = function.code, self._facts(function.farm).opening
        if function.policy.key is not None:
            return function.name, b""
        if opening:
            parts = self._parts.get(code, {})
            code = combine("with an initializer", code, opening)
            self._parts.setdefault(code, {**parts, "the initializer": opening})
        return function.name, code


def _may_restore(function: RegisteredFunction, arguments: Arguments, offset: int) -> bool:
    """Whether all results that a call refers to are from the journal.

    A task that runs again may give another result, from other random numbers for example. What was computed
    from its last result must run again, too.
    """
    futures = arguments.futures.get(offset)
    return function.restored and (not futures or all(future.restored for future in futures.values()))
