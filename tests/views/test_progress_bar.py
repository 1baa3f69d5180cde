"""What shows progress: bars on a terminal, one for each map that lasts, and lines in a log."""

import os
import pty
import re
import select
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from taskfarm.master.map_progress import MapProgress
from taskfarm.schedule.states import Counts
from taskfarm.testing import VirtualClock
from taskfarm.views import progress_bar
from taskfarm.views.pace import Pace
from taskfarm.views.terminal import Terminal, find

NONE = Counts(queued=0, assigned=0, done=0, failed=0, cancelled=0, retried=0, workers=2, busy=2)


class Farm:
    """Stands for a master: what it says of itself can be set."""

    def __init__(self, **counts: int) -> None:
        self.maps: set[MapProgress] = set()
        self.undrawn = 0
        self.scheduler: Any = self
        self.clock = VirtualClock()
        self.now = NONE._replace(**counts)
        self.num_gangs = 0, 0, 0

    def counts(self) -> Counts:
        return self.now

    def running(self) -> list[Any]:
        return []


class Screen:
    """A terminal, and what was written to it."""

    def __init__(self) -> None:
        self._read, self._write = pty.openpty()
        termios.tcsetwinsize(self._write, (30, 110))
        self.terminal = Terminal(os.ttyname(self._write), True)

    def text(self) -> str:
        found = b""
        # The kernel passes on what was written a moment later.
        while select.select([self._read], [], [], 0.05)[0]:
            found += os.read(self._read, 1 << 20)
        return found.decode().replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def test_submitted_tasks_have_a_bar(screen: Screen) -> None:
    farm = Farm(queued=5, assigned=2, done=3, failed=1)
    bar = progress_bar.Bar(farm, screen.terminal, Pace(farm))  # type: ignore[arg-type]
    bar(0.0)
    assert screen.text() == ""
    bar(1.0)
    assert "tasks:  36%" in screen.text()
    farm.now = NONE._replace(done=10, failed=1, retried=3)
    bar.close()
    text = screen.text()
    assert "11/11" in text
    assert "busy 2/2, failed 1, retried 3" in text
    assert "task/s" in text
    assert text.endswith("\n")


def test_maps_have_bars_by_name_and_leave_them(screen: Screen) -> None:
    farm = Farm(assigned=2, queued=70, done=28)
    fit, draw = (
        MapProgress("fit", 50, ended=10, drawn=50),
        MapProgress("draw", None, ended=15, failed=2, drawn=40),
    )
    farm.maps = {fit, draw}
    bar = progress_bar.Bar(farm, screen.terminal, Pace(farm))  # type: ignore[arg-type]
    for now in (0.0, 0.6):
        bar(now)
    text = screen.text()
    assert "fit:  20%" in text
    assert "draw: 15task" in text
    assert re.search(r"draw: .*failed 2", text)
    assert "tasks:  30%" in text, "3 of 10 were submitted by themselves"
    fit.ended = 50
    bar(0.7)
    assert "50/50" in screen.text()
    farm.maps = {draw}
    bar(0.8)
    assert "fit" not in screen.text(), "its bar is left as it was"
    bar.close()


def test_many_short_maps_share_a_bar(screen: Screen) -> None:
    farm, text = Farm(), ""
    bar = progress_bar.Bar(farm, screen.terminal, Pace(farm))  # type: ignore[arg-type]
    for number in range(100):
        one = MapProgress(f"map{number}", 10, ended=10, drawn=10)
        farm.maps = {one}
        farm.now = NONE._replace(done=10 * (number + 1))
        bar(0.1 * number)
        text += screen.text()
    bar.close()
    text += screen.text()
    assert "map" not in text
    assert "1000/1000" in text


