"""Keeps the results of commands in files: a folder for each command, or one table for all."""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence

from taskfarm.shell.execute import Ended, Spooled
from taskfarm.shell.joblog import FIELDS
from taskfarm.shell.output import pieces

LONGEST_NAME = 255
"""Bytes of a name of a folder; a longer argument is cut, and the number of its command added."""


def is_table(path: str) -> bool:
    """Whether a name is that of a table and not of a folder."""
    return path.endswith((".csv", ".jsonl", ".json"))


def folder_of(base: str, number: int, arguments: Sequence[str], names: Sequence[str]) -> str:
    """The folder of a command: the number or the name of each argument, and below it the argument."""
    parts = []
    for position, argument in enumerate(arguments, 1):
        name = names[position - 1] if position <= len(names) else ""
        parts += [_file_name(name or str(position), number), _file_name(argument, number)]
    return os.path.join(base, *parts)


def _file_name(text: str, number: int) -> str:
    """A text as a name of a file, which is no other folder."""
    name = text.replace("\\", "\\\\").replace("\t", "\\t").replace("/", "\\_")
    if name in ("", ".", ".."):
        return f"\\{name or '0'}"
    if len(data := os.fsencode(name)) > LONGEST_NAME:
        end = f".{number}"
        return f"{os.fsdecode(data[: LONGEST_NAME - len(end)])}{end}"
    return name


class Table:
    """A table of all commands that have ended, with what they have printed.

    Parameters
    ----------
    path : str
        The file: lines of JSON, or ``.csv``. It is created, or continued.
    names : sequence of str
        Names of the arguments.
    """

    def __init__(self, path: str, names: Sequence[str]) -> None:
        self._names = names
        self._is_csv = path.endswith(".csv")
        self._file = open(path, "ab")  # noqa: SIM115
        self._begun = self._file.tell() > 0

    def add(self, number: int, arguments: Sequence[str], command: str, ended: Ended) -> None:
        """Write the row of a command."""
        row = (self._csv_row if self._is_csv else self._json_row)(number, arguments, command, ended)
        for piece in row:
            self._file.write(piece)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _values(self, number: int, command: str, ended: Ended) -> list[object]:
        times = round(ended.started, 3), round(ended.seconds, 3)
        return [number, ended.host, *times, 0, ended.received, ended.code, ended.signal, command]

    def _csv_row(
        self, number: int, arguments: Sequence[str], command: str, ended: Ended
    ) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            named = [
                *self._names,
                *(f"V{index}" for index in range(len(self._names) + 1, len(arguments) + 1)),
            ]
            yield _csv_line([*FIELDS, *named, "Stdout", "Stderr"])
        yield _csv_line([*self._values(number, command, ended), *arguments]).removesuffix(b"\n")
        for output in (ended.stdout, ended.stderr):
            yield b',"'
            for piece in pieces(output):
                yield piece.replace(b'"', b'""')
            yield b'"'
        yield b"\n"

    def _json_row(
        self, number: int, arguments: Sequence[str], command: str, ended: Ended
    ) -> Iterator[bytes]:
        values = dict(zip(FIELDS, self._values(number, command, ended), strict=True))
        head = json.dumps({**values, "V": list(arguments)})
        yield head[:-1].encode()
        for name, output in (("Stdout", ended.stdout), ("Stderr", ended.stderr)):
            yield f', "{name}": "'.encode()
            yield from _json_text(output)
            yield b'"'
        yield b"}\n"


def _csv_line(values: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return os.fsencode(text.getvalue())


def _json_text(output: bytes | Spooled) -> Iterator[bytes]:
    """Output as the inside of a string of JSON; bytes that are no UTF-8 become single surrogates."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for piece in pieces(output):
        yield json.dumps(decoder.decode(piece))[1:-1].encode()
    yield json.dumps(decoder.decode(b"", final=True))[1:-1].encode()
