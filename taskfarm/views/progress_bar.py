"""Bars, or lines, on rank 0: observers of the master."""

import contextlib
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.protocol.messages import ERR, OUT, OutputLine
from taskfarm.schedule.states import Counts
from taskfarm.views.terminal import Terminal, find
from taskfarm.worker.output_capture import LineStream

LASTING = 0.5
"""Seconds after which a map gets a bar of its own; shorter ones count with what was submitted."""

LEFT = 20
"""Bars of maps that have ended and are left on the terminal; later ones go."""

LINES, SOONEST, STEP = 30.0, 5.0, 0.05
"""A line comes after so many seconds; where this share of the tasks has ended, sooner, but not at once."""


def _describe(counts: Counts, failed: int, retried: int) -> str:
    text = f"busy {counts.busy}/{counts.workers}, failed {failed}"
    return f"{text}, retried {retried}" if retried else text


class Bar:
    """tqdm bars on a terminal: one for each map that lasts, one for all other tasks.

    Parameters
    ----------
    master : Master
        Whose tasks.
    terminal : Terminal
        Where they are drawn. What rank 0 prints goes there, too, above them: on its way through the
        launcher it would break them.
    """

    def __init__(self, master: Master, terminal: Terminal) -> None:
        self._master = master
        self._out = terminal.out
        self._file = os.fdopen(terminal.open(), "w")
        self._young: dict[MapProgress, float] = {}
        self._maps: dict[MapProgress, Any] = {}
        self._over = MapProgress("", 0)
        self._others: Any = None
        self._left = 0
        self._began: float | None = None
        self._above: list[LineStream] = []

    def __call__(self, now: float) -> None:
        counts = self._master.scheduler.counts()
        if not counts.total:
            return
        if self._began is None:
            self._began = now
        self._enter_maps(now)
        self._show(counts, now - self._began >= LASTING)

    def _enter_maps(self, now: float) -> None:
        """Give bars to maps that have lasted for a while, and forget those that have not."""
        there = set(self._master.maps)
        self._young = {map: since for map, since in self._young.items() if map in there and not map.over}
        for progress in sorted(there - self._maps.keys(), key=lambda map: map.number):
            if not progress.over and now - self._young.setdefault(progress, now) >= LASTING:
                del self._young[progress]
                self._maps[progress] = self._new(progress.name)

    def _show(self, counts: Counts, others: bool) -> None:
        for progress, bar in list(self._maps.items()):
            self._update(bar, progress, counts)
            if progress.over:
                del self._maps[progress]
                self._close(bar)
                for name in ("drawn", "ended", "failed", "retried"):
                    setattr(self._over, name, getattr(self._over, name) + getattr(progress, name))
        mine = [self._over, *self._maps, *self._young]
        rest = MapProgress(
            "tasks",
            counts.total - sum(progress.drawn for progress in mine),
            counts.ended - sum(progress.ended for progress in mine),
            counts.failed - sum(progress.failed for progress in mine),
            counts.retried - sum(progress.retried for progress in mine),
        )
        if rest.total and others and self._others is None:
            self._others = self._new(rest.name)
        if self._others is not None:
            self._update(self._others, rest, counts)

    def _new(self, name: str) -> Any:
        from tqdm import tqdm

        if not self._above:
            self._above.append(LineStream(ERR, sys.stderr, self._print))
            sys.stderr = self._above[0]
            if self._out:
                self._above.append(LineStream(OUT, sys.stdout, self._print))
                sys.stdout = self._above[1]
        return tqdm(desc=name[:30], total=0, unit="task", dynamic_ncols=True, file=self._file)

    @staticmethod
    def _update(bar: Any, progress: MapProgress, counts: Counts) -> None:
        bar.total = progress.total
        bar.set_postfix_str(_describe(counts, progress.failed, progress.retried), refresh=False)
        bar.update(progress.ended - bar.n)
        bar.refresh()

    def _close(self, bar: Any) -> None:
        self._left += 1
        bar.leave = self._left <= LEFT
        bar.close()

    def aside(self) -> AbstractContextManager[object]:
        """A context in which any stream of the terminal may be written to, on a line of its own."""
        bar = next(iter(self._maps.values()), self._others)
        if bar is None:
            return nullcontext()
        # The bar knows its own stream; others it would take for no concern of its.
        return bar.external_write_mode(file=bar.fp)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Show the last state and end the bars' lines."""
        counts = self._master.scheduler.counts()
        if counts.total:
            self._young.clear()
            self._show(counts, others=True)
        for bar in (*self._maps.values(), self._others):
            if bar is not None:
                self._close(bar)
        for stream in self._above:
            stream.flush_lines()
            name = "stderr" if stream.kind == ERR else "stdout"
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.replaced)

    def _print(self, said: OutputLine) -> None:
        # The terminal may have gone; that is no reason to end the run.
        with contextlib.suppress(OSError), self.aside():
            self._file.write(said.text)
            self._file.flush()


class Lines:
    """A plain line every so often on standard error, for a log.

    Parameters
    ----------
    master : Master
        Whose tasks.
    final : bool
        Whether the last state is told, too.
    """

    def __init__(self, master: Master, final: bool) -> None:
        self._master = master
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
        total = counts.total + self._master.undrawn
        if not total:
            return
        seconds = time.perf_counter() - self._started
        rate = counts.ended / max(seconds, 1e-9)
        maps = [map for map in self._master.maps if map.ended and not map.over]
        maps.sort(key=lambda map: map.number)
        named = ", ".join(f"{m.name[:30]} {m.ended}/{m.total or '?'}" for m in maps[:5])
        print(
            f"{time.strftime('%H:%M:%S')} taskfarm: {counts.ended}/{total} tasks "
            f"{f'({named}) ' * bool(named)}in {seconds:.0f} s, {rate:.3g} tasks/s, "
            f"{(total - counts.ended) / max(rate, 1e-9):.0f} s left, "
            f"{_describe(counts, counts.failed, counts.retried)}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Say the last word, if one is wanted."""
        if self._final:
            self._show(self._master.scheduler.counts())


def choose(mode: str, master: Master) -> Bar | Lines | None:
    """The observer for ``--progress auto|on|off``: bars on a terminal, lines elsewhere."""
    if mode == "off":
        return None
    terminal = find()
    return Bar(master, terminal) if terminal else Lines(master, final=mode == "on")
