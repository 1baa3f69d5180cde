"""What a run of commands is asked for: the words of the command line, read and checked."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskfarm.errors import LaunchError, UsageError
from taskfarm.shell.halting import Halt
from taskfarm.shell.inputs import STDIN, Input, Inputs
from taskfarm.shell.results import is_table
from taskfarm.shell.template import Template

_LINKED = {":::": False, ":::+": True, "::::": False, "::::+": True}
"""The words that separate the command from arguments, and whether these are linked to those before."""


class Request(NamedTuple):
    """A run of commands.

    Attributes
    ----------
    command : str
        The command with its replacement strings; empty if the arguments are the commands.
    inputs : list of Input
        Where the arguments come from.
    colsep : str
        A regular expression that separates the columns of a line.
    header : bool
        Whether the first line of each input has names.
    keep_order, tag : bool
        How output is printed.
    delay : float
        Seconds between two starts.
    tries : int
        How often a command that fails is run in all.
    timeout : float or None
        Seconds after which a command is ended, or percent of the median, see `timeout_percent`.
    timeout_percent : bool
        Whether the timeout is a percentage.
    memory : int or None
        Bytes that the processes of a command may hold.
    halt : str
        The words of ``--halt``.
    joblog : str
        The log.
    resume : {"", "resume", "resume-failed", "retry-failed"}
        What the log says about what runs.
    results : str
        The folder or table that keeps results.
    tmpdir : str
        The folder for large output, which rank 0 and all workers see.
    journal : str
        The journal of outcomes, beside which large output is kept.
    """

    command: str = ""
    inputs: Sequence[Input] = ()
    colsep: str = ""
    header: bool = False
    keep_order: bool = False
    tag: bool = False
    delay: float = 0.0
    tries: int = 1
    timeout: float | None = None
    timeout_percent: bool = False
    memory: int | None = None
    halt: str = "never"
    joblog: str = ""
    resume: str = ""
    results: str = ""
    tmpdir: str = ""
    journal: str = ""

    def to_json(self) -> str:
        """Return it as a text, for `from_json`."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Return what `to_json` was called on."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "inputs": [Input(*each) for each in values["inputs"]]})

    def with_spool(self, shared: str) -> "Request":
        """The same with a folder for large output: `shared`, or if that is empty one of this host."""
        return self if self.tmpdir else self._replace(tmpdir=shared or tempfile.gettempdir())

    def check(self) -> None:
        """Check the words, without a look at files.

        Raises
        ------
        UsageError
            They contradict each other, or ask for what is not supported.
        """
        Template(self.command)
        if self.resume and not self.joblog and not (self.resume == "resume" and self.journal):
            raise UsageError(f"--{self.resume} needs the log to resume from: add --joblog FILE")
        if self.resume == "retry-failed" and (self.command or self.inputs):
            raise UsageError(
                "--retry-failed takes the commands from the log: give no command and no arguments"
            )
        if self.resume != "retry-failed" and not self.inputs:
            raise UsageError("nothing to run: give a FILE of commands, or a command and ::: arguments")

    def check_files(self) -> None:
        """Raise LaunchError if a file cannot be read, or would be overwritten."""
        for each in self.inputs:
            each.check()
        if re.search(r"\{(?:-?\d*[./]*|[#%])\}", self.results):
            raise LaunchError(
                f"--results {self.results!r}: replacement strings are not supported there; name a folder, "
                "which gets one for each command"
            )
        for option, path in (("joblog", self.joblog), ("results", self.results), ("tmpdir", self.tmpdir)):
            folder = os.path.dirname(os.path.abspath(path))
            if path and not os.path.isdir(folder):
                raise LaunchError(f"there is no folder {folder!r} for --{option}: create it first")
        if self.joblog:
            self._check_joblog()
        if self.tmpdir and not os.path.isdir(self.tmpdir):
            raise LaunchError(f"there is no folder {self.tmpdir!r} for --tmpdir: create it first")
        if self.results and os.path.exists(self.results):
            if os.path.isdir(self.results) == is_table(self.results):
                kind = "a folder" if is_table(self.results) else "not a folder"
                raise LaunchError(f"{self.results!r} is {kind}: name another place for --results")
            if is_table(self.results) and not self.resume and os.path.getsize(self.results):
                raise LaunchError(f"{self.results!r} exists: name another file for --results")

    def _check_joblog(self) -> None:
        from taskfarm.shell.joblog import is_joblog

        if os.path.isdir(self.joblog):
            raise LaunchError(f"{self.joblog!r} is a folder: name a file for --joblog")
        if is_filled(self.joblog):
            if not self.resume:
                raise LaunchError(
                    f"the log {self.joblog!r} exists: add --resume or --resume-failed, or remove it"
                )
            if not is_joblog(self.joblog):
                raise LaunchError(f"{self.joblog!r} is no log of commands: its first line is another one")
        elif self.resume == "retry-failed":
            raise LaunchError(f"there is no log {self.joblog!r} with commands to retry")

    def open_inputs(self, again: bool) -> Inputs:
        """Open the inputs; `again`: they are read several times."""
        return Inputs(self.inputs, self.colsep, self.header, again)

    def halts(self) -> Halt | None:
        """When the run ends early."""
        return Halt.parse(self.halt)


def is_filled(path: str) -> bool:
    """Whether there is a file with something in it."""
    return os.path.exists(path) and os.path.getsize(path) > 0


def read_words(words: Sequence[str], files: Sequence[str]) -> tuple[str, list[Input]]:
    """Return the command and the inputs that the words after the options name; `files` are those of ``-a``.

    Raises
    ------
    UsageError
        There is nothing to run.
    """
    if words[:1] == ["--"]:
        words = words[1:]
    first = next((index for index, word in enumerate(words) if word in _LINKED), len(words))
    command, inputs = " ".join(words[:first]), [Input(file=file) for file in files]
    separator = ""
    for word in words[first:]:
        if word in _LINKED:
            separator = word
            if separator.startswith(":::") and not separator.startswith("::::"):
                inputs.append(Input(values=[], linked=_LINKED[separator] and bool(inputs)))
        elif separator.startswith("::::"):
            inputs.append(Input(file=word, linked=_LINKED[separator] and bool(inputs)))
        else:
            values = inputs[-1].values
            assert values is not None
            values.append(word)
    if inputs:
        return command, inputs
    if first == 1 and os.path.isfile(words[0]) and not os.access(words[0], os.X_OK):
        return "", [Input(file=words[0])]
    if sys.stdin is None or sys.stdin.isatty():
        missing = f"there is no file {words[0]!r} of commands" if _is_name(words) else "nothing to run"
        raise UsageError(f"{missing}: give a FILE of commands, or a command and ::: arguments")
    if _is_name(words):
        raise UsageError(f"there is no file {words[0]!r} of commands")
    return command, [Input(file=STDIN)]


def _is_name(words: Sequence[str]) -> bool:
    """Whether the words are probably meant as the name of a file of commands."""
    return len(words) == 1 and bool(re.fullmatch(r"[\w./-]+\.(txt|list|cmds?|tasks|jobs)", words[0]))
