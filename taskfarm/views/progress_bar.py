"""Progress bars on a terminal, or progress lines in a log: observers of the master."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from taskfarm.console import write
from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.protocol.messages import ERR, OUT, OutputLine
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.states import Counts
from taskfarm.views.pace import LongCall, Pace
from taskfarm.views.terminal import Terminal, find
from taskfarm.worker.output_capture import LineStream

LASTING = 0.5
"""Seconds after which a map gets its own bar; shorter maps share the bar of the submitted tasks."""

LEFT = 20
"""Bars of finished maps that stay on the terminal; later ones are removed."""

LINES, SOONEST, STEP = 30.0, 5.0, 0.05
"""Seconds between two lines: at most, and at least if this share of the tasks has ended since."""


def describe(
    counts: Counts, failed: int, retried: int, long_call: LongCall | None, scheduler: Scheduler
) -> str:
    """Describe the workers, the failures of a map or of the run, and a call that takes unusually long."""
    text = f"busy {counts.busy}/{counts.workers}, failed {failed}"
    if retried:
        text += f", retried {retried}"
    if counts.not_run:
        text += f", not run {counts.not_run}"
    if counts.waiting:
        text += f", waiting {counts.waiting}"
    running, waiting, held = scheduler.num_gangs
    if running or waiting:
        text += f", on several ranks {running} run and {waiting} wait"
        text += f" ({held} held)" if held else ""
    return text if long_call is None else f"{text}, {long_call}"


def _interactive() -> bool:
    """Whether somebody types commands, as in IPython: then a bar must not draw into the prompt."""
    return hasattr(sys, "ps1") or "IPython" in sys.modules


class Bar:
    """tqdm bars on a terminal: one for each long map, and one for all other tasks.

    Parameters
    ----------
    master : Master
        The master whose tasks are shown.
    terminal : Terminal
        The terminal that shows the bars. Output of rank 0 is printed there, too, above the bars; through
        the launcher it would overwrite them.
    pace : Pace
        How fast tasks end.
    """

    def __init__(self, master: Master, terminal: Terminal, pace: Pace) -> None:
        self._master = master
        self._pace = pace
        self._out = terminal.out
        self._file = os.fdopen(terminal.open(), "w", errors="backslashreplace")
        self._young: dict[MapProgress, float] = {}
        self._maps: dict[MapProgress, Any] = {}
        self._finished = MapProgress("", 0)
        self._others: Any = None
        self._left = 0
        self._began: float | None = None
        self._streams: list[LineStream] = []

    def __call__(self, now: float) -> None:
        counts = self._master.scheduler.counts()
        if not counts.total:
            return
        if self._began is None:
            self._began = now
        self._update_maps(now)
        self._show(counts, now - self._began >= LASTING)

    def _update_maps(self, now: float) -> None:
        """Create bars for maps that have lasted for `LASTING` seconds; forget those that ended sooner."""
        current = set(self._master.maps)
        self._young = {
            progress: since
            for progress, since in self._young.items()
            if progress in current and not progress.over
        }
        for progress in sorted(current - self._maps.keys(), key=lambda progress: progress.number):
            if not progress.over and now - self._young.setdefault(progress, now) >= LASTING:
                del self._young[progress]
                self._maps[progress] = self._new(progress.name)

    def _show(self, counts: Counts, others: bool) -> None:
        """Update all bars; `others` allows a bar for the tasks that belong to none."""
        for progress, bar in list(self._maps.items()):
            self._update(bar, progress, counts)
            if progress.over:
                del self._maps[progress]
                self._close(bar)
                self._finished.drawn += progress.drawn
                self._finished.ended += progress.ended
                self._finished.failed += progress.failed
                self._finished.retried += progress.retried
        maps = [self._finished, *self._maps, *self._young]
        rest = MapProgress(
            "tasks",
            counts.total - sum(progress.drawn for progress in maps),
            counts.ended - sum(progress.ended for progress in maps),
            counts.failed - sum(progress.failed for progress in maps),
            counts.retried - sum(progress.retried for progress in maps),
        )
        if rest.total and others and self._others is None:
            self._others = self._new(rest.name)
        if self._others is not None and self._others.n < max(rest.ended, rest.total or 0):
            self._update(self._others, rest, counts)
            if rest.over and _interactive():
                self._close(self._others)
                self._others = None
                self._finished.drawn += rest.drawn

    def _new(self, name: str) -> Any:
        from tqdm import tqdm

        if not self._streams:
            self._streams.append(LineStream(ERR, sys.stderr, self._print))
            sys.stderr = self._streams[0]
            if self._out:
                self._streams.append(LineStream(OUT, sys.stdout, self._print))
                sys.stdout = self._streams[1]
        bar = tqdm(desc=name[:30], total=0, unit="task", dynamic_ncols=True, file=self._file)
        # It has lasted for that long already.
        bar.start_t = bar.last_print_t = bar.start_t - LASTING
        return bar

    def _update(self, bar: Any, progress: MapProgress, counts: Counts) -> None:
        bar.total = progress.total
        long_call = None if progress.over else self._pace.long_call
        text = describe(counts, progress.failed, progress.retried, long_call, self._master.scheduler)
        bar.set_postfix_str(text, refresh=False)
        bar.update(progress.ended - bar.n)
        bar.refresh()

    def _close(self, bar: Any) -> None:
        self._left += 1
        bar.leave = self._left <= LEFT
        others = [other for other in self._bars() if other is not bar and not other.disable]
        # tqdm leaves the row of a bar that moves as it was, and the bar would be shown twice.
        for other in others:
            other.clear()
        bar.close()
        for position, other in enumerate(others):
            other.pos = position
            other.refresh()

    def _bars(self) -> list[Any]:
        return [bar for bar in (*list(self._maps.values()), self._others) if bar is not None]

    @contextlib.contextmanager
    def external_write_mode(self) -> Iterator[None]:
        """Return a context in which other output to the terminal does not break the bars.

        It holds no lock: whoever writes there, a handler of the job's for example, may wait for a thread
        that updates the bars.
        """
        bars = self._bars()
        for bar in bars:
            bar.clear()
        try:
            yield
        finally:
            for bar in bars:
                bar.refresh()

    def _write_mode(self) -> AbstractContextManager[object]:
        bar = next(iter(self._maps.values()), self._others)
        if bar is None:
            return nullcontext()
        # tqdm clears the bars only for the stream that it writes to.
        return bar.external_write_mode(file=bar.fp)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Show the final state, and stop redirecting the output."""
        counts = self._master.scheduler.counts()
        if counts.total:
            self._young.clear()
            self._show(counts, others=True)
        for bar in (*self._maps.values(), self._others):
            if bar is not None:
                self._close(bar)
        for stream in self._streams:
            stream.flush_lines()
            name = "stderr" if stream.kind == ERR else "stdout"
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.replaced)

    def _print(self, line: OutputLine) -> None:
        # A closed terminal must not end the run.
        with contextlib.suppress(OSError), self._write_mode():
            self._file.write(line.text)
            self._file.flush()


