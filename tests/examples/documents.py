"""The blocks of a Markdown document, and what its commands say."""

import argparse
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from taskfarm.launch import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = re.compile(r"<!-- not run: .+ -->")
COMMAND = re.compile(
    r"(?:python3? -m |/)?\btaskfarm (?=(?:run|bench|journal|top|stack|trace|info|kernel|-)\b)"
)
END = re.compile(r"\s(?:&&|\|\||[|;>&#]|2>)(?:\s|$)|`")


class Block(NamedTuple):
    """A block of code.

    Attributes
    ----------
    where : str
        File and line, for messages and the names of tests.
    language : str
        What stands after the fence; empty for an indented block.
    text : str
        Its lines.
    runs : bool
        False after ``<!-- not run: why -->``.
    printed : str or None
        The indented block after a sentence that ends with ``prints`` or ``print``.
    """

    where: str
    language: str
    text: str
    runs: bool = True
    printed: str | None = None

    @property
    def line(self) -> int:
        """Where it begins."""
        return int(self.where.rpartition(":")[2])

    @property
    def is_program(self) -> bool:
        """Whether it stands for itself."""
        return "if __name__ ==" in self.text


def blocks(path: Path) -> list[Block]:
    """All blocks of a document, fenced and indented."""
    found: list[Block] = []
    between = ""
    for number, language, text in _pieces(path.read_text().split("\n")):
        if language == "prose":
            between = text
            continue
        if language == "" and between.rstrip().endswith(("prints", "print")) and found:
            found[-1] = found[-1]._replace(printed=text)
        where = f"{path.relative_to(ROOT)}:{number}"
        last = between.rstrip().rpartition("\n")[2]
        found.append(Block(where, language, text, not NOT_RUN.fullmatch(last)))
        between = ""
    return found


def _pieces(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """First line, language or ``prose``, and text of each piece of a document."""
    at = 0
    while at < len(lines):
        first = at
        if fence := re.match(r"( *)(```+)(\w*)", lines[at]):
            at += 1
            while not lines[at].strip().startswith(fence[2]):
                at += 1
            yield first + 2, fence[3] or "none", textwrap.dedent("\n".join(lines[first + 1 : at])) + "\n"
            at += 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            yield first + 1, "", textwrap.dedent("\n".join(lines[first:at])).rstrip() + "\n"
        else:
            while at < len(lines) and not re.match(r" *```", lines[at]):
                if lines[at].startswith("    ") and not lines[at - 1].strip():
                    break
                at += 1
            yield first + 1, "prose", "\n".join(lines[first:at])


def commands(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and words of each command of taskfarm in a document, after ``taskfarm``.

    In blocks and in prose; up to what ends it in a shell or, in prose, the back quote.
    """
    text = re.sub(r" *\\\n", lambda match: " " * len(match[0]), path.read_text())
    for match in COMMAND.finditer(text):
        rest = text[match.end() :]
        if "`" not in text[text.rfind("\n", 0, match.start()) + 1 : match.start()]:
            rest = rest.partition("\n")[0]
        rest = rest[: end.start()] if (end := END.search(rest)) else rest
        yield text.count("\n", 0, match.start()) + 1, shlex.split(" ".join(rest.split()))


def inline_options(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each long option in code within a sentence."""
    inside = False
    for number, line in enumerate(path.read_text().split("\n"), start=1):
        inside ^= line.startswith("```")
        if inside or line.startswith("    "):
            continue
        for code in re.findall(r"`([^`]+)`", line):
            yield from ((number, name) for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", code))


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, and that of them all under an empty name."""
    parser = cli._parser()
    found = {"": parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def long_options() -> set[str]:
    """Every long option of taskfarm and of the programs beside it in this repository."""
    found = {name for parser in parsers().values() for name in parser._option_string_actions}
    programs: Iterable[Path] = [
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "tests" / "benchmarks").glob("*.py"),
        *(path for path in (ROOT / "scripts").iterdir() if path.is_file()),
    ]
    for program in programs:
        found.update(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", program.read_text()))
    return found
