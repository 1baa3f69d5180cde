"""Finds what a function refers to by name: globals, and what its body imports."""

import dis
import functools
import re
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from taskfarm.journal.libraries import is_library

MISSING = object()
"""What `resolve` returns for a name that does not exist."""

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_BY_TEXT = frozenset(
    {"__import__", "eval", "exec", "getattr", "globals", "import_module", "importlib", "locals", "vars"}
)
HAS_DOCSTRING = 0x4000000
"""The flag of code objects whose first constant is the docstring; new in Python 3.13 or 3.14."""

_WORD = re.compile(r"[^\W\d][\w.]*")

_OF_THE_FILE = frozenset({"__builtins__", "__cached__", "__file__", "__loader__", "__path__", "__spec__"})
"""Globals of every module that depend on where its file is."""


class Import(NamedTuple):
    """An import in the body of a function.

    Attributes
    ----------
    level : int
        The number of dots of a relative import.
    module : str
        The module.
    names : tuple of str
        What is imported from it.
    """

    level: int
    module: str
    names: tuple[str, ...]


class References(NamedTuple):
    """What code refers to, nested code included.

    Attributes
    ----------
    paths : tuple of tuples of str
        The globals that it looks up, each with the attributes after it.
    imports : tuple of Import
        What it imports.
    attributes : frozenset of str
        All attributes that it looks up.
    words : frozenset of str
        The words in its text, if it may look up names by text, as `eval` and `getattr` do.
    """

    paths: tuple[tuple[str, ...], ...]
    imports: tuple[Import, ...]
    attributes: frozenset[str]
    words: frozenset[str]


@functools.lru_cache(maxsize=1024)
def references(code: CodeType) -> References:
    """What code refers to; cached, because code is immutable."""
    paths: set[tuple[str, ...]] = set()
    imports: set[Import] = set()
    attributes: set[str] = set()
    texts: list[str] = []
    for part in _nested(code):
        paths.update(_looked_up(part))
        imports.update(_imported(part))
        attributes.update(
            str(step.argval) for step in dis.get_instructions(part) if step.opname in _ATTRIBUTE
        )
        texts += [constant for constant in constants(part) if isinstance(constant, str)]
    words: set[str] = set()
    looked_up = {name for path in paths for name in path} | attributes
    looked_up.update(name for _, module, names in imports for name in (module, *names))
    if not _BY_TEXT.isdisjoint(looked_up):
        words.update(word for text in texts for word in _WORD.findall(text))
    found = (path for path in paths if path[0] not in _OF_THE_FILE)
    return References(tuple(sorted(found)), tuple(sorted(imports)), frozenset(attributes), frozenset(words))


@functools.lru_cache(maxsize=64)
def stored_globals(code: CodeType) -> frozenset[str]:
    """The globals that code sets; cached, because code is immutable."""
    return frozenset(
        str(step.argval)
        for part in _nested(code)
        for step in dis.get_instructions(part)
        if step.opname == "STORE_GLOBAL"
    )


def constants(code: CodeType) -> list[Any]:
    """The constants of code, with None for its docstring."""
    found = list(code.co_consts)
    if _has_docstring(code):
        found[0] = None
    return found


def _has_docstring(code: CodeType) -> bool:
    """Whether the first constant is the docstring."""
    if not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & HAS_DOCSTRING)
    # The first constant of a function is its docstring, but not that of a lambda, comprehension or class.
    return not code.co_name.startswith("<") and bool(code.co_flags & 1)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


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


def _imported(code: CodeType) -> Iterator[Import]:
    loaded: list[Any] = [0, None]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            level, names = loaded[-2:]
            yield Import(
                level if isinstance(level, int) else 0,
                str(instruction.argval),
                names if isinstance(names, tuple) else (),
            )
        elif instruction.opname.startswith("LOAD_"):
            loaded = [loaded[-1], instruction.argval]


def resolve(namespace: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path; attributes are looked up only in the user's modules, not in other objects.

    A user's module stands for itself if it does not have the attribute.
    """
    value = namespace.get(path[0], MISSING)
    for name in path[1:]:
        if not issubclass(type(value), ModuleType):
            break
        if is_library(value.__name__, getattr(value, "__file__", None)):
            break
        if name not in vars(value):
            break
        value = vars(value)[name]
    return value
