"""Whether what a function refers to has changed since it was pickled, without pickling it again."""

import re
import sys
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from taskfarm.protocol import shared
from taskfarm.protocol.serialize import plain_nbytes
from taskfarm.protocol.sides import JOB
from taskfarm.protocol.task_base import is_task

_MISSING = object()

_IMMUTABLE = (
    *(ModuleType, BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType),
    *(object, re.Pattern, Decimal, range, type(Ellipsis), type(NotImplemented)),
    *(shared.Shared, shared.AsValue),
)
"""Types whose instances do not change, besides scalars."""

_DERIVED = frozenset(
    {
        *("__annotations__", "__dataclass_fields__", "__dataclass_params__", "__orig_bases__"),
        *("__parameters__", "_abc_impl", "_member_map_", "_member_names_", "_value2member_map_"),
        *(
            "__annotations_cache__",
            "__slotnames__",
            "__static_attributes__",
            "_unhashable_values_",
            "_field_defaults",
        ),
    }
)
"""Members of a class that Python derives from the others; nobody changes them in place."""


class Snapshot:
    """The objects that something refers to. If all are immutable, their identities reveal a change.

    Parameters
    ----------
    roots : mapping of str to object, optional
        Globals of the job's file that are recorded with their content. Others count by their name.
    """

    __slots__ = ("_cells", "_names", "_roots", "_seen", "_sizes")

    def __init__(self, roots: Mapping[str, object] | None = None) -> None:
        self._names: list[tuple[Mapping[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []
        self._seen: set[int] = set()
        self._roots = set(map(id, roots.values())) if roots else set()

    def is_current(self) -> bool:
        """Whether every name and cell still refers to the same object."""
        for namespace, name, value in self._names:
            if namespace.get(name, _MISSING) is not value:
                return False
        for namespace, size in self._sizes:
            if len(namespace) != size:
                return False
        return not self._cells or all(cell.cell_contents is value for cell, value in self._cells)

    def watch(self, namespace: Mapping[str, Any], name: str) -> None:
        """Record what a name stands for, or that it is missing, but nothing of its content."""
        self._names.append((namespace, name, namespace.get(name, _MISSING)))

    def include(self, other: "Snapshot") -> None:
        """Record all that another snapshot has recorded."""
        if other is self:
            return
        self._names += other._names
        self._cells += other._cells
        self._sizes += other._sizes

    def record(self, value: Any) -> bool:
        """Record the objects that `value` refers to; False if one of them may change in place."""
        if id(value) in self._seen:
            return True
        self._seen.add(id(value))
        kind = type(value)
        if kind in _IMMUTABLE or plain_nbytes([value]) is not None:
            return True
        if kind is FunctionType:
            return self._by_name(value) or self._record_function(value)
        if issubclass(kind, type):
            return self._by_name(value) or self._record_class(value)
        if issubclass(kind, Enum):
            return self.record(kind)
        if issubclass(kind, PurePath):
            return True
        return self._record_wrapper(kind, value)

    def _by_name(self, value: Any) -> bool:
        return id(value) not in self._roots and (is_global(value) or is_importable(value))

    def _record_wrapper(self, kind: type, value: Any) -> bool:
        if kind in (tuple, frozenset):
            return all(map(self.record, value))
        if is_task(value) or hasattr(kind, "cache_info"):
            inner = value.__taskfarm_function__ if is_task(value) else value.__wrapped__
            return self._by_name(value) or self.record(inner)
        if kind in (staticmethod, classmethod):
            return self.record(value.__func__)
        if kind is property:
            return all(map(self.record, (value.fget, value.fset, value.fdel)))
        if kind is MethodType:
            return self.record(value.__func__) and self.record(value.__self__)
        if kind is partial:
            parts = (value.func, value.args, *value.keywords.values())
            return not vars(value) and all(map(self.record, parts))
        return False

    def _record_function(self, function: FunctionType) -> bool:
        attributes = vars(function)
        parts = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        self._record_names(attributes)
        if function.__closure__ and _rebinds(function.__code__):
            return False
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                return False
            self._cells.append((cell, value))
            parts.append(value)
        if function.__globals__ is not vars(JOB.module):
            # It travels with copies of the globals that it uses.
            from taskfarm.protocol.by_value import global_names

            for name in global_names(function.__code__).uses:
                self.watch(function.__globals__, name)
                parts.append(function.__globals__.get(name))
        return all(map(self.record, (*parts, *attributes.values())))

    def _record_class(self, cls: type) -> bool:
        members = vars(cls)
        self._record_names(members)
        derived = _DERIVED
        if issubclass(cls, Enum):
            derived = derived.union(cls._member_names_)
        if not all(map(self.record, cls.__bases__)) or type(cls).__module__ not in (
            "builtins",
            "abc",
            "enum",
        ):
            return False
        return all(self.record(value) for name, value in list(members.items()) if name not in derived)

    def _record_names(self, mapping: "Mapping[str, Any] | MappingProxyType[str, Any]") -> None:
        self._sizes.append((mapping, len(mapping)))
        self._names += [(mapping, name, value) for name, value in list(mapping.items())]


class Needs(tuple[Any, ...]):
    """The definitions that a blob needs, each after those to which it refers; in a message, their ids.

    Attributes
    ----------
    snapshot : Snapshot or None
        Tells whether they are current; None if a value among them may change in place.
    """

    snapshot: Snapshot | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ([definition.id for definition in self],)


@lru_cache(maxsize=1024)
def _rebinds(function: CodeType) -> bool:
    """Whether a function, or another one inside it, assigns to a variable of the function around it."""
    import dis

    shared = {*function.co_freevars}
    codes = [function]
    while codes:
        code = codes.pop()
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in shared:
                return True
        codes += [constant for constant in code.co_consts if isinstance(constant, type(code))]
    return False


def is_global(value: Any) -> bool:
    """Whether a function or class is found in the job's file under its own name."""
    if value.__module__ != "__main__" or not isinstance(value.__qualname__, str):
        return False
    found: Any = JOB.module
    for name in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is value


def is_job_function(value: Any) -> bool:
    """Whether a value is a function or task that is found in the job's file under its own name."""
    return (type(value) is FunctionType or is_task(value)) and is_global(value)


def is_importable(value: Any) -> bool:
    """Whether pickle finds a function or class by its name in a module other than ``__main__``."""
    module = getattr(value, "__module__", "")
    found: Any = sys.modules.get(module) if module != "__main__" else None
    for name in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is value
