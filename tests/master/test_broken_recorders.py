"""Recorders, observers and views that break never change a run's results."""

from pathlib import Path
from typing import Any

import pytest

from taskfarm import testing
from taskfarm.launch.config import RunConfig
from taskfarm.master.recorders import Recorder
from taskfarm.views.trace import Trace
from taskfarm.views.trace_report import report
from taskfarm.views.views import Views


class Breaks(Recorder):
    """A recorder of which one method raises, after some calls."""

    def __init__(self, method: str, error: BaseException, after: int) -> None:
        self.calls = 0
        self.after = after

        def raises(*args: Any) -> None:
            self.calls += 1
            if self.calls > after:
                raise error

        setattr(self, method, raises)


class Counts(Recorder):
    """A recorder that works."""

    def __init__(self) -> None:
        self.finished = 0

    def calls_finished(self, calls: Any) -> None:
        self.finished += calls.count


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("closed"), SystemExit(3)])
@pytest.mark.parametrize(
    ("method", "after"),
    [("worker_joined", 0), ("batch_sent", 2), ("calls_finished", 0), ("tasks_failed", 0), ("flush", 1)],
)
def test_a_recorder_that_raises_is_switched_off(
    method: str, after: int, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, counts = Breaks(method, error, after), Counts()
    with testing.farm(workers=3) as farm:
        master = farm._master
        for recorder in (broken, counts):
            master.outstanding.events.add(recorder)
        master.outstanding.events.worker_joined(0.0, 1, "here")
        master.observers.append(master.outstanding.events.flush)
        assert sum(farm.map(abs, range(300))) == 44850
        assert sum(farm.map(abs, range(300), chunksize=1)) == 44850
        master.outstanding.events.tasks_failed(0.0, None, 1, 1, error)  # type: ignore[arg-type]
        master.outstanding.events.flush()
        master.outstanding.events.flush()
    assert counts.finished == 600
    assert broken.calls == after + 1
    err = capsys.readouterr().err
    assert err.count("taskfarm: Breaks has failed, and is switched off: ") == 1


def test_an_observer_that_raises_is_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def broken(now: float) -> None:
        seen.append(now)
        raise RuntimeError("no more")

    with testing.farm(workers=2) as farm:
        farm._master.observers.append(broken)
        assert sum(farm.map(abs, range(3000))) == 4498500
        farm._master.notify_observers(1e9)
    assert len(seen) == 1
    assert "broken has failed, and is switched off: RuntimeError: no more" in capsys.readouterr().err


def test_a_closed_trace_takes_no_more_and_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "run.json.gz"):
        trace = Trace(str(tmp_path / name), 0.0)
        trace.close()
        trace.worker_joined(0.0, 1, "here")
        trace.flush()
        trace.close()
        assert trace.error is None
        assert report(str(tmp_path / name)) == 0
        Trace(str(tmp_path / name), 0.0).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.json.gz"]


def test_views_whose_files_are_taken_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    files = {name: str(folder / name) for name in ("status", "report", "trace")}
    views = Views(RunConfig(**files, summary="json"))  # type: ignore[arg-type]
    with testing.farm(workers=2) as farm:
        views.attach(farm._master)
        assert sum(farm.map(abs, range(100))) == 4950
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        farm._master.notify_observers(1e9)
        assert sum(farm.map(abs, range(100))) == 4950
        views.end_bar()
        views.end_files()
        views.sum_up()
    err = capsys.readouterr().err
    assert "the status file" in err
    assert "the report cannot be written: " in err
    assert '"tasks": 200' in err or "200" in err


def test_views_leave_files_that_have_appeared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {name: tmp_path / name for name in ("status", "report")}
    views = Views(RunConfig(**{name: str(path) for name, path in paths.items()}))  # type: ignore[arg-type]
    with testing.farm(workers=2) as farm:
        views.attach(farm._master)
        assert sum(farm.map(abs, range(100))) == 4950
        for path in paths.values():
            path.unlink(missing_ok=True)
            path.write_text("mine")
        (tmp_path / "status.ask").write_text("mine, too")
        farm._master.notify_observers(1e9)
        views.end_files()
        views.sum_up()
    assert {path.read_text() for path in paths.values()} == {"mine"}
    assert (tmp_path / "status.ask").read_text() == "mine, too"
    err = capsys.readouterr().err
    assert "so the report is in " in err
    assert err.count("the status file") == 1
