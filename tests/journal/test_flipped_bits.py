"""A journal with flipped bits gives the right results and keeps new ones, or is refused with one line."""

import os
import random
from pathlib import Path

import pytest

from taskfarm.errors import JournalError
from taskfarm.journal.journal import Journal
from tests.journal.test_journal import ended, fill, numbers, registered

COUNT = 40


def left_by_a_killed_job(folder: Path) -> dict[str, bytes]:
    """The files of a journal, by suffix, with rows in its file and rows in its log."""
    path = str(folder / "run.db")
    fill(path, COUNT // 2)
    journal = Journal(path, True)
    keys, _ = journal.lookup(registered(), numbers(COUNT))
    half = COUNT // 2
    journal.record(1, registered(), keys[half:], ended(half, [i * i for i in range(half, COUNT)]))
    journal.commit(0.0)
    files = {suffix: Path(path + suffix).read_bytes() for suffix in ("", "-wal")}
    journal.close()
    return files


def flips(files: dict[str, bytes]) -> list[tuple[str, int, int]]:
    """All bytes of the headers, and some others: suffix, offset and bits."""
    chosen = random.Random(1)
    places = [("", offset, 1 << chosen.randrange(8)) for offset in range(100)]
    places += [("", offset, chosen.randrange(1, 256)) for offset in range(100)]
    places += [("-wal", offset, 1 << chosen.randrange(8)) for offset in range(32 + 24)]
    for suffix, content in files.items():
        places += [(suffix, chosen.randrange(len(content)), 1 << chosen.randrange(8)) for _ in range(60)]
    return places


def use(path: str) -> dict[int, int]:
    """The results of a run that resumes and records what is missing, and those of the next run."""
    journal = Journal(path, True)
    try:
        function = registered()
        keys, values = journal.lookup(function, numbers(COUNT + 1))
        for task in sorted({*range(COUNT + 1)} - set(values)):
            journal.record(1, function, [keys[task]], ended(task, [task * task]))
        journal.commit(0.0)
        found = {**dict.fromkeys(range(COUNT + 1)), **values}
    finally:
        journal.close()
    assert all(value in (None, task * task) for task, value in found.items())
    journal = Journal(path, True)
    try:
        return journal.lookup(registered(), numbers(COUNT + 1)).values
    finally:
        journal.close()


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path) -> None:
    files = left_by_a_killed_job(tmp_path)
    refusals = 0
    for number, (suffix, offset, bits) in enumerate(flips(files)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            damaged = bytearray(content)
            if name == suffix:
                damaged[offset] ^= bits
            path = folder / f"run.db{name}"
            path.write_bytes(damaged)
            path.chmod(0o600)
        try:
            found = use(str(folder / "run.db"))
        except JournalError as error:
            assert "\n" not in str(error)  # noqa: PT017  # or there is no error
            refusals += 1
        else:
            assert found == {i: i * i for i in range(COUNT + 1)}, (suffix, offset, bits)
    assert refusals > 50


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".d"])
def test_a_new_journal_takes_over_no_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "run.db"
    beside = Path(f"{path}{suffix}")
    beside.write_text("mine")
    for resume in (True, False):
        with pytest.raises(JournalError, match="exists, but the journal"):
            Journal(str(path), resume)
    assert beside.read_text() == "mine"
    assert os.listdir(tmp_path) == [beside.name]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_foreign_file_beside_a_journal_stays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "run.db"
    fill(str(path))
    beside = Path(f"{path}{suffix}")
    beside.write_text("mine")
    beside.chmod(0o600)
    with pytest.raises(JournalError, match="no part of the journal"):
        Journal(str(path), True)
    assert beside.read_text() == "mine"
