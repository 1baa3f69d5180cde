"""Shell commands on ranks: output, log, limits and ends, under each MPI and in one process."""

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mpi.conftest import Job, rank_of

Shell = Callable[..., tuple[int, str, str]]
StartShell = Callable[..., Job]


def logged(path: Path) -> list[tuple[int, int, int, str]]:
    """Number, exit code, signal and command of each line of a log."""
    head, *lines = path.read_text().splitlines()
    assert head.split("\t") == [
        *("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")
    ]
    rows = [line.split("\t") for line in lines]
    return [(int(row[0]), int(row[6]), int(row[7]), row[8]) for row in rows]


def alive(mark: str) -> list[int]:
    """Processes whose command line contains a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true()


@pytest.mark.parametrize("ranks", [1, 3])
def test_output_comes_whole_and_in_order(shell: Shell, ranks: int) -> None:
    command = "printf 'a{}\\nb{}'; sleep 0.0{}; echo; echo e{} >&2"
    code, out, err = shell("-k", "--tag", command, ":::", "3", "1", "2", ranks=ranks)
    assert (code, out) == (0, "".join(f"{n}\ta{n}\n{n}\tb{n}\n" for n in (3, 1, 2))), err
    assert [line for line in err.splitlines() if "\t" in line] == ["3\te3", "1\te1", "2\te2"]


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_file_of_commands_its_log_and_the_exit_code(shell: Shell, tmp_path: Path, ranks: int) -> None:
    (tmp_path / "tasks.txt").write_text("true\nexit 3\nkill -9 $$\n\necho 'a  b'\n")
    code, out, err = shell("--joblog", "log", "tasks.txt", ranks=ranks)
    assert (code, out) == (1, "a  b\n")
    assert "2 of 5 commands failed" in err
    assert sorted(logged(tmp_path / "log")) == [
        (1, 0, 0, "true"), (2, 3, 0, "exit 3"), (3, 0, 9, "kill -9 $$"), (4, 0, 0, ""),
        (5, 0, 0, "echo 'a  b'"),
    ]  # fmt: skip


def test_resuming(shell: Shell, tmp_path: Path) -> None:
    command = ["echo {} >>ran; [ {} != 2 ] || [ -e ok ]", ":::", "1", "2"]
    assert shell("--joblog", "log", *command)[0] == 1
    assert shell("--joblog", "log", "--resume", *command, "3")[0] == 0
    (tmp_path / "ok").touch()
    assert shell("--joblog", "log", "--resume-failed", *command, "3")[0] == 0
    assert sorted((tmp_path / "ran").read_text().split()) == ["1", "2", "2", "3"]
    code, _, err = shell("--joblog", "log", *command)
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = shell("--joblog", "log", "--resume", *command[:2], "1", "other")
    assert code == 2
    assert "log of another list" in err
    (tmp_path / "ok").unlink()
    assert shell("--joblog", "log2", *command)[0] == 1
    (tmp_path / "ok").touch()
    assert shell("--joblog", "log2", "--retry-failed")[0] == 0
    assert [row[:3] for row in logged(tmp_path / "log2")][-1] == (2, 0, 0)


def test_retries_and_halt(shell: Shell, tmp_path: Path) -> None:
    code, _, err = shell(
        "--retries", "3", "echo $TASKFARM_ATTEMPT >>tries; [ {#}$TASKFARM_ATTEMPT = 13 ]", ":::", "x"
    )
    assert (code, (tmp_path / "tries").read_text()) == (0, "1\n2\n3\n"), err
    code, _, err = shell("--halt", "now,fail=1", "sleep {}; exit 7", ":::", "0", "600", "600", "600")
    assert code == 7, err
    assert not alive("sleep\x00600")
    code, _, err = shell("--halt", "soon,fail=1", "echo {} >>started; exit 4", ":::", *map(str, range(50)))
    assert code == 1
    assert len((tmp_path / "started").read_text().split()) <= 2
    assert shell("--halt", "now,success=1", "sleep {}", ":::", "0", "600", "600")[0] == 0


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_timeout_ends_the_whole_group(shell: Shell, tmp_path: Path, ranks: int) -> None:
    mark = f"6{os.getpid()}1{ranks}"
    command = f"trap '' TERM; sleep {mark} & sleep {mark}; echo never"
    code, out, err = shell("--joblog", "log", "--timeout", "1", command, ":::", "a", ranks=ranks)
    assert (code, out) == (1, ""), err
    assert [row[:3] for row in logged(tmp_path / "log")] == [(1, -1, 15)]
    assert not alive(f"sleep\x00{mark}")


def test_commands_start_outside_of_mpi(shell: Shell, python: Path) -> None:
    code, out, err = shell(": {}; env; echo group $$ $(cut -d' ' -f5 /proc/$$/stat)", ":::", "a")
    assert code == 0, err
    names = [line.partition("=")[0] for line in out.splitlines() if "=" in line]
    ranks = ("PMI_", "PMIX_", "OMPI_COMM_", "HYDI_", "PRTE_LAUNCHED", "MPI_LOCAL")
    assert not [name for name in names if name.startswith(ranks)]
    _, pid, group = out.splitlines()[-1].split()
    assert pid == group


def test_a_command_may_be_mpiexec(shell: Shell, python: Path) -> None:
    mpiexec = python.parent / "mpiexec"
    program = "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
    code, out, err = shell(f'{mpiexec} -n {{}} {python} -c "{program}"', ":::", "2", "2")
    assert (code, out.replace("\n", "")) == (0, "2222"), err


@pytest.mark.parametrize("victim", [0, 1])
def test_nothing_outlives_a_killed_rank_and_what_the_log_has_does_not_run_again(
    start_shell: StartShell, shell: Shell, tmp_path: Path, victim: int
) -> None:
    mark = f"7{os.getpid()}1{victim}"
    text = f"echo {{}} >>ran; [ {{}} -lt 20 ] || [ -e go ] || {{ touch stuck; sleep {mark}; }}"
    command = ["--joblog", "log", text, ":::", *map(str, range(30))]
    job = start_shell(*command)
    job.wait_for(tmp_path / "stuck")
    rank = next(int(entry.name) for entry in job.pids.iterdir() if rank_of(int(entry.name)) == victim)
    os.kill(rank, signal.SIGKILL)
    job.process.wait(timeout=240)
    wait_until(lambda: not alive(f"sleep\x00{mark}"))
    before = {number for number, *_ in logged(tmp_path / "log")}
    assert before <= set(range(1, 21))
    (tmp_path / "ran").unlink()
    (tmp_path / "go").touch()
    code, _, err = shell("--resume", *command)
    assert code == 0, err
    again = {int(word) + 1 for word in (tmp_path / "ran").read_text().split()}
    assert again == set(range(1, 31)) - before
    assert sorted(number for number, *_ in logged(tmp_path / "log")) == list(range(1, 31))


@pytest.mark.parametrize("ranks", [1, 3])
def test_ctrl_c_ends_the_commands(start_shell: StartShell, tmp_path: Path, ranks: int) -> None:
    mark = f"8{os.getpid()}1{ranks}"
    job = start_shell("--joblog", "log", f"touch {{}}; sleep {mark}", ":::", "a", "b", ranks=ranks)
    job.wait_for(tmp_path / "a")
    job.process.send_signal(signal.SIGINT)
    _, _, err = job.end()
    wait_until(lambda: not alive(f"sleep\x00{mark}"))
    assert "--resume" in err


def test_the_walltime_ends_the_run_so_that_it_can_be_resumed(shell: Shell, tmp_path: Path) -> None:
    options = ["--joblog", "log", "--walltime", "6s", "--grace", "3"]
    code, _, err = shell(*options, "sleep {}", ":::", "0", "600")
    assert code == 75, err
    assert "go on with" in err
    assert [row[0] for row in logged(tmp_path / "log")] == [1]


def test_results_in_folders_and_tables(shell: Shell, tmp_path: Path) -> None:
    command = ["printf '{1}\\377\"\\n,'; echo e >&2; exit {2}", ":::", "a/b", ":::", "0", "1"]
    code, out, err = shell("--results", "out", *command)
    assert (code, out) == (1, ""), err
    assert (tmp_path / "out/1/a\\_b/2/1/stdout").read_bytes() == b'a/b\xff"\n,'
    assert (tmp_path / "out/1/a\\_b/2/0/stderr").read_text() == "e\n"
    assert (tmp_path / "out/1/a\\_b/2/1/seq").read_text() == "2"
    assert shell("--results", "table.csv", *command)[0] == 1
    with open(tmp_path / "table.csv", newline="", errors="surrogateescape") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["Seq"])
    assert [(row["V1"], row["Exitval"]) for row in rows] == [("a/b", "0"), ("a/b", "1")]
    assert os.fsencode(rows[0]["Stdout"]) == b'a/b\xff"\n,'
    assert shell("--results", "table.jsonl", *command)[0] == 1
    found = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    assert os.fsencode(found[0]["Stdout"]) == b'a/b\xff"\n,'


def test_large_output_goes_through_a_file(shell: Shell) -> None:
    code, out, err = shell("-k", "yes {} | head -c 3000000", ":::", "a", "b")
    assert (code, out) == (0, "a\n" * 1_500_000 + "b\n" * 1_500_000), err


def test_a_memory_limit_counts_all_processes_of_a_command(
    shell: Shell, python: Path, tmp_path: Path
) -> None:
    program = f"{python} -c 'import time; x = bytearray(80_000_000); time.sleep(600)'"
    code, _, err = shell("--memory", "120MB", "--joblog", "log", f"{program} & {program}; wait", ":::", "a")
    assert code == 1
    assert "memory limit" in err


def test_a_log_of_gnu_parallel_is_resumed(shell: Shell, tmp_path: Path) -> None:
    import shutil
    import subprocess

    if shutil.which("parallel") is None:
        pytest.skip("no GNU parallel: run scripts/setup-system")
    words = ["--joblog", "log", "echo {} >>ran; [ {} != 'b c' ]", ":::", "a", "b c"]
    environ = dict(os.environ, HOME=str(tmp_path), PARALLEL_SHELL="/bin/bash")
    subprocess.run(["parallel", "--will-cite", *words], cwd=tmp_path, env=environ, timeout=240)
    assert shell("--resume-failed", *words, "d")[0] == 1
    assert sorted((tmp_path / "ran").read_text().splitlines()) == ["a", "b c", "b c", "d"]
