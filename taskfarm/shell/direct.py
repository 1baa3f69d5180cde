"""Which command lines need no shell: those for which bash would only start one program.

bash replaces itself by the program of such a line, so what is left of it is the environment that it passes
on. GNU make saves the shell in the same way.
"""

import os
import re
import subprocess
from collections.abc import Mapping

_PLAIN = r"[A-Za-z0-9_./+,:@%=^-]"
"""Characters that mean themselves wherever they stand in a word of bash."""

_WORD = rf"""(?:{_PLAIN}|'[^']*'|"[^"$`\\!]*")+"""

_LINE = re.compile(rf"[ \t]*[A-Za-z0-9_./+-]+(?:[ \t]+{_WORD})*[ \t]*")
"""A program and words for it. A word with ``=`` in the place of the program would set a variable."""

_WORDS = re.compile(_WORD)

_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")

_SAME_AS_PROGRAMS = frozenset({"true", "false"})
"""Commands of bash itself that are also programs which do the same, but for options."""

_CHANGES_BASH = ("BASH_ENV", "BASHOPTS", "SHELLOPTS", "POSIXLY_CORRECT")
"""Variables with which bash does something before it runs a command."""

_PROBE_SECONDS = 20.0

_PROBE = "compgen -bk; compgen -A function; echo; exec cat /proc/self/environ"
"""Lists bash's own words and functions, and then the environment that it passes on."""


def split(text: str) -> list[str] | None:
    """Return the words of a command line; None if it has anything that only a shell understands."""
    if not _LINE.fullmatch(text):
        return None
    if "'" not in text and '"' not in text:
        return text.split()
    return [_QUOTED.sub(lambda match: match[1] or match[2] or "", word) for word in _WORDS.findall(text)]


class DirectStart:
    """Finds the program of a command line, as bash does.

    Parameters
    ----------
    environ : mapping of str to str
        The environment that bash passes on, with which it was asked.
    own_words : set of str
        Words that name something of bash itself.

    Attributes
    ----------
    environ : dict of str to str
        As given.
    """

    def __init__(self, environ: Mapping[str, str], own_words: frozenset[str]) -> None:
        self.environ = dict(environ)
        self._own_words = own_words - _SAME_AS_PROGRAMS
        self._folders = [f"{folder}/" for folder in dict.fromkeys(environ["PATH"].split(":"))]

    def words(self, text: str) -> tuple[str, list[str]] | None:
        """Return the file of a command's program and the words of the command; None if it needs a shell."""
        words = split(text)
        if words is None or words[0] in self._own_words:
            return None
        name = words[0]
        if name in _SAME_AS_PROGRAMS and any(word.startswith("-") for word in words[1:]):
            return None
        file = name if "/" in name else self._find(name)
        return None if file is None else (file, words)

    def _find(self, name: str) -> str | None:
        for folder in self._folders:
            file = folder + name
            if os.access(file, os.X_OK) and os.path.isfile(file):
                return file
        return None


def ask_bash(shell: str, environ: Mapping[str, str]) -> DirectStart | None:
    """Ask bash for its own words and its environment; None if its command lines always need it.

    Parameters
    ----------
    shell : str
        The shell that runs commands.
    environ : mapping of str to str
        The environment in which it would run them.
    """
    if os.path.basename(shell) != "bash" or any(name in environ for name in _CHANGES_BASH):
        return None
    # bash looks for programs below relative folders, and expands a tilde.
    if not all(folder.startswith("/") for folder in environ.get("PATH", "").split(":")):
        return None
    try:
        told = subprocess.run(
            [shell, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            timeout=_PROBE_SECONDS,
            check=True,
            start_new_session=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    names, _, passed_on = told.partition(b"\n\n")
    own_words = frozenset(os.fsdecode(names).split("\n"))
    pairs = [entry.partition("=") for entry in os.fsdecode(passed_on).split("\0") if entry]
    return DirectStart({name: value for name, _, value in pairs}, own_words)
