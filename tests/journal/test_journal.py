"""The journal: what it keeps, what it refuses, what a killed job leaves, and what its report says."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskfarm.errors import JournalError
from taskfarm.journal import store
from taskfarm.journal.code_digest import function_digest
from taskfarm.journal.journal import Journal
from taskfarm.journal.report import report
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.failures import capture_exception
from taskfarm.protocol.functions import FunctionTable, RegisteredFunction
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.serialize import dump_plain, dumps
from taskfarm.schedule.policy import Policy

SQUARE = "lambda x, *rest, **options: x * x"


def registered(source: str = SQUARE, name: str = "square", **options: Any) -> RegisteredFunction:
    table = FunctionTable()
    table.code_digest = lambda function, farm: function_digest(function).code
    table.defaults = Policy().changed(options)
    found = table.register(eval(source))
    return RegisteredFunction(found.id, name, found.blob, (b"", found.policy, found.code))


def ended(first: int, values: list[Any], plain: bool = True, failed: tuple[int, ...] = ()) -> Outcomes:
    failures = {}
    for offset in failed:
        try:
            raise ValueError("no such value")
        except ValueError as error:
            failures[offset] = capture_exception(error, f"task {first + offset} square on rank 3, host")
    packed = dump_plain(values) if plain else list(map(dumps, values))
    return Outcomes(first, first, len(values), packed, failures, 0.5 * len(values))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run.db")


@contextlib.contextmanager
def opened(path: str, resume: bool = True) -> Iterator[Journal]:
    journal = Journal(path, resume)
    try:
        yield journal
    finally:
        journal.close()


def numbers(count: int, start: int = 0) -> Arguments:
    return Arguments.from_columns([range(start, start + count)])


def fill(path: str, count: int = 10, plain: bool = True) -> None:
    with opened(path, False) as journal:
        function = registered()
        keys, values = journal.lookup(function, numbers(count))
        assert values == {}
        journal.record(1, function, keys, ended(0, [i * i for i in range(count)], plain))
        journal.commit(0.0)


def restored(path: str, count: int = 10) -> dict[int, Any]:
    with opened(path) as journal:
        return journal.lookup(registered(), numbers(count)).values


@pytest.mark.parametrize("plain", [True, False])
def test_resume_finds_what_was_kept(path: str, plain: bool) -> None:
    fill(path, 10, plain)
    assert os.listdir(os.path.dirname(path)) == ["run.db"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert restored(path, 12) == {i: i * i for i in range(10)}
    with opened(path) as journal:
        function = registered()
        keys, _ = journal.lookup(function, numbers(12))
        journal.record(2, function, keys[10:], ended(10, [100, 121]))
        journal.commit(0.0)
        assert (journal.restored, journal.recorded) == (10, 2)
    assert restored(path, 12) == {i: i * i for i in range(12)}


def test_arrays_beside(path: str) -> None:
    big = [np.full(200_000, float(i)) for i in range(3)] + [{"a": np.arange(5)}]
    with opened(path, True) as journal:
        function = registered()
        keys, _ = journal.lookup(function, numbers(4))
        journal.record(1, function, keys, ended(0, big, plain=False))
        journal.commit(0.0)
    folder = Path(f"{path}.d")
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.path.getsize(path) < 1e5
    (folder / "left.tmp").write_bytes(b"of a job that was killed")
    with opened(path) as journal:
        values = journal.lookup(registered(), numbers(4)).values
    assert not (folder / "left.tmp").exists()
    for i in range(3):
        np.testing.assert_array_equal(values[i], big[i])
        values[i][0] = -1
    assert list(values[3]["a"]) == [0, 1, 2, 3, 4]
    assert pickle.loads(file.read_bytes())


def test_damaged_file_beside_runs_again(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(path) as journal:
        function = registered()
        keys, _ = journal.lookup(function, numbers(3))
        journal.record(1, function, keys, ended(0, [np.ones(100_000)] * 3, plain=False))
        journal.commit(0.0)
    (file,) = Path(f"{path}.d").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert set(restored(path, 3)) == {0, 2}
    assert (
        "cannot be loaded, so its task runs again: OSError: its file is damaged" in capsys.readouterr().err
    )
    file.write_bytes(data[:-5])
    assert set(restored(path, 3)) == {0}
    file.unlink()
    assert restored(path, 3) == {}
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(JournalError, match="task 0 of square cannot be loaded"):
        report(path, f"{path}.jsonl")
    assert not os.path.exists(f"{path}.jsonl")


def test_failures_and_retries_do_not_count(path: str) -> None:
    with opened(path) as journal:
        function = registered()
        keys, _ = journal.lookup(function, numbers(5))
        holes = [keys[0], b"", keys[2], keys[3], b""]
        journal.record(1, function, holes, ended(0, [0, 1, 4, None, None], failed=(3, 4)))
        journal.record(1, function, [b""] * 2, ended(0, [1, 2]))
        journal.record_failed(function, [keys[4]], 4, ValueError("late"))
        journal.commit(0.0)
        assert journal.recorded == 2
    assert restored(path, 5) == {0: 0, 2: 4}
    with opened(path) as journal:
        keys, _ = journal.lookup(registered(), numbers(5))
        journal.record(1, registered(), [keys[3]], ended(3, [9]))
        journal.commit(0.0)
    assert restored(path, 5) == {0: 0, 2: 4, 3: 9}


def test_equal_calls_are_told_apart(path: str) -> None:
    function = registered()
    same = Arguments.from_columns([[7, 7, 8, 7]])
    with opened(path) as journal:
        keys, _ = journal.lookup(function, same)
        (again,), _ = journal.lookup(function, Arguments.from_call((7,), {}))
        assert len({*keys, again}) == 5
        journal.record(1, function, keys, ended(0, [10, 11, 12, 13]))
        journal.commit(0.0)
    with opened(path) as journal:
        assert [
            journal.lookup(function, Arguments.from_call((v,), {})).values for v in (7, 7, 7, 7, 8)
        ] == [
            {0: 10},
            {0: 11},
            {0: 13},
            {},
            {0: 12},
        ]


def test_what_names_a_call(path: str) -> None:
    calls = [
        Arguments.from_call((value,), {})
        for value in (1, 1.0, True, "1", b"1", None, np.int64(1), np.float64(1), np.float32(1), [1], "")
    ]
    calls += [
        Arguments.from_call((), {"x": 1}),
        Arguments.from_call((1,), {"y": 1}),
        Arguments.from_call((1, 1), {}),
    ]
    calls += [Arguments.from_call((np.ones(n),), {}) for n in (3, 10_000, 10_001)]
    functions = [registered(), registered(name="other"), registered("lambda x: x")]
    with opened(path) as journal:
        keys = {journal.lookup(function, call).keys[0] for function in functions for call in calls}
        assert len(keys) == len(functions) * len(calls)
        assert {len(key) for key in keys} == {16}


def test_plain_calls_beside_others_have_the_same_name(path: str, tmp_path: Path) -> None:
    with opened(path) as journal, opened(str(tmp_path / "b.db")) as other:
        alone = journal.lookup(registered(), Arguments.from_columns([[1, np.int32(2), "x"], [1, 1, "x"]]))
        mixed = other.lookup(
            registered(), Arguments.from_columns([[1, np.int32(2), "x", []], [1, 1, "x", 2]])
        )
        assert mixed.keys[:3] == alone.keys


def test_calls_that_cannot_be_sent_have_a_name(path: str) -> None:
    lock = threading.Lock()
    with opened(path) as journal:
        calls = Arguments.from_columns([[[1], lock, lock]])
        assert set(calls.errors) == {1, 2}
        for function in (registered(), registered(key=str)):
            keys, values = journal.lookup(function, calls)
            assert len(set(keys)) == 3
            assert values == {}


def test_key_replaces_code_and_arguments(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    def keyed(source: str = SQUARE) -> RegisteredFunction:
        return registered(source, key=lambda x, noise: (x, "id", np.int64(2)))

    with opened(path) as journal:
        keys, _ = journal.lookup(keyed(), Arguments.from_columns([[1, 2], [0.1, 0.2]]))
        journal.record(1, keyed(), keys, ended(0, [1, 4]))
        journal.commit(0.0)
    with opened(path) as journal:
        mixed = Arguments.from_columns([[1, 2], [object(), 0.3]])
        assert journal.lookup(keyed("lambda x, noise: 0"), mixed).values == {0: 1, 1: 4}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("key", "line"),
    [(lambda x: [x], "the key= of square returned list"), (lambda x: 1 / x, "raised ZeroDivisionError")],
)
def test_key_that_does_not_work(path: str, key: Callable[..., Any], line: str) -> None:
    with opened(path) as journal, pytest.raises(JournalError, match=line):
        journal.lookup(registered(key=key), numbers(1))


def test_changed_code_is_reported_once(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(path)
    with opened(path) as journal:
        for _ in range(2):
            assert journal.lookup(registered("lambda x: x + 1"), numbers(10)).values == {}
    assert capsys.readouterr().err == (
        "taskfarm: the code of 'square' has changed since the journal was written: its 10 finished "
        "tasks run again\n"
    )
    assert len(restored(path)) == 10
    assert capsys.readouterr().err == ""


def test_result_whose_class_is_gone(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = [dumps(1), dumps(2)._replace(data=b"cgone_module\nGone\n.")]
    with opened(path) as journal:
        keys, _ = journal.lookup(registered(), numbers(2))
        journal.record(1, registered(), keys, ended(0, [1, 2])._replace(values=blobs))
        journal.commit(0.0)
    assert restored(path, 2) == {0: 1}
    assert capsys.readouterr().err.count("ModuleNotFoundError") == 1


# What is refused.


def refused(path: str, resume: bool = True) -> str:
    with pytest.raises(JournalError) as caught:
        Journal(path, resume)
    assert "\n" not in str(caught.value)
    with pytest.raises(JournalError):
        report(path)
    return str(caught.value)


def test_existing_without_resume(path: str) -> None:
    fill(path)
    before = Path(path).read_bytes()
    with pytest.raises(JournalError, match="already exists: add --resume to continue it"):
        Journal(path, False)
    assert Path(path).read_bytes() == before


def other_sqlite(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE t (a)")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: Path(path).write_text("my notes\n" * 50),
        lambda path: Path(path).write_bytes(b""),
        lambda path: Path(path).write_bytes(b"SQLite format 3\0"),
        other_sqlite,
    ],
)
def test_foreign_files_stay_as_they_are(path: str, make: Callable[[str], Any]) -> None:
    make(path)
    os.chmod(path, 0o600)
    before = Path(path).read_bytes()
    assert "is not a taskfarm journal: name another file" in refused(path)
    assert Path(path).read_bytes() == before
    assert os.listdir(os.path.dirname(path)) == ["run.db"]


def test_odd_places(path: str, tmp_path: Path) -> None:
    os.mkdir(path)
    assert "is not a file" in refused(path)
    os.mkfifo(tmp_path / "fifo")
    assert "is not a file" in refused(str(tmp_path / "fifo"))
    os.symlink(tmp_path / "nothing", tmp_path / "link")
    assert "No such file" in refused(str(tmp_path / "link"))
    assert not (tmp_path / "nothing").exists()
    assert "No such file" in refused(str(tmp_path / "missing" / "run.db"))


def test_format_of_another_version(path: str) -> None:
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version=99")
    assert "another version of taskfarm (its format is 99" in refused(path)


def test_who_may_write(path: str) -> None:
    fill(path)
    for mode in (0o620, 0o602):
        os.chmod(path, mode)
        assert "other users may write to the journal" in refused(path)
    os.chmod(path, 0o600)
    os.mkdir(f"{path}.d")
    os.chmod(f"{path}.d", 0o770)
    assert "other users may write to the folder of results" in refused(path)
    os.rmdir(f"{path}.d")
    assert len(restored(path)) == 10


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user(path: str) -> None:
    fill(path)
    for name in (f"{path}.d", f"{path}-wal", path):
        if name.endswith(".d"):
            os.mkdir(name)
        else:
            Path(name).touch()
        os.chown(name, 12345, -1)
        assert "belongs to another user, and loading it may run their code" in refused(path)
        os.chown(name, 0, -1)


def test_one_job_at_a_time(path: str) -> None:
    fill(path)
    code = "import sys; from taskfarm.journal.journal import Journal; Journal(sys.argv[1], True)"
    with opened(path):
        assert "in use by a running job" in refused(path)
        other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert "JournalError" in other.stderr
        assert "in use by a running job" in other.stderr
        other = subprocess.run(
            [sys.executable, "-c", f"{code.partition(';')[0]}; from taskfarm.journal.report import report; "
             "report(sys.argv[1])", path],
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert "in use by a running job" in other.stderr
    assert len(restored(path)) == 10


# What damage does.


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a journal whose second run was killed, by suffix."""
    path = str(tmp_path_factory.mktemp("left") / "run.db")
    fill(path, 60)
    journal = Journal(path, True)
    keys, _ = journal.lookup(registered(), numbers(90))
    journal.record(1, registered(), keys[60:80], ended(60, [i * i for i in range(60, 80)], plain=False))
    journal.commit(0.0)
    journal.record(1, registered(), keys[80:], ended(80, [i * i for i in range(80, 90)], failed=(9,)))
    journal.commit(0.5)
    files = {suffix: Path(path + suffix).read_bytes() for suffix in ("", "-wal")}
    journal.close()
    assert len(files["-wal"]) > 1000
    return files


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_harmless(left: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "damage"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    suffix = data.draw(st.sampled_from(["", "-wal"]))
    whole = left[suffix]
    offset = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(whole) - 1)))
    if data.draw(st.booleans()):
        damaged = whole[:offset]
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        damaged = whole[:offset] + bytes([whole[offset] ^ bit]) + whole[offset + 1 :]
    path = folder / "run.db"
    for name, content in {**left, suffix: damaged}.items():
        (folder / f"run.db{name}").write_bytes(content)
        os.chmod(folder / f"run.db{name}", 0o600)
    try:
        values = restored(str(path), 90)
    except JournalError as error:
        assert "\n" not in str(error)  # noqa: PT017  # or there is no error
        assert path.read_bytes() == (damaged if suffix == "" else left[""])
        with pytest.raises(JournalError):
            report(str(path))
    else:
        assert values.items() <= {i: i * i for i in range(89)}.items()
        assert report(str(path)) == 0
        if suffix == "-wal":
            assert values.keys() >= set(range(60))


