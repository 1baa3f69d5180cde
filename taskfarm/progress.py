"""The bar, or lines, on rank 0: an observer of the master."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from taskfarm.messages import Said
from taskfarm.speech import OUT, Stream
from taskfarm.task import Counts

REFRESH = 0.1
"""Seconds between two updates of the bar."""

LINES, SOONEST, STEP = 30.0, 5.0, 0.05
"""A line comes after so many seconds; where this share of the tasks has ended, sooner, but not at once."""


def _describe(counts: Counts) -> str:
    retried = f", retried {counts.retried}" if counts.retried else ""
    return f"busy {counts.busy}/{counts.workers}, failed {counts.failed}{retried}"


class Bar:
    """A tqdm bar on standard error, from the first task on."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._above: Stream | None = None
        self._next = 0.0
        self._last: tuple[Counts, int] | None = None

    def __call__(self, counts: Counts, undrawn: int) -> None:
        self._last = (counts, undrawn)
        now = time.perf_counter()
        if now >= self._next and counts.total:
            self._next = now + REFRESH
            self._show(counts, undrawn)

    def _show(self, counts: Counts, undrawn: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=0, unit="task", dynamic_ncols=True, file=sys.stderr)
            if sys.stdout.isatty():
                # What the job prints goes above the bar.
                self._above = Stream(OUT, sys.stdout, self._print)
                sys.stdout = self._above
        self._bar.total = counts.total + undrawn
        self._bar.set_postfix_str(_describe(counts), refresh=False)
        self._bar.update(counts.ended - self._bar.n)
        self._bar.refresh()

    def aside(self) -> AbstractContextManager[object]:
        """A context in which any stream of the terminal may be written to, on a line of its own."""
        if self._bar is None:
            return nullcontext()
        # The bar knows its own stream; others it would take for no concern of its.
        return self._bar.external_write_mode(file=self._bar.fp)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Show the last state and end the bar's line."""
        if self._bar is not None and self._last is not None:
            self._show(*self._last)
            self._bar.close()
            if self._above is not None:
                self._above.end_lines()
                sys.stdout = self._above.replaced

    def _print(self, said: Said) -> None:
        assert self._above is not None
        with self.aside():
            self._above.replaced.write(said.text)
            self._above.replaced.flush()


class Lines:
    """A plain line every so often on standard error, for a log."""

    def __init__(self, final: bool) -> None:
        self._started = time.perf_counter()
        self._printed = self._started
        self._ended = 0
        self._final = final
        self._last: tuple[Counts, int] | None = None

    def __call__(self, counts: Counts, undrawn: int) -> None:
        self._last = (counts, undrawn)
        now = time.perf_counter()
        waited = now - self._printed
        step = counts.ended - self._ended >= STEP * (counts.total + undrawn)
        if waited >= LINES or (waited >= SOONEST and step):
            self._printed, self._ended = now, counts.ended
            self._show()

    def _show(self) -> None:
        if self._last is None:
            return
        counts, undrawn = self._last
        seconds = time.perf_counter() - self._started
        rate = counts.ended / max(seconds, 1e-9)
        left = counts.total + undrawn - counts.ended
        print(
            f"{time.strftime('%H:%M:%S')} taskfarm: {counts.ended}/{counts.total + undrawn} tasks in "
            f"{seconds:.0f} s, {rate:.3g} tasks/s, {left / max(rate, 1e-9):.0f} s left, "
            f"{_describe(counts)}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Say the last word, if one is wanted."""
        if self._final:
            self._show()


def choose(mode: str) -> Bar | Lines | None:
    """The observer for ``--progress auto|on|off``: a bar on a terminal, lines elsewhere."""
    if mode == "off":
        return None
    return Bar() if sys.stderr.isatty() else Lines(final=mode == "on")
