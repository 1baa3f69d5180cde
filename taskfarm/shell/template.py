"""Command lines with replacement strings, in the syntax of GNU parallel."""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from taskfarm.errors import UsageError

SLOT = "\0"
"""Stands for ``{%}`` until a worker runs the command. No command can contain this character."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_./+-]")
_EXTENSION = re.compile(r"\.[^/.]*$")


def quote(text: str) -> str:
    """Quote a text so that a POSIX shell takes it as one word."""
    if text and not _UNSAFE.search(text):
        return text
    quoted = "'" + text.replace("'", "'\"'\"'") + "'"
    return quoted if quoted == "''" else quoted.removeprefix("''").removesuffix("''")


def _basename(text: str) -> str:
    return text.rpartition("/")[2]


def _dirname(text: str) -> str:
    head, slash, _ = text.rstrip("/").rpartition("/")
    if not slash:
        return "/" if text and not text.strip("/") else "."
    return head.rstrip("/") or "/"


def _without_extension(text: str) -> str:
    return _EXTENSION.sub("", text, count=1)


_CHANGES: dict[str, Callable[[str], str]] = {
    "": str,
    ".": _without_extension,
    "/": _basename,
    "//": _dirname,
    "/.": lambda text: _without_extension(_basename(text)),
}
"""What is done to an argument, by what follows its number in the braces."""


class _Replacement(NamedTuple):
    """A replacement string: ``{#}`` and ``{%}`` are changes, too.

    Attributes
    ----------
    position : int
        Which argument, counted from 1, or from the end if negative; 0 for all.
    change : str
        What stands behind that in the braces.
    """

    position: int
    change: str


class Template:
    """A command line with replacement strings.

    Parameters
    ----------
    text : str
        The command line; if it is empty, the arguments themselves are the command.
    names : sequence of str
        Names of the arguments, from the first line of each input.

    Attributes
    ----------
    is_empty : bool
        Whether the arguments themselves are the command.
    uses_slot : bool
        Whether the command contains ``{%}``.
    marks : list of int
        The positions in its replacement strings that stand for arguments, in their order.

    Raises
    ------
    UsageError
        The text has a Perl expression.
    """

    def __init__(self, text: str, names: Sequence[str] = ()) -> None:
        if re.search(r"\{=.*=\}", text, re.DOTALL):
            raise UsageError(
                "Perl expressions such as {= s/a/b/ =} are not supported: use the shell's own, such as "
                '`f={}; echo "${f%.txt}"`, or change the arguments before'
            )
        self.is_empty = not text.strip()
        pieces = _pieces("{}" if self.is_empty else text, names)
        if not any(isinstance(piece, _Replacement) for piece in pieces):
            pieces += [" ", _Replacement(0, "")]
        self._pieces = pieces
        self.uses_slot = _Replacement(0, "%") in pieces
        self.marks = [
            piece.position
            for piece in pieces
            if isinstance(piece, _Replacement) and piece.change not in ("#", "%")
        ]
        # An argument in the first word, unless that sets a variable, is a program or a whole command line.
        before = itertools.takewhile(lambda piece: isinstance(piece, str), pieces)
        self._quotes = bool(re.search(r"[\s=]", "".join(map(str, before))))

    def render(self, arguments: Sequence[str], number: int) -> str:
        """Return the command for these arguments; `number` is that of the command, counted from 1."""
        return "".join(
            piece if isinstance(piece, str) else self._value(piece, arguments, number)
            for piece in self._pieces
        )

    def render_in_turn(self, arguments: Sequence[str]) -> str:
        """Return the command for these arguments, of which each ``{}`` takes the next one.

        A single argument stands in every ``{}``.

        Raises
        ------
        UsageError
            There are not as many arguments as replacement strings.
        """
        if len(arguments) == 1 or any(self.marks) or self.marks == [0]:
            return self.render(arguments, 0)
        if len(arguments) != len(self.marks):
            raise UsageError(
                f"the command takes {len(self.marks)} arguments, and the call has {len(arguments)}"
            )
        rest = iter(arguments)
        return "".join(
            piece if isinstance(piece, str) else self._value(piece, [next(rest)], 0)
            for piece in self._pieces
        )

    def _value(self, piece: _Replacement, arguments: Sequence[str], number: int) -> str:
        position, change = piece
        if change == "#":
            return str(number)
        if change == "%":
            return SLOT
        if position:
            index = position - 1 if position > 0 else len(arguments) + position
            arguments = arguments[index : index + 1] if index >= 0 else ()
        changed = map(_CHANGES[change], arguments)
        return " ".join(map(quote, changed) if self._quotes else changed)


def _pieces(text: str, names: Sequence[str]) -> list[str | _Replacement]:
    """The texts and the replacement strings of a command line, in their order; no text is empty."""
    # Of columns with the same name, the first one has it.
    positions = {name: len(names) - index for index, name in enumerate(reversed(names)) if name}
    words = "|".join(map(re.escape, sorted(positions, key=len, reverse=True)))
    of_argument = rf"(?P<word>-?\d+{'|' + words if words else ''})?(?P<change>//|/\.|/|\.)?"
    pieces: list[str | _Replacement] = []
    end = 0
    for match in re.finditer(rf"\{{(?:{of_argument}|(?P<number>[#%]))\}}", text):
        if match.start() > end:
            pieces.append(text[end : match.start()])
        word = match["word"] or "0"
        position = positions[word] if word in positions else int(word)
        pieces.append(_Replacement(position, match["number"] or match["change"] or ""))
        end = match.end()
    return [*pieces, text[end:]] if end < len(text) else pieces
