"""Files beside the job that are named like modules of the standard library, such as ``signal.py``.

Python gives such a file to everybody who imports that name. The job must get it, as it would without
taskfarm, but taskfarm itself and what it needs must not.
"""

import builtins
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

AT_START = frozenset(
    {
        *("_collections_abc", "_sitebuiltins", "abc", "codecs", "encodings", "genericpath", "io", "ntpath"),
        *("os", "posixpath", "site", "stat", "zipimport", *sys.builtin_module_names),
    }
)
"""Modules that Python itself loads before a job; a file of that name is never found."""

NEVER_NEEDED = frozenset({"antigravity", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "venv"})
"""Modules that nothing needs here, some of them common as names of folders."""

_NEEDED = (
    *("cloudpickle", "numpy", "subprocess", "concurrent.futures.thread", "glob", "tempfile", "sqlite3"),
    *("asyncio", "multiprocessing", "logging", "faulthandler", "dataclasses", "random", "json"),
)
"""What taskfarm loads only when it is needed."""

PACKAGES = tuple(
    f"taskfarm.{name}"
    for name in (
        *("protocol", "schedule", "transport", "worker", "master", "job", "journal", "views", "launch"),
        *("views.report", "console", "environment", "errors"),
    )
)
WORKER_PACKAGES = ("taskfarm.protocol", "taskfarm.transport", "taskfarm.worker", "taskfarm.launch")


def names_in(folder: str) -> set[str]:
    """The names of modules of the standard library that a folder has, too."""
    try:
        found = {entry.partition(".")[0] for entry in os.listdir(folder or os.curdir)}
    except OSError:
        return set()
    return (found & sys.stdlib_module_names) - AT_START - NEVER_NEEDED


_set_aside: list[str] = []


def folders_set_aside() -> list[str]:
    """The folders whose names have been set aside in this process, for its child processes."""
    return list(_set_aside)


def set_aside(folder: str, packages: tuple[str, ...] = ()) -> None:
    """Let the job find its own files, and taskfarm the standard library.

    This loads what taskfarm may need, if the folder has such files, and does nothing otherwise.

    Parameters
    ----------
    folder : str
        The folder of the job, which is or will be the first of ``sys.path``.
    packages : tuple of str
        The packages of taskfarm that this process may need; by default all.
    """
    if folder in _set_aside:
        return
    names = names_in(folder)
    if not names:
        return
    _set_aside.append(folder)
    # The job may have imported its own before.
    theirs = _take(
        name for name, module in list(sys.modules.items()) if _is_in(module, folder, name, names)
    )
    path, library = list(sys.path), os.path.dirname(os.__file__)
    others = [entry for entry in path if os.path.abspath(entry) != os.path.abspath(folder)]
    sys.path[:] = [library, os.path.join(library, "lib-dynload"), *others]
    try:
        for name in _NEEDED:
            _load(name)
        for package in packages or PACKAGES:
            _load_all(package)
    finally:
        sys.path[:] = path
    ours = _take(name for name in list(sys.modules) if name.partition(".")[0] in names)
    sys.modules.update(theirs)
    _serve(names, ours)


def _take(names: Iterable[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in names}


def _is_in(module: ModuleType, folder: str, name: str, names: set[str]) -> bool:
    """Whether a module of one of these names was loaded from a folder."""
    file = getattr(module, "__file__", None) or ""
    return name.partition(".")[0] in names and os.path.abspath(file).startswith(os.path.abspath(folder))


def _load(name: str) -> None:
    try:
        import_module(name)
    except Exception:
        return  # it is not installed


def _load_all(package: str) -> None:
    """Load every module of a package of taskfarm."""
    module = import_module(package)
    for folder in getattr(module, "__path__", ()):
        for entry in sorted(os.listdir(folder)):
            if entry.endswith(".py") and not entry.startswith("__"):
                _load(f"{package}.{entry[:-3]}")


def _serve(names: set[str], ours: dict[str, ModuleType]) -> None:
    """Give the modules that were set aside to taskfarm, when it imports them later."""
    import_any = builtins.__import__

    def import_by_who_asks(
        name: str, namespace: Any = None, local: Any = None, fromlist: Any = (), level: int = 0
    ) -> ModuleType:
        top = name.partition(".")[0]
        asks = (namespace or {}).get("__name__") or ""
        if level or top not in names or not asks.startswith("taskfarm.") or name not in ours:
            return import_any(name, namespace, local, fromlist, level)
        return ours[name] if fromlist else ours[top]

    builtins.__import__ = import_by_who_asks  # type: ignore[assignment]
