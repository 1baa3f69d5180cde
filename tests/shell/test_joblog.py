"""The log of commands: whole lines, whatever cut the last one off."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.errors import LaunchError
from taskfarm.shell.execute import Ended
from taskfarm.shell.joblog import HEADER, Joblog, Logged, entries, failed_commands

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)


def ended(code: int = 0, signal: int = 0) -> Ended:
    return Ended(code, signal, 1.5, 0.25, "host", 1, b"abc", b"")


@given(commands=st.lists(st.tuples(TEXTS, st.sampled_from([0, 3])), max_size=6), cut=st.integers(0, 60))
def test_what_was_written_is_read_and_a_torn_line_is_not(
    tmp_path_factory: pytest.TempPathFactory, commands: list[tuple[str, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = Joblog(str(path))
    for number, (text, code) in enumerate(commands, 1):
        log.add(number, ended(code), text)
    log.close()
    data = path.read_bytes()
    path.write_bytes(data[: max(len(HEADER), len(data) - cut)])
    whole = path.read_bytes().count(b"\n") - 1
    found = [(entry.command, entry.ok) for entry in entries(str(path))]
    assert found == [(text, code == 0) for text, code in commands[:whole]]
    again = Joblog(str(path))
    again.add(99, ended(), "last")
    again.close()
    assert [entry.number for entry in entries(str(path))] == [*range(1, whole + 1), 99]


def test_what_a_log_skips(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    log = Joblog(path)
    for number, found in ((1, ended()), (3, ended(2)), (4, ended(0, 9)), (4, ended())):
        log.add(number, found, f"c{number}")
    log.close()
    logged = Logged(path)
    assert [number for number in range(1, 6) if logged.skips(number, failed_again=False)] == [1, 3, 4]
    assert [number for number in range(1, 6) if logged.skips(number, failed_again=True)] == [1, 4]
    assert failed_commands(path) == {3: "c3"}
    logged.check(3, "c3")
    logged.check(2, "anything")
    with pytest.raises(LaunchError, match="log of another list"):
        logged.check(3, "c4")


@pytest.mark.parametrize("text", ["hello\n", HEADER + "1\tx\n", HEADER + "0\th\t0\t0\t0\t0\t0\t0\tc\n"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(LaunchError):
        list(entries(str(tmp_path / "log")))
