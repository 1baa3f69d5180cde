"""The trace: events that any reader takes, of a whole run or as far as it went."""

import gzip
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taskfarm import testing
from taskfarm.errors import LaunchError, UsageError
from taskfarm.transport.waiting import CLOCK
from taskfarm.views import trace_report
from taskfarm.views.trace import Trace
from tests.views.recorded import ran, registered

NASTY = 'a "name" with \\ and \n </script> \ud800 é'


def read(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    events = json.loads(text)
    assert isinstance(events, list)
    return events


def fails(value: int) -> int:
    if value % 50 == 7:
        raise ValueError(value)
    return value


def record(path: Path, tasks: int = 500) -> None:
    """The trace of a farm with three workers, one of which dies."""
    trace = Trace(str(path), CLOCK.now())
    farm = testing.farm(workers=3, seed=2, clock=CLOCK, faults=[testing.Dies(3, after=9)])
    farm._master.outstanding.events.add(trace)
    with farm:
        list(farm.map(abs, range(tasks)))
        for future in [farm.submit(fails, value) for value in range(tasks // 5)]:
            future.exception()
    farm._master.outstanding.events.flush()
    trace.close()
    assert trace.error is None


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_farms_events(tmp_path: Path, name: str) -> None:
    record(tmp_path / name)
    events = read(tmp_path / name)
    runs = [event for event in events if event.get("cat") == "run"]
    assert sum(event["args"]["count"] for event in runs) >= 600
    assert {event["name"] for event in runs} == {"abs", "fails"}
    assert sum(event["args"]["failed"] for event in runs) == 2
    assert any("rank 3 is lost: it died" in event["name"] for event in events)
    assert any(event["name"] == "ValueError in task 507" for event in events)
    names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"rank 1", "rank 2", "rank 2 in hand"} <= names
    for event in runs:
        assert event["args"]["queue_us"] >= 0
        assert event["args"]["transfer_us"] >= 0
        assert event["args"]["return_us"] >= 0


def test_what_is_in_one_lane_never_overlaps(tmp_path: Path) -> None:
    record(tmp_path / "run.json")
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in read(tmp_path / "run.json"):
        if event["ph"] == "X":
            lanes.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["dur"]))
    assert len(lanes) >= 4
    for pieces in lanes.values():
        pieces.sort()
        for (start, length), (after, _) in pairwise(pieces):
            assert round(start + length, 1) <= after


def test_queueing_begins_and_ends_by_batch(tmp_path: Path) -> None:
    record(tmp_path / "run.json")
    phases: dict[int, list[tuple[str, float]]] = {}
    for event in read(tmp_path / "run.json"):
        if event.get("cat") == "queue":
            phases.setdefault(event["id"], []).append((event["ph"], event["ts"]))
    assert phases
    for (begin, at), (end, later) in phases.values():
        assert (begin, end) == ("b", "e")
        assert at <= later


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_file_that_was_cut_off_anywhere_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    record(tmp_path / name, 60)
    whole = (tmp_path / name).read_bytes()
    trace_report.report(str(tmp_path / name))
    assert "fails" in capsys.readouterr().out
    cut = tmp_path / "cut"
    for length in range(20 if name.endswith(".gz") else 2, len(whole), 97):
        cut.write_bytes(whole[:length])
        assert trace_report.report(str(cut)) == 0


def test_what_was_written_can_be_read_while_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    trace = Trace(str(tmp_path / "run.json.gz"), 0.0, lambda: now)
    trace.worker_joined(0.0, 1, "here")
    trace.calls_finished(ran(1.0, "early", seconds=0.5))
    now = 2.0
    trace.flush()
    trace_report.report(str(tmp_path / "run.json.gz"))
    assert "early" in capsys.readouterr().out
    trace.close()


def test_any_name_is_written(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "run.json"), 0.0)
    trace.worker_joined(0.0, 1, NASTY)
    trace.calls_finished(ran(1.0, NASTY, seconds=0.5, failures={0: ValueError(NASTY)}))
    trace.tasks_failed(2.0, registered(NASTY), 0, 3, ValueError())
    trace.worker_lost(3.0, 1, NASTY)
    trace.close()
    assert NASTY in {event["name"] for event in read(tmp_path / "run.json")}


def test_memory_does_not_grow(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "run.json.gz"), 0.0)
    trace.worker_joined(0.0, 1, "here")
    tracemalloc.start()
    for number in range(20_000):
        trace.calls_finished(ran(number * 0.01, first=number, seconds=0.005, batch=number))
        if number % 500 == 0:
            trace.flush()
        if number == 2000:
            before = tracemalloc.get_traced_memory()[0]
    trace.flush()
    assert tracemalloc.get_traced_memory()[0] - before < 200_000
    tracemalloc.stop()
    trace.close()


def test_a_full_disk_is_no_trouble_for_the_run() -> None:
    trace = Trace("/dev/full", 0.0)
    trace.worker_joined(0.0, 1, "here")
    for number in range(2000):
        trace.calls_finished(ran(number * 1.0, seconds=0.5))
        trace.flush()
    trace.close()
    assert trace.error == "No space left on device"


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be written"):
        Trace(str(tmp_path), 0.0)


@pytest.mark.parametrize("content", [b"", b"no trace\n", b'[\n{"a": 1}\n', b"[\n7\n", b"[\n{,}\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    if content:
        with pytest.raises(UsageError, match="is not a trace"):
            trace_report.report(str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot read"):
        trace_report.report(str(tmp_path / "missing"))


def test_parts_of_one_batch_do_not_wait_for_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Trace(str(tmp_path / "run.json"), 0.0)
    trace.worker_joined(0.0, 1, "here")
    for number in range(100):
        end = 0.1 + 0.01 * (number + 1)
        part = ran(end, "alone", first=number, seconds=0.01, queued=0.0, sent=0.1)
        trace.calls_finished(part._replace(received=1.2))
    trace.close()
    trace_report.report(str(tmp_path / "run.json"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("alone")]
    assert line.count("100 ms, ") == 2, "queue, and return"
    assert "10 ms, " in line
    assert "495" not in line
