"""The functions that tasks call. A function keeps the meaning that it has at the moment of the call.

A worker receives a function once, not with every task. But the pickle of a function of ``__main__``
contains the globals and the closure that it refers to, and the pickle of a bound method contains its
object. If they were pickled only once, workers would silently use old values. So each call of
`FunctionTable.register` pickles the function again and compares digests, unless everything that it refers
to is immutable and still the same object (`_Snapshot`), which is quick to check.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from itertools import count
from pickle import PickleBuffer
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

from taskfarm.errors import CallNotPicklable, wrap
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.messages import Blob, Limits
from taskfarm.protocol.serialize import dumps, plain_nbytes
from taskfarm.schedule.policy import Policy

MAX_CACHED = 512
"""Number of functions to keep in the table, besides those that unfinished tasks call."""

_MISSING = object()


Identity: TypeAlias = tuple[bytes, Policy, bytes]
"""Identifies a function: digest of the pickle, policy, digest of the code."""


class RegisteredFunction:
    """A function as it was when it was called.

    Attributes
    ----------
    id : int
        Its id in messages.
    name : str
        Its name in messages.
    blob : Blob
        Its pickle.
    identity : tuple
        Identifies it among all functions.
    policy : Policy
        How its tasks are run.
    code : bytes
        A digest of its code that stays the same from run to run, if there is a journal; else empty.
    farm : int
        The farm that runs its tasks: each farm has functions of its own.
    users : int
        Number of sources of unfinished tasks that call it; the master counts them.
    """

    __slots__ = ("blob", "code", "farm", "id", "identity", "name", "policy", "users")

    def __init__(self, id: int, name: str, blob: Blob, identity: "Identity", farm: int = 0) -> None:
        self.id = id
        self.name = name
        self.blob = blob
        self.identity = identity
        _, self.policy, self.code = identity
        self.farm = farm
        self.users = 0

    @property
    def limits(self) -> Limits | None:
        """The limits of the child process that runs its tasks; None if the worker runs them itself."""
        return Limits(self.policy.timeout, self.policy.memory) if self.policy.isolated else None


class FunctionTable:
    """Ids of functions, found by object identity if that is safe, else by digest of their pickle.

    Attributes
    ----------
    farm : int
        The farm whose functions these are.
    defaults : Policy
        The policy of tasks that do not specify their own.
    code_digest : callable
        Returns the digest of a function's code; a journal replaces it by its own.
    forgotten : list of int
        Ids that will not be used again.
    isolated : set of int
        Ids of functions that workers run in a child process.
    """

    def __init__(self) -> None:
        self._by_identity: OrderedDict[int, tuple[object, _Snapshot, RegisteredFunction]] = OrderedDict()
        self._by_digest: OrderedDict[Identity, RegisteredFunction] = OrderedDict()
        self._ids = count(1)
        self._last_id = 0
        self.farm = 0
        self.forgotten: list[int] = []
        self.isolated: set[int] = set()
        self.defaults = Policy()
        self.code_digest: Callable[[Any], bytes] = lambda function: b""

    def of_farm(self, farm: int, defaults: Policy) -> "FunctionTable":
        """A table of the functions of one farm, which shares ids and settings with this one."""
        table = FunctionTable()
        table.farm, table.defaults, table.code_digest = farm, defaults, self.code_digest
        table._ids, table.forgotten, table.isolated = self._ids, self.forgotten, self.isolated
        return table

    def clear(self) -> None:
        """Drop all functions, whose tasks have ended."""
        dropped = [registered.id for registered in self._by_digest.values()]
        self._by_identity.clear()
        self._by_digest.clear()
        self.isolated.difference_update(dropped)
        self.forgotten.extend(dropped)

    def register(self, function: Any) -> RegisteredFunction:
        """Return the entry of a function, which is added if there is none.

        Raises
        ------
        CallNotPicklable
            The function cannot be pickled.
        """
        cached = self._by_identity.get(id(function))
        if cached is not None:
            _, snapshot, registered = cached
            if snapshot.is_current():
                return registered
        snapshot = _Snapshot()
        constant = snapshot.record(function)
        try:
            blob = dumps(function)
        except Exception as error:
            raise wrap(
                CallNotPicklable,
                error,
                f"the function {name_of(function)} cannot be pickled: {type(error).__name__}: {error}. "
                "It may refer only to objects that can be pickled: create open files, locks and "
                "connections inside the task or in the farm's initializer",
            ) from error
        policy = self.defaults.changed(getattr(function, "__taskfarm_policy__", {}))
        registered = self._register_pickle(name_of(function), blob, policy, self.code_digest(function))
        if constant:
            self._by_identity[id(function)] = (function, snapshot, registered)
            if len(self._by_identity) > MAX_CACHED:
                self._by_identity.popitem(last=False)
        return registered

    def _register_pickle(self, name: str, blob: Blob, policy: Policy, code: bytes) -> RegisteredFunction:
        state = blake2b(blob.data, digest_size=16)
        for buffer in blob.buffers:
            state.update(PickleBuffer(buffer).raw())
        state.update(name.encode())
        identity = (state.digest(), policy, code)
        registered = self._by_digest.get(identity)
        if registered is None:
            self._last_id = next(self._ids)
            registered = RegisteredFunction(self._last_id, name, blob, identity, self.farm)
            self._by_digest[identity] = registered
            if policy.isolated:
                self.isolated.add(registered.id)
            if len(self._by_digest) > MAX_CACHED:
                self._forget_unused()
        else:
            self._by_digest.move_to_end(identity)
        return registered

    def _forget_unused(self) -> None:
        """Drop the least recently used functions that no unfinished task calls."""
        unused = [registered for registered in self._by_digest.values() if not registered.users]
        oldest = unused[: MAX_CACHED // 2]
        dropped = {registered.id for registered in oldest if registered.id != self._last_id}
        for registered in oldest:
            if registered.id in dropped:
                del self._by_digest[registered.identity]
        for key, (_, _, registered) in list(self._by_identity.items()):
            if registered.id in dropped:
                del self._by_identity[key]
        self.isolated.difference_update(dropped)
        self.forgotten.extend(dropped)


class _Snapshot:
    """The objects that a function refers to. If all are immutable, their identities reveal a change."""

    __slots__ = ("_cells", "_globals", "_seen")

    def __init__(self) -> None:
        self._globals: list[tuple[dict[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._seen: set[int] = set()

    def is_current(self) -> bool:
        """Whether every name and cell still refers to the same object."""
        for namespace, name, value in self._globals:
            if namespace.get(name, _MISSING) is not value:
                return False
        return all(cell.cell_contents is value for cell, value in self._cells)

    def record(self, value: Any) -> bool:
        """Record the objects that `value` refers to; False if one of them may change in place."""
        if id(value) in self._seen:
            return True
        self._seen.add(id(value))
        value = getattr(value, "__taskfarm_function__", value)
        if isinstance(value, ModuleType | BuiltinFunctionType) or plain_nbytes([value]) is not None:
            return True
        if isinstance(value, type | FunctionType) and _importable(value):
            return True
        return isinstance(value, FunctionType) and self._record_function(value)

    def _record_function(self, function: FunctionType) -> bool:
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        if vars(function) or not all(map(self.record, defaults)):
            return False
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                return False
            self._cells.append((cell, value))
            if not self.record(value):
                return False
        for name in _names(function.__code__):
            value = function.__globals__.get(name, _MISSING)
            self._globals.append((function.__globals__, name, value))
            if value is not _MISSING and not self.record(value):
                return False
        return True


def _names(code: CodeType) -> set[str]:
    """Names that a function's code, or code nested in it, may look up in its globals."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _importable(value: type | FunctionType) -> bool:
    """Whether pickle stores `value` by name, in a module other than ``__main__``."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
