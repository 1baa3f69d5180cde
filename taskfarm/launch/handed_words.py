"""Hands words of a command line to the ranks in variables, where mpiexec would not pass them on.

A word ``:`` ends the words of a rank's program, for every mpiexec. Open MPI's joins all words in one
variable, which Linux limits to 128 KiB.
"""

import json
import os
from collections.abc import MutableMapping, Sequence

from taskfarm.environment import HANDED_WORDS

LONGEST = 1 << 16
"""Bytes of words that go as they are, and bytes of one variable, at most."""

_BYTES = 4
"""Bytes of a character, at most."""


def passes(words: Sequence[str]) -> bool:
    """Whether every mpiexec passes these words on."""
    return ":" not in words and sum(len(os.fsencode(word)) + 1 for word in words) <= LONGEST


def hand_on(words: Sequence[str], environ: MutableMapping[str, str]) -> list[str]:
    """Put words into variables; returns the names of these."""
    text = json.dumps(list(words), ensure_ascii=False)
    length = LONGEST // _BYTES
    pieces = [text[start : start + length] for start in range(0, len(text), length)]
    handed = {f"{HANDED_WORDS}_{index}": piece for index, piece in enumerate(pieces)}
    handed[HANDED_WORDS] = str(len(pieces))
    environ.update(handed)
    return list(handed)


def take(environ: MutableMapping[str, str]) -> list[str]:
    """Return the words, and remove the variables: what ranks start need not have them."""
    count = int(environ.pop(HANDED_WORDS))
    words: list[str] = json.loads("".join(environ.pop(f"{HANDED_WORDS}_{index}") for index in range(count)))
    return words
