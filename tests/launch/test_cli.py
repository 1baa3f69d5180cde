"""Wrong use of the command line is reported in one line; ranks are taken out of a command."""

import argparse

import pytest

from taskfarm.launch import cli, options
from tests.wrong_use import check_refused

COMMANDS = next(
    action.choices for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["run", "-n", "4", "job.py", "-n", "9"], ["run", "job.py", "-n", "9"]),
        (["run", "-np", "4", "-c", "x"], ["run", "-c", "x"]),
        (["run", "-n4", "job.py"], ["run", "job.py"]),
        (["run", "job.py"], ["run", "job.py"]),
    ],
)
def test_ranks_are_taken_out(before: list[str], after: list[str]) -> None:
    assert options.without_ranks(before) == after


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run"], "nothing to run"),
        (["run", "--progres", "on", "job.py"], "unrecognized arguments"),
        (["run", "-n", "-3", "job.py"], "the number of ranks must be 1 or more"),
        (["run", "-c"], "-c needs an argument"),
        (["run", "no such file.py"], "there is no file 'no such file.py'"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    check_refused(words, complaint, capsys)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_defaults_examples_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    if command:
        assert "exit codes:" in text
        for action in COMMANDS[command]._actions:
            shown = action.option_strings and action.help != argparse.SUPPRESS
            if shown and action.nargs not in (0, "..."):
                assert "default" in str(action.help), action.option_strings
    assert max(map(len, text.splitlines())) <= 100
