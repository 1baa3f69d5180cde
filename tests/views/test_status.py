"""How far a run is, for others to read."""

import json
import time
from pathlib import Path

import pytest

from taskfarm import testing
from taskfarm.errors import UsageError
from taskfarm.launch import cli
from taskfarm.views.pace import Pace
from taskfarm.views.status import StatusFile, read, render, snapshot, top


def slow(x: int) -> int:
    return x


def test_snapshot_adds_up_and_renders() -> None:
    with testing.farm(workers=3, faults=[testing.Stuck(2)]) as farm:
        futures = [farm.submit(slow, x) for x in range(9)]
        futures[0].result()
        found = snapshot(farm._master, time.time() - 10, Pace(farm._master))
        ended = found["done"] + found["failed"] + found["cancelled"]
        assert ended + found["queued"] + found["assigned"] == found["total"] == 9
        assert 2 in [task["worker"] for task in found["running"]]
        assert all(task["name"] == "slow" for task in found["running"])
        text = render(found, time.time())
        assert f"{ended} of 9 tasks in 10 s" in text
        assert "longest without an answer:\n  rank " in text
        farm._master.failure_detector.heartbeats.set_limits(10.0)


def test_file_is_replaced_and_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "run.status")
    with testing.farm(workers=2) as farm:
        status = StatusFile(path, farm._master, Pace(farm._master))
        assert read(path)["total"] == 0
        assert sum(farm.map(slow, range(100))) == 4950
        status.close()
        # While the workers end, the observers still run.
        status(1e9)
    found = read(path)
    assert (found["done"], found["total"], found["ended"]) == (100, 100, True)
    shown: list[str] = []
    assert top(path, once=False, show=shown.append) == 0
    assert "100 of 100 tasks" in shown[0]
    assert "ended" in shown[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.status"]


def test_run_goes_on_without_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with testing.farm(workers=2) as farm:
        status = StatusFile(str(folder / "run.status"), farm._master, Pace(farm._master))
        (folder / "run.status").unlink()
        folder.rmdir()
        status.close()


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"taskfarm": 7}), "\x00"])
def test_other_files_are_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not a status file"):
        read(str(path))
    assert cli.main(["top", str(path)]) == 2
    assert cli.main(["top", str(tmp_path / "nothing")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
