"""Commands that are refused: one clear line, exit code 2, and no work."""

from collections.abc import Sequence
from typing import Any

import pytest

from taskfarm.launch import cli


def check_refused(words: Sequence[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command in this process, and check that it complains in one line."""
    try:
        code: Any = cli.main(list(words))
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1
