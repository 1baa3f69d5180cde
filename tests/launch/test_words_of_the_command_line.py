"""The words of a command line reach the job as they are, whatever argparse and mpiexec do with them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.launch import cli, handed_words

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
BYTES = st.binary(max_size=9).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))

WORDS = st.lists(st.one_of(TEXT, BYTES))
"""What a command line can hold: bytes without NUL; those that are no text become escapes."""


@pytest.mark.parametrize("kind", [["-c", "code"], ["-m", "module"], ["job.py"]])
@pytest.mark.parametrize("words", [["--"], ["--", "a"], ["a", "--", "-n", "3", "--"], [":", "-x"]])
def test_a_job_gets_its_arguments(kind: list[str], words: list[str]) -> None:
    given = cli._parser(["run"]).parse_args(["run", "--quiet", *kind, *words])
    assert cli._script(given, pytest.fail).args == words


@given(WORDS, st.sampled_from([0, 1, 4097]))
def test_words_that_are_handed_on_come_back(words: list[str], times: int) -> None:
    environ = {"OTHER": "1"}
    words = [*words, "é€\U0001f600\udcff" * times]
    names = handed_words.hand_on(words, environ)
    assert {*names} | {"OTHER"} == {*environ}
    assert all(len(value.encode(errors="surrogateescape")) <= 1 << 16 for value in environ.values())
    assert handed_words.take(environ) == words
    assert environ == {"OTHER": "1"}


def test_which_words_are_handed_on() -> None:
    assert handed_words.passes(["run", "-n", "3", "a:b", "::", ""])
    assert not handed_words.passes(["shell", "--header", ":", "echo"])
    assert not handed_words.passes(["é" * 30_000, "x" * 10_000])
