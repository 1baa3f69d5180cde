"""What the names in the job's file stand for, as workers get to know it.

A function of ``__main__`` travels by its name. What the name stands for, and every other name that the
function needs, is a `Definition`: a pickle that each worker gets once. A name that stands for something
else later gets another definition, so a call keeps the meaning that it had when it was queued.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, finalize

from taskfarm.errors import CallNotPicklable
from taskfarm.protocol.advice import ADVICE
from taskfarm.protocol.messages import Blob
from taskfarm.protocol.references import Collected
from taskfarm.protocol.serialize import collect_large, hash_pickle, make_blob, nbytes
from taskfarm.protocol.sides import JOB, LOCAL_NAMES, NotPickled
from taskfarm.protocol.snapshot import Needs, Snapshot
from taskfarm.protocol.task_base import unwrap_task

if TYPE_CHECKING:
    from taskfarm.protocol.by_value import Pickled

ALWAYS = ("__file__", "__package__", "__spec__")
"""Names of a module that other modules look up in it."""


MAY, IF_USED, MUST = 0, 1, 2
"""If a global cannot be pickled: leave it out, or raise an error if a task uses it, or raise one now."""

MAX_CACHED = 512
"""Number of sets of names whose definitions are remembered."""


DROPPED_BYTES, DROPPED_COUNT = 1 << 23, 64
"""Workers are told when this many bytes of definitions, or this many of them, are not needed any more."""


class Definition:
    """What some names of the job's file stand for; usually one name.

    Attributes
    ----------
    id : int
        Its id in messages.
    names : tuple of str
        The names. They are several if their values contain each other.
    blob : Blob
        The pickle of a dictionary with their values.
    nbytes : int
        Size of the pickle with its buffers.
    digest : bytes
        Identifies its content, with that of what it refers to.
    """

    __slots__ = ("__weakref__", "blob", "digest", "id", "names", "nbytes")

    def __init__(self, id: int, names: tuple[str, ...], blob: Blob, digest: bytes, nbytes: int) -> None:
        self.id = id
        self.names = names
        self.blob = blob
        self.digest = digest
        self.nbytes = nbytes


class _Entry:
    """One pickled global, and what its pickle depends on."""

    __slots__ = ("buffers", "definition", "pickled", "snapshot", "value")

    def __init__(
        self, value: Any, pickled: "Pickled", buffers: list[Any], snapshot: Snapshot | None
    ) -> None:
        self.value = value
        self.pickled = pickled
        self.buffers = buffers
        self.snapshot = snapshot
        self.definition: tuple[list[bytes], Definition] | None = None


class DefinitionTable:
    """The definitions of this process. Any thread may use it.

    Attributes
    ----------
    dropped : int
        Changes when enough definitions have gone, because nothing refers to them any more, that workers
        should drop them, too.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._main: ModuleType | None = None
        self._entries: dict[str, _Entry] = {}
        self._by_digest: WeakValueDictionary[bytes, Definition] = WeakValueDictionary()
        self._needed: dict[tuple[frozenset[str], frozenset[str]], Needs] = {}
        self._latest: dict[tuple[str, ...], Definition] = {}
        self._names: set[str] = set()
        self._last_id = 0
        self.dropped = 0
        self._dropped_bytes = 0

    def ids(self) -> set[int]:
        """The ids of the definitions that something refers to."""
        return {definition.id for definition in list(self._by_digest.values())}

    def needed(self, names: Iterable[str], may_need: Iterable[str] = ()) -> Needs:
        """What some names of ``__main__`` need now.

        Parameters
        ----------
        names : iterable of str
            The names.
        may_need : iterable of str
            Names that are left out if they cannot be pickled.

        Raises
        ------
        CallNotPicklable
            One of `names`, or something that it needs, cannot be pickled.
        """
        with self._lock:
            if self._main is not JOB.module:
                # As in IPython's %run.
                self._main = JOB.module
                self._needed.clear()
                self._entries.clear()
            key = frozenset(names), frozenset(may_need)
            found = self._needed.get(key)
            if found is not None and found.snapshot is not None and found.snapshot.is_current():
                return found
            found = self._find(*key)
            if found.snapshot is not None:
                if len(self._needed) >= MAX_CACHED:
                    self._needed.clear()
                self._needed[key] = found
            return found

    def _find(self, names: frozenset[str], may_need: frozenset[str]) -> Needs:
        namespace = vars(JOB.module)
        snapshot = Snapshot()
        entries: dict[str, _Entry] = {}
        wanted = [(name, MUST if name in names else MAY) for name in (*ALWAYS, *names, *may_need)]
        constant = self._collect(wanted, namespace, entries, snapshot)
        while broken := [name for name, entry in entries.items() if entry.pickled.refers - entries.keys()]:
            for name in broken:
                del entries[name]
        references = {name: _hard(entry) & entries.keys() for name, entry in entries.items()}
        for name, entry in entries.items():
            for contained in entry.pickled.contains & entries.keys():
                references[contained].add(name)
        groups = list(_groups(references)) if any(references.values()) else [(name,) for name in entries]
        definitions = tuple(self._define(groups, entries))
        needs = Needs(definitions)
        needs.snapshot = snapshot if constant else None
        return needs

    def _collect(
        self,
        wanted: list[tuple[str, int]],
        namespace: dict[str, Any],
        entries: dict[str, _Entry],
        snapshot: Snapshot,
    ) -> bool:
        """Pickle the globals that names reach, and that must or may be there.

        Returns False if one of them may change in place.
        """
        constant = True
        seen: dict[str, int] = {}
        while wanted:
            name, must = wanted.pop()
            if seen.get(name, -1) >= must:
                continue
            seen[name] = must
            snapshot.watch(namespace, name)
            if name in LOCAL_NAMES:
                continue
            entry = entries.get(name) or self._find_entry(name, namespace, must)
            if entry is None:
                continue
            if name not in entries:
                entries[name] = entry
                constant = constant and entry.snapshot is not None
                snapshot.include(entry.snapshot or snapshot)
            pickled = entry.pickled
            wanted += [(other, must) for other in _hard(entry)]
            # Few of the methods of a class are called.
            uses = min(must, IF_USED) if issubclass(type(entry.value), type) else must
            wanted += [(other, uses) for other in pickled.uses]
            wanted += [(other, MAY) for other in pickled.may_use]
        return constant

    def _find_entry(self, name: str, namespace: dict[str, Any], must: int) -> _Entry | None:
        """What a name stands for; None if that is left out."""
        if name not in namespace:
            if name not in self._names or must == MAY:
                return None
            # Its definition has no value: workers forget the one that they have.
            return _Entry(None, *_pickle({}), Snapshot())
        try:
            return self._entry(name, namespace[name])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if must == MUST:
                raise CallNotPicklable(f"the global {name!r} cannot be pickled: {reason}") from error
            if must == MAY:
                return None
            stand_in = NotPickled(name, reason)
            return _Entry(stand_in, *_pickle({name: stand_in}), None)

    def _entry(self, name: str, value: Any) -> _Entry:
        found = self._entries.get(name)
        if found is not None and found.value is value and found.snapshot and found.snapshot.is_current():
            return found
        ADVICE.of_generators(f"the global {name}", [value])
        snapshot = Snapshot({name: value})
        if name not in ALWAYS and not snapshot.record(value):
            self._entries.pop(name, None)
            return _Entry(value, *_pickle({name: value}), None)
        entry = self._entries[name] = _Entry(value, *_pickle({name: value}), snapshot)
        return entry

    def _define(
        self, groups: Iterable[tuple[str, ...]], entries: Mapping[str, _Entry]
    ) -> Iterator[Definition]:
        made: dict[str, Definition] = {}
        for names in groups:
            entry = entries[names[0]]
            before = [made[name].digest for name in sorted(_hard(entry) - set(names)) if name in made]
            before += [_content(entries[name]) for name in _meaning(names, entries)]
            if len(names) > 1 or entry.definition is None or entry.definition[0] != before:
                definition = self._define_together(names, entries, before)
                entry.definition = (before, definition)
            # As long as nothing has changed, workers need not load it again.
            self._latest[names] = definition = entry.definition[1]
            made.update(dict.fromkeys(names, definition))
            yield definition

    def _define_together(
        self, names: tuple[str, ...], entries: Mapping[str, _Entry], before: list[bytes]
    ) -> Definition:
        """The definition of names whose values may contain each other, after those of `before`."""
        entry = entries[names[0]]
        pickled, buffers = entry.pickled, entry.buffers
        if len(names) > 1:
            pickled, buffers = _pickle({name: entries[name].value for name in names})
        state = blake2b(repr(names).encode("utf-8", "surrogatepass"), digest_size=16)
        hash_pickle(state, pickled.data, buffers)
        state.update(b"".join(before))
        definition = self._by_digest.get(state.digest())
        return definition or self._add(names, pickled.data, buffers, state.digest())

    def _add(self, names: tuple[str, ...], data: bytes, buffers: list[Any], digest: bytes) -> Definition:
        self._last_id += 1
        self._names.update(names)
        blob = make_blob(data, buffers)
        size = nbytes(blob)
        ADVICE.of_size(f"the global {', '.join(names)}", size)
        definition = Definition(self._last_id, names, blob, digest, size)
        self._by_digest[digest] = definition
        finalize(definition, self._drop, size + DROPPED_BYTES // DROPPED_COUNT).atexit = False
        return definition

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._dropped_bytes > DROPPED_BYTES:
            self._dropped_bytes = 0
            self.dropped += 1


def _pickle(values: dict[str, Any]) -> "tuple[Pickled, list[Any]]":
    buffers: list[Any] = []
    from taskfarm.protocol import by_value  # loads cloudpickle

    # A definition is for all calls: none could tell it which results it needs.
    with Collected(refuse=True):
        return by_value.dumps(values, collect_large(buffers), values), buffers


def _hard(entry: _Entry) -> set[str]:
    """The names that must be defined before, or together with, an entry."""
    return entry.pickled.refers | entry.pickled.contains


def _meaning(names: tuple[str, ...], entries: Mapping[str, _Entry]) -> list[str]:
    """What functions among these names use, if they remember results, which would be wrong afterwards."""
    waiting = [name for name in names if _remembers(entries[name])]
    reached: set[str] = set()
    while waiting:
        pickled = entries[waiting.pop()].pickled
        found = ((pickled.uses | pickled.refers) & entries.keys()) - reached
        reached |= found
        waiting += found
    return sorted(reached)


def _remembers(entry: _Entry) -> bool:
    """Whether a global is a function with a cache, or with a state of another kind."""
    function = unwrap_task(entry.value)
    return hasattr(type(function), "cache_info") or (
        type(function) is FunctionType and entry.snapshot is None
    )


def _content(entry: _Entry) -> bytes:
    state = blake2b(digest_size=16)
    hash_pickle(state, entry.pickled.data, entry.buffers)
    return state.digest()


def _groups(references: Mapping[str, set[str]]) -> Iterator[tuple[str, ...]]:
    """Names in groups that refer to each other, each group after those to which it refers.

    Tarjan's algorithm for strongly connected components (SIAM Journal on Computing 1, 1972), without
    recursion. What contains another object and what is contained in it count as referring to each other.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    for start in sorted(references):
        if start in index:
            continue
        stack = [(start, iter(sorted(references[start])))]
        index[start] = low[start] = len(index)
        path.append(start)
        while stack:
            name, others = stack[-1]
            for other in others:
                if other not in index:
                    index[other] = low[other] = len(index)
                    path.append(other)
                    stack.append((other, iter(sorted(references[other]))))
                    break
                if other in path:
                    low[name] = min(low[name], index[other])
            else:
                stack.pop()
                if stack:
                    parent = stack[-1][0]
                    low[parent] = min(low[parent], low[name])
                if low[name] == index[name]:
                    at = path.index(name)
                    group = tuple(sorted(path[at:]))
                    del path[at:]
                    yield group


DEFINITIONS = DefinitionTable()
"""The definitions of the job that this process runs."""
