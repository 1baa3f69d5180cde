"""Finds the global names that a function uses, and the modules that are the user's own."""

import dis
import functools
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any

MISSING = object()
"""What `resolve` returns for a name that does not exist."""

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")


@functools.lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_library(module: Any, file: Any) -> bool:
    """Whether a module is part of Python or an installed package, not the user's own."""
    if not isinstance(module, str) or module == "__main__":
        return False
    if module.partition(".")[0] in ("taskfarm", *sys.builtin_module_names):
        return True
    if not isinstance(file, str):
        return module in sys.stdlib_module_names
    return (
        file.startswith("<")
        or file.startswith(_library_folders())
        or "/site-packages/" in file
        or "/dist-packages/" in file
    )


@functools.lru_cache(maxsize=1024)
def global_paths(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """The global names that code, or code nested in it, looks up, each with the attributes after it.

    Cached, because code is immutable.
    """
    return tuple(sorted(set(_looked_up(code))))


def _looked_up(code: CodeType) -> Iterator[tuple[str, ...]]:
    path: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if path and instruction.opname in _ATTRIBUTE:
            path += (str(instruction.argval),)
            continue
        if path:
            yield path
        path = (str(instruction.argval),) if instruction.opname in _GLOBAL else ()
    if path:
        yield path
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _looked_up(constant)


def resolve(namespace: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path; attributes are looked up only in the user's modules, not in other objects."""
    value = namespace.get(path[0], MISSING)
    for name in path[1:]:
        if not isinstance(value, ModuleType):
            break
        if is_library(value.__name__, getattr(value, "__file__", None)):
            break
        value = vars(value).get(name, MISSING)
    return value
