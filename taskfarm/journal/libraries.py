"""Tells the user's own modules from installed ones, and what identifies the code of a module.

The standard library counts by name. An installed package counts by the digests of its files, which its
installer has written to a list (`RECORD`; PEP 376, PEP 627). A module of the user counts by its code.
"""

import ast
import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from hashlib import blake2b
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType
from typing import Any

_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]")


@functools.lru_cache(maxsize=1)
def _standard_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] + os.sep for name in ("stdlib", "platstdlib")})


@functools.lru_cache(maxsize=1)
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] + os.sep for name in ("purelib", "platlib")})


def is_installed(file: Any) -> bool:
    """Whether a file belongs to an installed package."""
    return isinstance(file, str) and (
        _INSTALLED.search(file) is not None or file.startswith(_installed_folders())
    )


def is_library(module: Any, file: Any) -> bool:
    """Whether a module is part of Python or an installed package, not the user's own.

    Parameters
    ----------
    module, file : object
        Its ``__name__`` and ``__file__``, which may be anything.
    """
    if not isinstance(module, str) or module == "__main__":
        return False
    if module.partition(".")[0] in ("taskfarm", *sys.builtin_module_names):
        return True
    if not isinstance(file, str):
        return module in sys.stdlib_module_names
    return file.startswith("<") or file.startswith(_standard_folders()) or is_installed(file)


def origin(module: str) -> bytes:
    """What identifies the code of a module of a library, or of a compiled module: 16 bytes.

    Parameters
    ----------
    module : str
        Its full name; it need not be loaded.
    """
    top = module.partition(".")[0]
    if top == "taskfarm" or top in sys.stdlib_module_names:
        return b"standard library"
    return _origin(module, top)


@functools.lru_cache(maxsize=4096)
def _origin(module: str, top: str) -> bytes:
    file = file_of(module)
    if file is None:
        return b"without a file"
    if is_installed(file):
        folder = file[: -len(_below(file))]
        record = _record_of(folder, top)
        if record is not None:
            return record
    version = getattr(sys.modules.get(top), "__version__", "")
    state = blake2b(repr(version).encode(), digest_size=16)
    try:
        with open(file, "rb") as opened:
            while piece := opened.read(1 << 20):
                state.update(piece)
    except OSError:
        state.update(b"cannot be read")
    return state.digest()


def _below(file: str) -> str:
    """The part of a path below the folder for installed packages."""
    found = list(_INSTALLED.finditer(file))
    if found:
        return file[found[-1].end() :]
    return next(file[len(folder) :] for folder in _installed_folders() if file.startswith(folder))


def _plain_name(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


@functools.lru_cache(maxsize=256)
def _record_of(folder: str, top: str) -> bytes | None:
    """A digest of the digests of the files of a package; None if its installer has left no list."""
    try:
        lists = [name for name in os.listdir(folder) if name.endswith(".dist-info")]
    except OSError:
        return None
    # Most distributions are called like their package.
    lists.sort(key=lambda name: (_plain_name(name.partition("-")[0]) != _plain_name(top), name))
    for name in lists:
        lines = sorted(_files_in(os.path.join(folder, name, "RECORD"), top))
        if lines:
            return blake2b("".join(lines).encode(), digest_size=16).digest()
    return None


def _files_in(record: str, top: str) -> Iterator[str]:
    try:
        with open(record, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith((f"{top}/", f"{top}.")) and ",sha256=" in line:
                    yield line
    except OSError:
        return


def spec_of(module: str) -> ModuleSpec | None:
    """Find a module without loading it or its packages."""
    loaded = getattr(sys.modules.get(module), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    path: Any = None
    spec = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        try:
            spec = PathFinder.find_spec(name, path)
        except Exception:
            return None
        if spec is None:
            return None
        path = spec.submodule_search_locations or []
    return spec


def file_of(module: str) -> str | None:
    """The file of a module, loaded or not; None if it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        spec = spec_of(module)
        file = spec.origin if spec is not None and spec.has_location else None
    return file if isinstance(file, str) else None


@functools.lru_cache(maxsize=4096)
def code_of(module: str) -> CodeType | None:
    """The code of a module that has its source, compiled without running it; None for any other."""
    spec = spec_of(module)
    get_source = getattr(spec.loader, "get_source", None) if spec is not None else None
    if get_source is None:
        return None
    try:
        source = get_source(module)
        return None if source is None else compile(_bare(source), "<module>", "exec", dont_inherit=True)
    except Exception:
        return None


def _bare(source: str) -> ast.Module:
    """The syntax of a module without docstrings and line numbers."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str())), *rest]:
                    node.body[:] = rest or [ast.Pass()]
        for name, value in (("lineno", 1), ("end_lineno", 1), ("col_offset", 0), ("end_col_offset", 0)):
            if name in node._attributes:
                setattr(node, name, value)
    return tree
