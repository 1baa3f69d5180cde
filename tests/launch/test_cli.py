"""Wrong use of the command line is reported in one line; ranks are taken out of a command."""

from typing import Any

import pytest

from taskfarm.launch import cli, options


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
    try:
        code: Any = cli.main(words)
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1
