"""Quoting, and the replacement strings of calls from Python."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.errors import UsageError
from taskfarm.shell.template import Template, quote

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_a_shell_reads_what_was_quoted(texts: list[str]) -> None:
    command = "printf '%s\\0' " + " ".join(map(quote, texts))
    found = subprocess.run(["bash", "-c", command], capture_output=True, timeout=240, check=True).stdout
    assert found.decode().split("\0")[:-1] == texts


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_arguments_are_replaced_once(texts: list[str]) -> None:
    marks = " ".join(f"{{{position}}}" for position in range(1, len(texts) + 1))
    assert Template(f"f {marks}").render(texts, 1) == f"f {' '.join(map(quote, texts))}"


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("sim -p {} -q {}", ["1", "a b"], "sim -p 1 -q 'a b'"),
        ("cp {} {.}.bak", ["a.txt"], "cp a.txt a.bak"),
        ("f {2} {1}", ["1", "2"], "f 2 1"),
        ("f", ["1", "2"], "f 1 2"),
        ("f {}", ["1", "2"], "f 1 2"),
        ("f {/} {//}", ["a/b", "c/d"], "f b c"),
    ],
)
def test_marks_take_arguments_in_turn(command: str, arguments: list[str], expected: str) -> None:
    assert Template(command).render_in_turn(arguments) == expected


def test_wrong_numbers_and_perl_are_refused() -> None:
    with pytest.raises(UsageError, match="takes 2 arguments, and the call has 3"):
        Template("f {} {}").render_in_turn(["1", "2", "3"])
    with pytest.raises(UsageError, match="Perl"):
        Template("echo {= s/a/b/ =}")