def test_what_is_printed_goes_above_the_bar_in_whole_lines(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sys.stdout, sys.stderr
    bar = progress_bar.Bar(Farm(done=3, queued=1), screen.terminal, Pace(Farm()))  # type: ignore[arg-type]
    for now in (0.0, 1.0):
        bar(now)
    screen.text()
    print("half", end="")
    assert screen.text() == ""
    print(" a line")
    print("an error", file=sys.stderr)
    text = screen.text()
    assert re.search(r"(^|\r) *\r?half a line\n", text), repr(text)
    assert re.search(r"an error\n", text)
    print("no end", end="")
    bar.close()
    assert "no end\n" in screen.text()
    assert (sys.stdout, sys.stderr) == before


def test_without_tasks_nothing_is_shown(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress_bar.Bar(Farm(), screen.terminal, Pace(Farm()))  # type: ignore[arg-type]
    lines = progress_bar.Lines(Farm(), final=True, pace=Pace(Farm()))  # type: ignore[arg-type]
    for shown in (bar, lines):
        shown(0.0)
        shown(9.0)
        shown.close()
    assert screen.text() == capsys.readouterr().err == ""


def test_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm(queued=5, assigned=2, done=3, failed=1)
    farm.undrawn = 9
    farm.maps = {MapProgress("fit", 15, ended=4, drawn=6)}
    lines = progress_bar.Lines(farm, final=True, pace=Pace(farm))  # type: ignore[arg-type]
    lines(0.0)
    assert capsys.readouterr().err == ""
    farm.num_gangs = 1, 5, 2
    lines.close()
    err = capsys.readouterr().err
    assert err.endswith("failed 1, on several ranks 1 run and 5 wait (2 held)\n")
    assert re.match(r"\d\d:\d\d:\d\d taskfarm: 4/20 tasks \(fit 4/15\) in ", err)
    assert err.count("\n") == 1


def test_a_line_says_how_much_time_is_left_while_something_is(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm(queued=5, done=3)
    pace = Pace(farm)  # type: ignore[arg-type]
    pace(0.0)
    pace(3.0)
    lines = progress_bar.Lines(farm, final=True, pace=pace)  # type: ignore[arg-type]
    lines.close()
    assert ", 1 tasks/s, 5 s left, busy" in capsys.readouterr().err
    farm.now = NONE._replace(done=8)
    lines.close()
    err = capsys.readouterr().err
    assert "8/8 tasks" in err
    assert "left" not in err


def test_a_line_comes_with_every_twentieth_but_not_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("taskfarm.views.progress_bar.time.perf_counter", lambda: now)
    farm = Farm()
    lines = progress_bar.Lines(farm, final=False, pace=Pace(farm))  # type: ignore[arg-type]
    for second in range(100):
        now = float(second)
        farm.now = NONE._replace(queued=1000 - 10 * second, done=10 * second)
        lines(now)
    assert len(capsys.readouterr().err.splitlines()) == 19


def test_choice(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    farm: Any = Farm()
    assert progress_bar.choose("off", farm, Pace(farm)) is None
    assert isinstance(progress_bar.choose("on", farm, Pace(farm)), progress_bar.Lines), (
        "no terminal, no launcher"
    )
    monkeypatch.setattr(progress_bar, "find", lambda: screen.terminal)
    assert isinstance(progress_bar.choose("auto", farm, Pace(farm)), progress_bar.Bar)


def test_a_pipe_that_no_launcher_made_is_no_terminal() -> None:
    assert find() is None


def rows(text: str) -> list[str]:
    """What a terminal shows of a text, without blank rows."""
    shown, at = [""], 0
    for step in re.split(r"(\n|\r|\x1b\[A)", text):
        if step == "\n":
            at += 1
            shown += [""] * (at == len(shown))
        elif step == "\x1b[A":
            at -= 1
        elif step not in ("", "\r"):
            shown[at] = step + shown[at][len(step) :]
    return [row for row in shown if row.strip()]


def test_no_bar_is_shown_twice_when_a_map_ends(screen: Screen) -> None:
    farm = Farm(assigned=2, queued=58, done=40)
    maps = [MapProgress(name, 20, ended=10, drawn=20) for name in ("one", "two", "six")]
    for number, progress in enumerate(maps):
        progress.number = number
    farm.maps = {*maps}
    bar = progress_bar.Bar(farm, screen.terminal, Pace(farm))  # type: ignore[arg-type]
    text = ""
    for now in (0.0, 0.6, 1.2):
        bar(now)
        text += screen.text()
    assert sorted(row[:3] for row in rows(text)) == ["one", "six", "tas", "two"]
    maps[1].ended = 20
    bar(1.8)
    text += screen.text()
    assert sorted(row[:3] for row in rows(text)) == ["one", "six", "tas", "two"], rows(text)
    bar.close()
    text += screen.text()
    assert sorted(row[:3] for row in rows(text)) == ["one", "six", "tas", "two"], rows(text)
