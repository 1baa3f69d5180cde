"""Command lines that start without a shell run as bash runs them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.shell.direct import ask_bash, split
from taskfarm.shell.start import Process, Starter, unnamed_file

BASH = "/bin/bash"

WORDS = st.text("ab0=-~'\"$`\\!#{}[]*?;&|<>()%é,:@^./+ \t\n\r", max_size=8)
QUOTED = st.one_of(WORDS, WORDS.map("'{}'".format), WORDS.map('"{}"'.format))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(QUOTED, max_size=4).map(" ".join), min_size=1, max_size=12))
def test_words_are_those_of_bash(lines: list[str]) -> None:
    accepted = [line for line in lines if split(f"x {line}") is not None]
    script = "\n".join(f"printf '%s\\0' x {line}; printf '\\1'" for line in accepted)
    told = subprocess.run([BASH, "-c", script], capture_output=True, timeout=60, check=True)
    assert told.stderr == b""
    found = [part.split("\0")[:-1] for part in told.stdout.decode().split("\1")[:-1]]
    assert found == [split(f"x {line}") for line in accepted]


@pytest.mark.parametrize(
    "line",
    ["", " ", "a=b", "a=b c", "x $y", "x ~", "x a{b,c}", "x *", "x #", "x; y", "x >y", "x 'a", 'x "$y"',
     "x\ny", "'x' y", "x \\y", "x &", "x 2>&1", "x `y`", "x [a]", "x é", "x\ty\r"],
)  # fmt: skip
def test_what_only_a_shell_understands_goes_to_one(line: str) -> None:
    assert split(line) is None


def output(starter: Starter, text: str) -> tuple[int | None, bytes]:
    """Exit code and output of a command."""
    out = unnamed_file()
    try:
        process = starter.start(text, out, out, {"OWN": "1"})
        assert process.wait(60)
        return process.returncode, os.pread(out, 1 << 20, 0)
    finally:
        os.close(out)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path: scripts with and without a first line, and other things."""
    for name, mode, text in (
        ("noline", 0o755, "echo script $1"),
        ("closed", 0o644, "#!/bin/sh\n"),
        ("mine", 0o755, "#!/bin/sh\necho program\n"),
        ("killed", 0o755, "#!/bin/sh\nkill -9 $$\n"),
        ("echo", 0o755, "#!/bin/sh\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("PARALLEL_SHELL", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "variables",
    [{}, {"SHLVL": "3", "OLDPWD": "/x"}, {"PWD": "/none", "_": "a"},
     {"a-b": "1", "IFS": "a", "LINENO": "7"}, {"BASH_FUNC_mine%%": "() { echo function; }"}],
)  # fmt: skip
def test_programs_run_as_bash_runs_them(
    programs: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("SHLVL", "OLDPWD", "_"):
        if name not in variables:
            monkeypatch.delenv(name, raising=False)
    lines = ["env", "env -0 'A=b c'", f"{programs}/noline 1", "noline 'a  b'", "closed",
             f"{programs}/closed", "mine", "killed", "missing x", "env/x", f"{programs}", "true 1", "false",
             "true --help", "echo a", "sh -c 'exit 137'", "readlink /proc/self/fd/0"]  # fmt: skip
    as_shell, directly = Starter(), Starter()
    output(directly, "true")
    for line in lines:
        wanted = output(as_shell, line)
        as_shell._started = 0  # it never asks bash
        code, printed = output(directly, line)
        if line.startswith("env"):
            assert sorted(re.split(b"[\0\n]", printed)) == sorted(re.split(b"[\0\n]", wanted[1]))
            assert code == wanted[0]
        else:
            assert (code, printed) == wanted, line
    assert directly._direct is not None


def test_variables_that_change_bash_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PATH": os.environ["PATH"]}
    assert ask_bash(BASH, environ) is not None
    for name in ("BASH_ENV", "SHELLOPTS"):
        assert ask_bash(BASH, {**environ, name: "x"}) is None
    assert ask_bash(BASH, {"PATH": f".:{environ['PATH']}"}) is None
    assert ask_bash(BASH, {}) is None
    assert ask_bash("/bin/sh", environ) is None


def test_a_process_tells_how_it_ended() -> None:
    process = Process(os.posix_spawn("/bin/sh", ["sh", "-c", "kill -15 $$"], {}))
    assert process.wait(60)
    assert process.returncode == -15
    process = Process(os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setpgroup=0))
    assert not process.wait(0.01)
    os.kill(process.pid, 9)
    assert process.wait(60)
