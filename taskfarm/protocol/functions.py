"""Which functions the workers know. A function means what it means at the moment of the call.

A worker gets a function once, not with every task. Yet a function of ``__main__`` carries the globals
and closure that it refers to, and a bound method carries its object; sent once, they would silently
keep old values. So each call of `FunctionTable.lookup` pickles the function again and compares digests,
unless all that it refers to is immutable and still the same object (`_Snapshot`), which is quick to tell.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from pickle import PickleBuffer
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

from taskfarm.errors import CallNotPicklable
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.messages import Blob, Limits
from taskfarm.protocol.serialize import dumps, plain_nbytes
from taskfarm.schedule.policy import Policy

LIMIT = 512
"""Functions that are remembered while no unfinished task calls them."""

_MISSING = object()


Identity: TypeAlias = tuple[bytes, Policy, bytes]
"""What tells functions apart: digest of the pickle, policy, digest of the code."""


class RegisteredFunction:
    """A function as it was when it was called.

    Attributes
    ----------
    id : int
        Its id in messages.
    name : str
        What to call it.
    blob : Blob
        Its pickle.
    identity : tuple
        What tells it from others.
    policy : Policy
        How its tasks are run.
    code : bytes
        A digest of its code that is the same in the next run, if a journal is kept; else empty.
    users : int
        Spans that still need it; counted by the master.
    """

    __slots__ = ("blob", "code", "id", "identity", "name", "policy", "users")

    def __init__(self, id: int, name: str, blob: Blob, identity: "Identity") -> None:
        self.id = id
        self.name = name
        self.blob = blob
        self.identity = identity
        _, self.policy, self.code = identity
        self.users = 0

    @property
    def limits(self) -> Limits | None:
        """The limits of the child process that runs its tasks; None if the worker runs them itself."""
        return Limits(self.policy.timeout, self.policy.memory) if self.policy.isolated else None


class FunctionTable:
    """Ids of functions, by identity where that is safe, else by digest of their pickle.

    Attributes
    ----------
    defaults : Policy
        What holds where a task does not say otherwise.
    code_digest : callable
        Gives the digest of a function's code; a journal puts its own here.
    forgotten : list of int
        Ids that will not be used again.
    isolated : set of int
        Ids of functions that workers run in a child process.
    """

    def __init__(self) -> None:
        self._by_identity: OrderedDict[int, tuple[object, _Snapshot, RegisteredFunction]] = OrderedDict()
        self._by_digest: OrderedDict[Identity, RegisteredFunction] = OrderedDict()
        self._last_id = 0
        self.forgotten: list[int] = []
        self.isolated: set[int] = set()
        self.defaults = Policy()
        self.code_digest: Callable[[Any], bytes] = lambda function: b""

    def register(self, function: Any) -> RegisteredFunction:
        """Find or enter a function.

        Raises
        ------
        CallNotPicklable
            The function cannot be pickled.
        """
        cached = self._by_identity.get(id(function))
        if cached and cached[1].holds():
            return cached[2]
        snapshot = _Snapshot()
        constant = snapshot.take(function)
        try:
            blob = dumps(function)
        except Exception as error:
            raise CallNotPicklable(
                f"the function {name_of(function)} cannot be pickled: {type(error).__name__}: {error}. "
                "Let it refer only to what can be sent to another process: open files, locks and "
                "connections are made inside the task or by the farm's initializer"
            ) from error
        policy = self.defaults.changed(getattr(function, "__taskfarm_policy__", {}))
        registered = self._register_pickle(name_of(function), blob, policy, self.code_digest(function))
        if constant:
            self._by_identity[id(function)] = (function, snapshot, registered)
            if len(self._by_identity) > LIMIT:
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
            self._last_id += 1
            registered = self._by_digest[identity] = RegisteredFunction(self._last_id, name, blob, identity)
            if policy.isolated:
                self.isolated.add(registered.id)
            if len(self._by_digest) > LIMIT:
                self._forget_unused()
        else:
            self._by_digest.move_to_end(identity)
        return registered

    def _forget_unused(self) -> None:
        """Drop the longer unused half of the functions that no unfinished task calls."""
        unused = [registered for registered in self._by_digest.values() if not registered.users][
            : LIMIT // 2
        ]
        dropped = {registered.id for registered in unused if registered.id != self._last_id}
        for registered in unused:
            if registered.id in dropped:
                del self._by_digest[registered.identity]
        for key, (_, _, registered) in list(self._by_identity.items()):
            if registered.id in dropped:
                del self._by_identity[key]
        self.isolated -= dropped
        self.forgotten.extend(dropped)


class _Snapshot:
    """What a function refers to, if all of it is immutable: then identity tells whether it changed."""

    __slots__ = ("_cells", "_globals", "_seen")

    def __init__(self) -> None:
        self._globals: list[tuple[dict[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._seen: set[int] = set()

    def holds(self) -> bool:
        """Whether every name and cell still refers to the same object."""
        for namespace, name, value in self._globals:
            if namespace.get(name, _MISSING) is not value:
                return False
        return all(cell.cell_contents is value for cell, value in self._cells)

    def take(self, value: Any) -> bool:
        """Record what `value` refers to; False if some of it may change in place."""
        if id(value) in self._seen:
            return True
        self._seen.add(id(value))
        value = getattr(value, "__taskfarm_function__", value)
        if isinstance(value, ModuleType | BuiltinFunctionType) or plain_nbytes([value]) is not None:
            return True
        if isinstance(value, type | FunctionType) and _importable(value):
            return True
        return isinstance(value, FunctionType) and self._take_function(value)

    def _take_function(self, function: FunctionType) -> bool:
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        if vars(function) or not all(map(self.take, defaults)):
            return False
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                return False
            self._cells.append((cell, value))
            if not self.take(value):
                return False
        for name in _names(function.__code__):
            value = function.__globals__.get(name, _MISSING)
            self._globals.append((function.__globals__, name, value))
            if value is not _MISSING and not self.take(value):
                return False
        return True


def _names(code: CodeType) -> set[str]:
    """Names that a function's code, or code nested in it, may look up among its globals."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _importable(value: type | FunctionType) -> bool:
    """Whether plain pickle sends `value` by name, from a module that is not ``__main__``."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
