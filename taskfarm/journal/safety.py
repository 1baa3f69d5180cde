"""Which journals may be opened: loading one unpickles what it holds, so nobody else may have written it."""

import os
import stat
import struct

from taskfarm.errors import JournalError

APPLICATION = 0x7461736B
"""What SQLite's header calls a journal of taskfarm."""

FORMAT = 1
"""Version of the tables in `store`."""

_HEADER = struct.Struct(">16s44xI4xI28x")
"""The head of an SQLite file: its magic, the user's version, the application."""


def refuse_unsafe(path: str, what: str, directory: bool = False) -> None:
    """Raise JournalError unless only this user can have written a file or folder."""
    found = os.lstat(path)
    if not (stat.S_ISDIR if directory else stat.S_ISREG)(found.st_mode):
        kind = "folder" if directory else "file"
        raise JournalError(f"{what} {path} is not a {kind}: name another journal")
    if found.st_uid != os.geteuid():
        raise JournalError(
            f"{what} {path} belongs to another user, and loading it may run code of theirs: name "
            "another journal"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(
            f"others may write to {what} {path}, and loading it may run code of theirs: if you trust "
            f"what is in it, run `chmod go-w {path}`"
        )


def check_file(path: str) -> None:
    """Raise JournalError unless this is a journal that may be loaded; nothing is changed."""
    refuse_unsafe(path, "the journal")
    for beside in (f"{path}-wal", f"{path}-journal"):
        if os.path.lexists(beside):
            refuse_unsafe(beside, "the file")
    if os.path.lexists(f"{path}.d"):
        refuse_unsafe(f"{path}.d", "the folder of results", directory=True)
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
    magic, version, application = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
    if magic != b"SQLite format 3\0" or application != APPLICATION:
        raise JournalError(f"{path} is not a journal of taskfarm: name another file")
    if version != FORMAT:
        raise JournalError(
            f"the journal {path} was written by another version of taskfarm (its format is {version}, "
            f"not {FORMAT}): name another file"
        )
