"""Checks the files that a run is asked to write: none of them may take the place of another file."""

import os
import stat
from collections.abc import Callable

from taskfarm.errors import LaunchError
from taskfarm.launch.config import OUTPUT_FOLDER, RunConfig
from taskfarm.launch.script import Script

COMPANIONS = {"journal": ("-wal", "-shm", "-journal", ".d"), "status": (".ask",)}
"""What is added to the name of a file for the files that belong to it."""


def check(config: RunConfig, script: Script) -> None:
    """Check the files of ``--journal``, ``--status``, ``--report`` and ``--trace``.

    Raises
    ------
    LaunchError
        A file cannot be written, is given twice, or exists and is of another kind.
    """
    names = [name for name in ("journal", "status", "report", "trace") if getattr(config, name) is not None]
    for name in names:
        _check_place(name, getattr(config, name))
    _check_pairs([(name, getattr(config, name)) for name in names], script)
    for name in names:
        _check_kind(name, getattr(config, name))
    if config.output == "files" and os.path.exists(OUTPUT_FOLDER) and not os.path.isdir(OUTPUT_FOLDER):
        raise LaunchError(
            f"{OUTPUT_FOLDER!r} is not a folder, and --output files writes there: move it away"
        )
    if config.report is not None:
        from taskfarm.views.report import report

        report.check()


def _check_place(name: str, path: str) -> None:
    """Raise LaunchError if no file can be made there."""
    if not path:
        raise LaunchError(f"--{name} needs the name of a file")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise LaunchError(f"there is no folder {folder!r} for the {name}: create it first")
    if os.path.isdir(path):
        raise LaunchError(f"{path!r} is a folder: name a file for the {name}")
    real = os.path.realpath(path)
    if os.path.islink(path) and not os.path.isdir(os.path.dirname(real)):
        raise LaunchError(f"{path!r} is a link to {real!r}, where there is no folder: name another file")
    if not os.path.exists(path) and not os.access(os.path.dirname(real), os.W_OK | os.X_OK):
        raise LaunchError(f"cannot write to the folder {os.path.dirname(real)!r}: name another {name} file")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise LaunchError(f"cannot write to {path!r}: name another {name} file")


def _check_pairs(files: list[tuple[str, str]], script: Script) -> None:
    """Raise LaunchError if two names are one file."""
    taken = [("the job", script.target)] if script.kind == "file" else []
    for name, path in files:
        whole = [(f"the {name}", path)]
        whole += [(f"a file of the {name}", path + suffix) for suffix in COMPANIONS.get(name, ())]
        for what, place in whole:
            for other, other_place in taken:
                if _is_same(place, other_place):
                    raise LaunchError(f"{what} and {other} are the same file, {place!r}: name another one")
        taken += whole


def _is_same(one: str, other: str) -> bool:
    if os.path.exists(one) and os.path.exists(other):
        if os.path.samefile(one, other):
            # Not a device, such as /dev/null, that takes whatever is written.
            return not stat.S_ISCHR(os.stat(one).st_mode)
        return False
    (folder, name), (other_folder, other_name) = map(os.path.split, map(os.path.realpath, (one, other)))
    if not os.path.isdir(other_folder) or not os.path.samefile(folder, other_folder):
        return False
    return name == other_name or (name.lower() == other_name.lower() and _ignores_case(folder))


def _ignores_case(folder: str) -> bool:
    """Whether a folder is found by its name in the other case, too."""
    other = os.path.join(os.path.dirname(folder), os.path.basename(folder).swapcase())
    return other != folder and os.path.exists(other) and os.path.samefile(folder, other)


def _check_kind(name: str, path: str) -> None:
    """Raise LaunchError if there is a file of another kind."""
    if name == "journal" or not os.path.exists(path):
        return  # a journal is checked when it is opened
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        if name == "trace" and not stat.S_ISBLK(mode):
            return
        raise LaunchError(f"{path!r} is not a regular file: name another {name} file")
    if not recognizer(name)(path):
        raise LaunchError(
            f"{path!r} is not a {name} file, and would be overwritten: name another {name} file"
        )


def recognizer(name: str) -> Callable[[str], bool]:
    """What tells whether a file is one that ``run --NAME`` has written."""
    if name == "trace":
        from taskfarm.views.trace import is_trace

        return is_trace
    if name == "report":
        from taskfarm.views.report.report import is_report

        return is_report
    from taskfarm.views.status import is_status

    return is_status
