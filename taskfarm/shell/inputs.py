"""The arguments of commands, from files, standard input and the command line, read as they are needed."""

import contextlib
import itertools
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from taskfarm.errors import LaunchError

_BLANKS = " \t\n\r\f\v"
"""What is cut off at both ends of a column."""

STDIN = "-"
"""The name of standard input."""


class Input(NamedTuple):
    """Where arguments come from.

    Attributes
    ----------
    values : list of str or None
        The arguments; None if they are the lines of a file.
    file : str
        The name of the file.
    linked : bool
        Whether it is read in step with the input before it, and not combined with it.
    """

    values: list[str] | None = None
    file: str = ""
    linked: bool = False

    def check(self) -> None:
        """Raise LaunchError if there is no such file."""
        if self.values is not None or self.file == STDIN:
            return
        if os.path.isdir(self.file) or not os.path.exists(self.file):
            raise LaunchError(f"there is no file {self.file!r} with arguments")
        if not os.access(self.file, os.R_OK):
            raise LaunchError(f"cannot read {self.file!r}")


class Inputs:
    """The rows of arguments that some inputs give: one row for each command.

    The first input is read as rows are needed. Inputs that are combined with it are kept in memory. An
    input that is empty counts as an empty argument, unless all of them are.

    Parameters
    ----------
    inputs : sequence of Input
        The inputs; the first one is not linked.
    colsep : str
        A regular expression that separates the columns of a line; empty if a line is one argument.
    header : bool
        Whether the first line of each input has the names of its columns.
    again : bool
        Whether the rows are to be read several times, also those of standard input and pipes.

    Attributes
    ----------
    names : list of str
        The names of the columns.
    """

    def __init__(
        self, inputs: Sequence[Input], colsep: str = "", header: bool = False, again: bool = False
    ) -> None:
        self._split = re.compile(colsep).split if colsep else None
        self._header = header
        self._copies = contextlib.ExitStack()
        self._inputs = [self._repeatable(each) if again else each for each in inputs]
        self.names: list[str] = []
        self._first: list[list[Iterator[str]]] | None = None
        if header:
            self._read_names()

    def close(self) -> None:
        """Remove the copies of what can be read only once."""
        self._copies.close()

    def __iter__(self) -> Iterator[list[str]]:
        """The rows, from the beginning."""
        groups = self._first or self._opened()
        self._first = None
        begun = [[(next(lines, None), lines) for lines in group] for group in groups]
        if all(line is None for group in begun for line, _ in group):
            return
        groups = [[itertools.chain([line or ""], lines) for line, lines in group] for group in begun]
        first, *others = [map(self._columns, zip(*group, strict=False)) for group in groups]
        if not others:
            yield from first
            return
        kept = [list(group) for group in others]
        for row in first:
            for rest in itertools.product(*kept):
                yield list(itertools.chain(row, *rest))

    def count(self) -> int | None:
        """The number of rows; None if that is not known before they are read."""
        groups = [[_length(each) for each in group] for group in self._grouped()]
        if any(None in lengths for lengths in groups):
            return None
        rows = [[max(0, (length or 0) - self._header) for length in lengths] for lengths in groups]
        if not any(map(any, rows)):
            return 0
        return math.prod(max(1, min(lengths, key=lambda length: length or 1)) for lengths in rows)

    def _columns(self, lines: tuple[str, ...]) -> list[str]:
        if self._split is None:
            return list(lines)
        # A group in the expression that has matched nothing gives None, as in any `re.split`.
        return [(column or "").strip(_BLANKS) for line in lines for column in self._split(line)]

    def _grouped(self) -> list[list[Input]]:
        groups: list[list[Input]] = []
        for each in self._inputs:
            if each.linked:
                groups[-1].append(each)
            else:
                groups.append([each])
        return groups

    def _opened(self) -> list[list[Iterator[str]]]:
        opened = [[_lines(each) for each in group] for group in self._grouped()]
        if self._header:
            for lines in itertools.chain.from_iterable(opened):
                next(lines, None)
        return opened

    def _read_names(self) -> None:
        """Read the first line of each input, and keep its place there: standard input has it only once."""
        self._first = [[_lines(each) for each in group] for group in self._grouped()]
        firsts = [next(lines, "") for group in self._first for lines in group]
        self.names = self._columns(tuple(firsts))

    def _repeatable(self, given: Input) -> Input:
        """The same input, as a file that can be read several times."""
        if given.values is not None or (given.file != STDIN and stat.S_ISREG(os.stat(given.file).st_mode)):
            return given
        copy = tempfile.NamedTemporaryFile("wb", prefix="taskfarm-shell-")  # noqa: SIM115
        self._copies.enter_context(copy)
        with _open(given.file) as source:
            shutil.copyfileobj(source, copy)
        copy.flush()
        return given._replace(file=copy.name)


def _open(file: str) -> IO[bytes]:
    if file == STDIN:
        return open(os.dup(sys.stdin.fileno()), "rb")
    return open(file, "rb")


def _lines(given: Input) -> Iterator[str]:
    """The arguments of an input, one a line, as text from which the same bytes can be made again."""
    if given.values is not None:
        for value in given.values:
            # An argument with several lines is several arguments; an empty one is one.
            yield from value.replace("\0", "\\0").split("\n")
        return
    with _open(given.file) as file:
        for line in file:
            yield os.fsdecode(line.removesuffix(b"\n").replace(b"\0", b"\\0"))


def _length(given: Input) -> int | None:
    """The number of arguments of an input, if it can be told without reading what comes only once."""
    if given.values is not None:
        return sum(value.count("\n") + 1 for value in given.values)
    if given.file == STDIN or not stat.S_ISREG(os.stat(given.file).st_mode):
        return None
    size, last = 0, b"\n"
    with open(given.file, "rb") as file:
        while block := file.read(1 << 20):
            size += block.count(b"\n")
            last = block[-1:]
    return size + (last != b"\n")