class Lines:
    """Plain lines on standard error at intervals, for a log.

    Parameters
    ----------
    master : Master
        The master whose tasks are shown.
    final : bool
        Whether the final state is printed, too.
    pace : Pace
        How fast tasks end.
    """

    def __init__(self, master: Master, final: bool, pace: Pace) -> None:
        self._master = master
        self._pace = pace
        self._started = self._printed = time.perf_counter()
        self._ended = 0
        self._final = final

    def __call__(self, now: float) -> None:
        counts = self._master.scheduler.counts()
        now = time.perf_counter()
        waited = now - self._printed
        step = counts.ended - self._ended >= STEP * (counts.total + self._master.undrawn)
        if waited >= LINES or (waited >= SOONEST and step):
            self._printed, self._ended = now, counts.ended
            self._show(counts)

    def _show(self, counts: Counts) -> None:
        if not counts.total + self._master.undrawn:
            return
        seconds = time.perf_counter() - self._started
        total, left = self._pace.total, self._pace.seconds_left
        maps = [progress for progress in self._master.maps if progress.ended and not progress.over]
        maps.sort(key=lambda progress: progress.number)
        named = ", ".join(
            f"{progress.name[:30]} {progress.ended}/{progress.total or '?'}" for progress in maps[:5]
        )
        by_map = f"({named}) " if named else ""
        workers = describe(
            counts, counts.failed, counts.retried, self._pace.long_call, self._master.scheduler
        )
        write(
            f"{time.strftime('%H:%M:%S')} taskfarm: {counts.ended}/{'?' if total is None else total} tasks "
            f"{by_map}in {seconds:.0f} s, {self._pace.rate:.3g} tasks/s, "
            f"{f'{left:.0f} s left, ' if left else ''}{workers}"
        )

    def close(self) -> None:
        """Print the final state if `final` is true."""
        if self._final:
            self._show(self._master.scheduler.counts())


def choose(mode: str, master: Master, pace: Pace) -> Bar | Lines | None:
    """Return the observer for ``--progress auto|on|off``: bars on a terminal, lines elsewhere."""
    if mode == "off":
        return None
    terminal = find()
    if terminal:
        return Bar(master, terminal, pace)
    return Lines(master, final=mode == "on", pace=pace)
