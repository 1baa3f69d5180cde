"""Checks that a journal is safe to load: loading unpickles data, so only its user may have written it."""

import os
import stat
import struct

from taskfarm.errors import JournalError

APPLICATION = 0x7461736B
"""The application id of a taskfarm journal in SQLite's header."""

FORMAT = 4
"""Version of the table format in `store`."""

_HEADER = struct.Struct(">16s2xBB40xI4xI28x")
"""The header of an SQLite file: magic string, versions of its format for writing and reading, user version
and application id."""

_FILE_FORMATS = (1, 2)

COMPANIONS: dict[str, tuple[bytes, ...]] = {
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
    "-shm": (),
}
"""Files of SQLite beside a journal, by what is added to its name, and with what their content begins."""


def refuse_unsafe(path: str, what: str, directory: bool = False) -> None:
    """Raise JournalError if anyone but this user can have written a file or folder."""
    found = os.lstat(path)
    if not (stat.S_ISDIR if directory else stat.S_ISREG)(found.st_mode):
        kind = "folder" if directory else "file"
        raise JournalError(f"{what} {path} is not a {kind}: name another journal")
    if found.st_uid != os.geteuid():
        raise JournalError(
            f"{what} {path} belongs to another user, and loading it may run their code: name "
            "another journal"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(
            f"other users may write to {what} {path}, and loading it may run their code: if you trust its "
            f"contents, run `chmod go-w {path}`"
        )


def check_file(path: str) -> None:
    """Raise JournalError unless this is a journal that is safe to load; changes nothing."""
    refuse_unsafe(path, "the journal")
    for suffix, magics in COMPANIONS.items():
        beside = path + suffix
        if os.path.lexists(beside):
            refuse_unsafe(beside, "the file")
            with open(beside, "rb") as file:
                head = file.read(8)
            if head.strip(b"\0") and magics and not head.startswith(magics):
                raise JournalError(
                    f"the file {beside} is damaged, or no part of the journal: move it away, or name "
                    "another journal"
                )
    if os.path.lexists(f"{path}.d"):
        refuse_unsafe(f"{path}.d", "the folder of results", directory=True)
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
    magic, written, read, version, application = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
    if magic != b"SQLite format 3\0" or application != APPLICATION:
        raise JournalError(f"{path} is not a taskfarm journal: name another file")
    if version != FORMAT:
        raise JournalError(
            f"the journal {path} was written by another version of taskfarm (its format is {version}, "
            f"not {FORMAT}): name another file"
        )
    if written not in _FILE_FORMATS or read not in _FILE_FORMATS:
        # SQLite would open the file for reading only.
        raise JournalError(f"the journal {path} is damaged: name another file, or restore a copy of it")


def refuse_companions(path: str) -> None:
    """Raise JournalError if a new journal would take over files that are there already."""
    for suffix in (*COMPANIONS, ".d"):
        if os.path.lexists(path + suffix):
            raise JournalError(
                f"{path + suffix} exists, but the journal {path} does not: move it away, or name "
                "another file"
            )