def test_killed_job_leaves_what_it_committed(path: str) -> None:
    child = """
        import os, signal, sys
        sys.path.insert(0, os.getcwd())
        from tests.journal.test_journal import *
        journal = Journal(sys.argv[1], True)
        for start in range(0, 1000, 10):
            keys, _ = journal.lookup(registered(), numbers(10, start))
            journal.record(1, registered(), keys, ended(start, [i * i for i in range(start, start + 10)]))
            if start < 900:
                journal.commit(start / 100)
        {}
    """
    found = 0
    for end in ("os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(child).format(end), path])
        assert done.returncode in (0, -signal.SIGKILL)
        files = {name: Path(path + name).read_bytes() for name in ("", "-wal")}
        assert report(path) == 0
        assert files == {name: Path(path + name).read_bytes() for name in ("", "-wal")}
        values = restored(path, 1000)
        assert values == {i: i * i for i in range(900)}
        found += 1
    assert found == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("plain", [True, False])
def test_full_disk(tmp_path: Path, plain: bool) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk")
    path = str(disk / "run.db")
    try:
        journal, committed = Journal(path, False), 0
        with pytest.raises(JournalError, match=r"full|No space") as caught:  # noqa: PT012
            for start in range(0, 100_000, 1000):
                keys, _ = journal.lookup(registered(), numbers(1000, start))
                size = 300 if plain or start < 1000 else 2000
                values = [f"{i:{size}}" for i in range(start, start + 1000)]
                journal.record(1, registered(), keys, ended(start, values, plain))
                journal.commit(0.0)
                committed = start + 1000
        assert "free space on that disk, then continue with --resume" in str(caught.value)
        assert "\n" not in str(caught.value)
        with contextlib.suppress(JournalError):
            journal.close()
        assert not [name for name in os.listdir(disk) if name.endswith(".tmp")]
        for file in disk.glob("run.db*"):
            if file.is_file():
                shutil.copy(file, tmp_path / file.name)
        shutil.copytree(f"{path}.d", tmp_path / "run.db.d") if os.path.exists(f"{path}.d") else None
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert committed
    values = restored(str(tmp_path / "run.db"), 100_000)
    assert set(values) == set(range(committed))
    assert all(int(value) == i for i, value in values.items())


def test_nothing_is_written_after_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    journal = Journal(path, True)
    keys, _ = journal.lookup(registered(), numbers(30))
    journal.record(1, registered(), keys[10:20], ended(10, [0] * 10))
    journal._writer.connection.execute("PRAGMA query_only=ON")
    with pytest.raises(JournalError, match="cannot write the journal"):
        journal.commit(0.0)
    journal._writer.connection.execute("PRAGMA query_only=OFF")
    journal.record(1, registered(), keys[20:], ended(20, [0] * 10))
    with pytest.raises(JournalError, match="cannot write the journal"):
        journal.commit(1.0)
    journal.close()
    assert set(restored(path, 30)) == set(range(10))


def test_when_it_is_forced_to_the_disk(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as journal:
        statements: list[str] = []
        journal._writer.connection.set_trace_callback(statements.append)
        levels = []
        for now, new in ((0.0, 1), (0.0, 0), (0.5, 1), (0.9, 0), (1.1, 0), (5.0, 0), (6.0, 1), (6.5, 1)):
            if new:
                keys, _ = journal.lookup(registered(), numbers(1))
                journal.record(1, registered(), keys, ended(0, [1]))
            statements.clear()
            journal.commit(now)
            levels.append("".join(s.partition("=")[2] for s in statements if "synchronous" in s))
        assert levels == ["FULL", "", "NORMAL", "", "FULL", "", "FULL", "NORMAL"]


# The report and exports.


@pytest.fixture
def runs(path: str) -> str:
    with opened(path) as journal:
        square, norm = registered(), registered("lambda v: 0", "norm")
        keys, _ = journal.lookup(square, numbers(6))
        journal.record(1, square, keys[:3], ended(0, [np.float64(0.0), 1, 4.0]))
        journal.record(2, square, keys[3:], ended(3, [9, None, None], failed=(1, 2)))
        keys, _ = journal.lookup(norm, numbers(2))
        journal.record(
            3, norm, keys, ended(6, [np.arange(2), np.ones(2)], plain=False)._replace(seconds=8.0)
        )
        journal.commit(0.0)
    with opened(path) as journal:
        keys, _ = journal.lookup(registered(), numbers(6))
        journal.record(1, registered(), keys[4:5], ended(4, [16]))
        journal.commit(0.0)
    return path


def test_report(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(runs).read_bytes()
    assert report(runs) == 0
    text = capsys.readouterr().out
    assert "runs 2, tasks done 7, tasks failed 1" in text
    assert "  norm: 2 tasks, 4 s each" in text
    assert "  square: 6 tasks, 0.5 s each" in text
    assert "failed 1 times: ValueError: no such value" in text
    assert 'raise ValueError("no such value")' in text
    assert "  4 s  norm  task 6  rank 3\n  4 s  norm  task 7  rank 3\n  0.5 s  square" in text
    assert Path(runs).read_bytes() == before
    assert os.listdir(os.path.dirname(runs)) == ["run.db"]


def test_equal_failures_are_one(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(path) as journal:
        keys, _ = journal.lookup(registered(), numbers(40))
        journal.record(1, registered(), keys[:20], ended(0, [None] * 20, failed=tuple(range(20))))
        for i in range(20, 40):
            journal.record_failed(registered(), keys[i : i + 1], i, KeyError(i))
        journal.commit(0.0)
    report(path)
    text = capsys.readouterr().out
    assert "failed 20 times: ValueError" in text
    assert text.count("failed 1 times: KeyError") == 9
    assert "and 11 other failures" in text


def test_export_jsonl(runs: str, tmp_path: Path) -> None:
    with opened(runs) as journal:
        odd = registered("lambda x: 0", "odd")
        keys, _ = journal.lookup(odd, numbers(4))
        values = [{"a": (1, np.int8(2))}, {1}, float("nan"), 1j]
        journal.record(1, odd, keys, ended(8, values, plain=False))
        journal.commit(0.0)
    target = str(tmp_path / "out.jsonl")
    report(runs, target)
    lines = [json.loads(line) for line in Path(target).read_text().splitlines()]
    assert [line["task"] for line in lines] == list(range(12))
    assert lines[4] == {"task": 4, "function": "square", "seconds": 0.5, "rank": 1, "result": 16}
    assert lines[5]["error"] == "ValueError: no such value"
    assert "Traceback" in lines[5]["traceback"]
    assert "result" not in lines[5]
    assert [line["result"] for line in lines[6:10]] == [[0, 1], [1.0, 1.0], {"a": [1, 2]}, {"repr": "{1}"}]
    assert [line["result"] for line in lines[10:]] == [{"repr": "nan"}, {"repr": "1j"}]
    with pytest.raises(JournalError, match="already exists: name another file"):
        report(runs, target)
    with pytest.raises(JournalError, match=r"ends in \.csv, \.parquet, \.jsonl, \.npz"):
        report(runs, str(tmp_path / "out.txt"))
    with pytest.raises(JournalError, match="No such file or directory"):
        report(runs, str(tmp_path / "none" / "out.jsonl"))


def test_export_npz(runs: str, tmp_path: Path) -> None:
    target = str(tmp_path / "out.npz")
    report(runs, target)
    with np.load(target) as arrays:
        assert set(arrays) == {"square", "square.tasks", "norm", "norm.tasks"}
        assert arrays["square"].tolist() == [0, 1, 4, 9, 16]
        assert arrays["square.tasks"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["norm"].tolist() == [[0, 1], [1, 1]]
    with opened(runs) as journal:
        odd = registered("lambda x: 0", "file")
        keys, _ = journal.lookup(odd, numbers(2))
        journal.record(1, odd, keys, ended(8, [np.ones(2), np.ones(3)], plain=False))
        journal.commit(0.0)
    with pytest.raises(JournalError, match="the results of file do not stack into an array"):
        report(runs, str(tmp_path / "two.npz"))
    assert not (tmp_path / "two.npz").exists()


def test_results_of_old_code_are_replaced(path: str, tmp_path: Path) -> None:
    fill(path, 3)
    with opened(path) as journal:
        new = registered("lambda x: x + 1")
        keys, _ = journal.lookup(new, numbers(2))
        journal.record(1, new, keys, ended(0, [1, 2]))
        journal.commit(0.0)
    report(path, str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["square"].tolist() == [1, 2, 4]


def test_report_of_nothing(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        report(path)
    Journal(path, True).close()
    assert report(path) == 0
    assert "runs 0, tasks done 0, tasks failed 0" in capsys.readouterr().out
    assert store.OPEN_HERE == set()
