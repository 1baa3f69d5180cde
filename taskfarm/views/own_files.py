"""Puts a file that a run has written under its name, unless a file of another kind is there."""

import contextlib
import json
import os
from collections.abc import Callable
from errno import EEXIST, EISDIR


def put(new: str, path: str, is_own: Callable[[str], bool]) -> None:
    """Rename a file; it takes the place only of one that an earlier run has written.

    Parameters
    ----------
    new, path : str
        The file, and its name from now on, in the same folder; a symbolic link is followed.
    is_own : callable
        Tells whether a file is one that an earlier run has written.

    Raises
    ------
    FileExistsError
        There is another file.
    OSError
        The file cannot be renamed.
    """
    real = os.path.realpath(path)
    if not os.path.lexists(real):
        try:
            # Unlike a rename, this takes no place of a file that appears meanwhile.
            os.link(new, real)
        except FileExistsError:
            pass
        except OSError:
            os.rename(new, real)  # a file system without hard links
            return
        else:
            os.unlink(new)
            return
    if os.path.isdir(real):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), path)
    if not os.path.isfile(real) or not is_own(real):
        raise FileExistsError(EEXIST, "a file of another kind is there", path)
    os.replace(new, real)


def write_json(path: str, content: object, is_own: Callable[[str], bool]) -> None:
    """Write a file beside and put it under its name; raises what `put` does, and leaves nothing then."""
    new = beside(path)
    try:
        with open(new, "w") as file:
            json.dump(content, file)
        put(new, path, is_own)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def beside(path: str) -> str:
    """A name for a file while it is being written: this process's own, in the same folder."""
    return f"{os.path.realpath(path)}.{os.getpid()}.new"
