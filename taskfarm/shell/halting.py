"""When a run of commands ends before all have ended: ``--halt now|soon,fail|success|done=N|N%``."""

import re
from typing import NamedTuple

_WORDS = re.compile(r"(now|soon),(fail|success|done)=(\d+)(%?)")


class Halt(NamedTuple):
    """When to end a run.

    Attributes
    ----------
    now : bool
        Whether the commands that run then are ended, too.
    kind : {"fail", "success", "done"}
        What is counted.
    number : int
        How many of these end the run, or how many percent of all commands.
    percent : bool
        Whether the number is a percentage.
    """

    now: bool
    kind: str
    number: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> "Halt | None":
        """Return what the words of ``--halt`` say; None for ``never``.

        Raises
        ------
        ValueError
            The words are not understood.
        """
        if text == "never":
            return None
        match = _WORDS.fullmatch(text)
        if match is None or int(match[3]) < 1 or (match[4] and int(match[3]) > 100):
            raise ValueError(
                "must look like now,fail=1 or soon,fail=3, with fail, success or done and a number or "
                f"1% to 100%, not {text!r}"
            )
        return cls(match[1] == "now", match[2], int(match[3]), bool(match[4]))

    def reached(self, succeeded: int, failed: int, total: int | None) -> bool:
        """Whether the run ends now, after so many commands of `total`."""
        counted = {"fail": failed, "success": succeeded, "done": succeeded + failed}[self.kind]
        if not self.percent:
            return counted >= self.number
        return bool(total) and 100 * counted >= self.number * (total or 0)

    def __str__(self) -> str:
        return f"{'now' if self.now else 'soon'},{self.kind}={self.number}{'%' if self.percent else ''}"
