"""The log of commands, in GNU parallel's format: one line for each command that has ended."""

import os
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from taskfarm.errors import LaunchError
from taskfarm.shell.execute import Ended

FIELDS = ("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")

HEADER = "\t".join(FIELDS) + "\n"

_UNKNOWN, _FAILED, _DONE = 0, 1, 2


class Entry(NamedTuple):
    """What a line of a log says: the number and the text of a command, and whether it succeeded."""

    number: int
    command: str
    ok: bool


def is_joblog(path: str) -> bool:
    """Whether a file begins as a log does."""
    with open(path, "rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()


def entries(path: str) -> Iterator[Entry]:
    """The whole lines of a log, in their order.

    Raises
    ------
    LaunchError
        The file is no log.
    """
    with open(path, "rb") as file:
        if file.readline() != HEADER.encode():
            raise LaunchError(f"{path!r} is not a log of commands: its first line is not that of a joblog")
        for count, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                # Its writer was killed: the line counts as not written.
                return
            fields = line[:-1].split(b"\t", 8)
            try:
                number, code, signal = int(fields[0]), int(fields[6]), int(fields[7])
                text = os.fsdecode(fields[8].replace(b"\0", b"\n"))
            except (IndexError, ValueError):
                raise LaunchError(f"line {count} of {path!r} is not a line of a log of commands") from None
            if number < 1:
                raise LaunchError(f"line {count} of {path!r} has no number of a command")
            yield Entry(number, text, code == 0 and signal == 0)


class Logged:
    """What a log has: 9 bytes for each command.

    Parameters
    ----------
    path : str
        The log.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._states = bytearray()
        self._digests = array("q")
        self.count = 0
        for number, command, ok in entries(path):
            if number > len(self._states):
                more = number - len(self._states)
                self._states.extend(bytes(more))
                self._digests.extend([0] * more)
            self.count += self._states[number - 1] == _UNKNOWN
            self._states[number - 1] = _DONE if ok else _FAILED
            self._digests[number - 1] = hash(command)

    @property
    def last(self) -> int:
        """The highest number of a command in it."""
        return len(self._states)

    def check(self, number: int, command: str) -> None:
        """Raise LaunchError if the log has another command of this number."""
        if number <= self.last and self._states[number - 1] and self._digests[number - 1] != hash(command):
            raise LaunchError(
                f"{self._path!r} is the log of another list: its command {number} is not `{command}`; "
                "resume with the list that it was written for, or name another log"
            )

    def skips(self, number: int, failed_again: bool) -> bool:
        """Whether a command does not run: it is in the log, with success if `failed_again`."""
        state = self._states[number - 1] if number <= self.last else _UNKNOWN
        return state == _DONE or (state == _FAILED and not failed_again)


def failed_commands(path: str) -> dict[int, str]:
    """The commands that have failed and not succeeded later, by their numbers."""
    failed: dict[int, str] = {}
    for number, command, ok in entries(path):
        if ok:
            failed.pop(number, None)
        else:
            failed[number] = command
    return failed


class Joblog:
    """Writes a log: each line is whole, and written when its command has ended.

    Parameters
    ----------
    path : str
        The file; it is created, or continued after its last whole line.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            self._write(HEADER.encode())
        elif (whole := _end_of_last_line(self._descriptor, size)) != size:
            os.ftruncate(self._descriptor, whole)

    def add(self, number: int, ended: Ended, command: str) -> None:
        """Write the line of a command."""
        head = (
            f"{number}\t{ended.host}\t{ended.started:.3f}\t{ended.seconds:10.3f}\t0\t{ended.received}\t{ended.code}\t"
            f"{ended.signal}\t"
        )
        self._write(os.fsencode(head + command.replace("\n", "\0") + "\n"))

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Where the last whole line of a file ends."""
    end = size
    while end > 0:
        start = max(0, end - (1 << 16))
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
