"""What happened when, as Chrome trace events that Perfetto and others open, streamed to a file.

The format is that of "Trace Event Format" (Google, 2016): a JSON array with an event on each line. Readers
do without its end, so what a run wrote that was killed can be used.
"""

import gzip
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskfarm.errors import LaunchError
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.functions import RegisteredFunction

SOON = 1.0
"""Seconds after which what was written can be read."""

COUNTED = 0.01
"""Seconds between two events that tell how many tasks have ended."""

MASTER = 1
"""The process id of the lanes of rank 0, and its only thread; hosts follow. Readers may take 0 for none."""


class Trace(Recorder):
    """Writes an event for each part that ran, and what went before it.

    Each host is a process, each worker has two lanes in it: the calls that it ran, and the batch that it
    had in hand until then. Batches that were queued are in lanes of rank 0.

    Parameters
    ----------
    path : str
        The file; compressed if it ends with ``.gz``.
    began : float
        When the run began, in seconds of the master's clock; times of events are microseconds since then.
    clock : callable
        Gives the time by which what was written is made readable.

    Attributes
    ----------
    trouble : str or None
        Why the file is not complete.

    Raises
    ------
    LaunchError
        The file cannot be written.
    """

    def __init__(self, path: str, began: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.trouble: str | None = None
        self._began = began
        self._clock = clock
        self._flushed = clock()
        self._lines: list[str] = []
        self._names: dict[str, str] = {}
        self._hosts: dict[str, int] = {}
        self._places: dict[int, int] = {}
        self._in_hand: dict[int, tuple[int, float]] = {}
        self._until: dict[int, float] = {}
        self._done = self._failed = 0
        self._counted = -1.0
        self._uncounted: float | None = None
        try:
            self._file: gzip.GzipFile | io.BufferedWriter
            # It is open as long as the run goes on.
            self._raw = Path(path).open("wb")  # noqa: SIM115
            self._file = gzip.GzipFile(path, "wb", 5, self._raw) if path.endswith(".gz") else self._raw
            self._file.write(b"[\n")
        except OSError as error:
            raise LaunchError(f"the trace {path!r} cannot be written: {error.strerror}") from error
        self._process(MASTER, "rank 0")

    # Events of the run

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Name the lanes of a worker."""
        if host not in self._hosts:
            self._hosts[host] = len(self._hosts) + MASTER + 1
            self._process(self._hosts[host], host)
        pid = self._places[worker] = self._hosts[host]
        for lane, name in ((2 * worker, f"rank {worker}"), (2 * worker + 1, f"rank {worker} in hand")):
            about = f'"pid":{pid},"tid":{lane}'
            self._meta("thread_name", about, "name", name)
            self._meta("thread_sort_index", about, "sort_index", lane)

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Mark that a worker was lost."""
        self._instant(f"rank {worker} is lost: {why}", self._places.get(worker, MASTER), 2 * worker, now)

    def calls_finished(self, ran: FinishedCalls) -> None:
        """Write down calls that ran, and how long their batch was queued and in hand."""
        name, pid, lane = self._name(ran.function.name), self._places[ran.worker], 2 * ran.worker
        again, failed = len(ran.retried), len(ran.failures)
        # What is known of the worker's clock gets better: calls must not seem to overlap those before.
        start = max(self._at(ran.started), self._until.get(ran.worker, 0.0))
        length = max(0.0, self._at(ran.started + ran.seconds) - start)
        self._until[ran.worker] = round(start + length, 1)
        batch, before = self._in_hand.get(ran.worker, (0, 0.0))
        if ran.batch != batch:
            self._went_before(ran, name, pid, max(before, self._at(ran.sent)), start)
        queue, transfer = (ran.sent - ran.queued) * 1e6, (ran.started - ran.sent) * 1e6
        back = (ran.received - ran.started - ran.seconds) * 1e6
        self._lines.append(
            f'{{"ph":"X","name":{name},"cat":"run","pid":{pid},"tid":{lane},"ts":{start:.1f},'
            f'"dur":{length:.1f},"args":{{"first":{ran.first},"count":{ran.count},"batch":{ran.batch},'
            f'"attempt":{ran.attempt},"failed":{failed},"queue_us":{queue:.1f},'
            f'"transfer_us":{transfer:.1f},"return_us":{max(0.0, back):.1f}}}}}'
        )
        for offset, error in list(ran.failures.items())[:3]:
            text = f"{type(error).__qualname__} in task {ran.first + offset}"
            self._instant(text, pid, lane, ran.started + ran.seconds)
        self._done += ran.count - failed
        self._failed += failed - again
        self._count(ran.received)

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Mark that tasks have failed on the master."""
        self._instant(
            f"{type(error).__qualname__} in {count} tasks of {function.name}", MASTER, MASTER, now
        )
        self._failed += count
        self._count(now)

    def _went_before(self, ran: FinishedCalls, name: str, pid: int, sent: float, start: float) -> None:
        """Write down when a batch was queued, and in hand."""
        if start > sent:
            self._lines.append(
                f'{{"ph":"X","name":{name},"cat":"in hand","pid":{pid},"tid":{2 * ran.worker + 1},'
                f'"ts":{sent:.1f},"dur":{start - sent:.1f},"args":{{"batch":{ran.batch}}}}}'
            )
        self._in_hand[ran.worker] = (ran.batch, max(sent, start))
        about = f'"name":{name},"cat":"queue","id":{ran.batch},"pid":{MASTER},"tid":{MASTER}'
        for phase, at in (("b", ran.queued), ("e", ran.sent)):
            self._lines.append(f'{{"ph":"{phase}",{about},"ts":{self._at(at):.1f}}}')

    # What makes lines

    def _at(self, now: float) -> float:
        # Rounded as it is written: else two pieces that touch may overlap, and Perfetto drops one of them.
        return round(max(0.0, (now - self._began) * 1e6), 1)

    def _name(self, name: str) -> str:
        """A name as JSON, made once."""
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = json.dumps(name)
        return found

    def _meta(self, what: str, about: str, key: str, value: str | int) -> None:
        self._lines.append(f'{{"ph":"M","name":"{what}",{about},"args":{{"{key}":{json.dumps(value)}}}}}')

    def _process(self, pid: int, name: str) -> None:
        self._meta("process_name", f'"pid":{pid}', "name", name)
        self._meta("process_sort_index", f'"pid":{pid}', "sort_index", pid)

    def _instant(self, text: str, pid: int, lane: int, now: float) -> None:
        self._lines.append(
            f'{{"ph":"i","s":"t","name":{json.dumps(text)},"cat":"trouble","pid":{pid},"tid":{lane},'
            f'"ts":{self._at(now):.1f}}}'
        )

    def _count(self, now: float) -> None:
        self._uncounted = now
        if now - self._counted >= COUNTED:
            self._write_count(now)

    def _write_count(self, now: float) -> None:
        self._counted, self._uncounted = now, None
        self._lines.append(
            f'{{"ph":"C","name":"tasks","pid":{MASTER},"ts":{self._at(now):.1f},'
            f'"args":{{"done":{self._done},"failed":{self._failed}}}}}'
        )

    # The file

    def flush(self) -> None:
        """Write what there is, and now and then see that others can read it."""
        if not self._lines or self.trouble is not None:
            self._lines.clear()
            return
        lines, self._lines = self._lines, []
        self._write("".join(f"{line},\n" for line in lines).encode(errors="replace"))
        now = self._clock()
        if now - self._flushed >= SOON:
            self._flushed = now
            self._try(self._sync)

    def close(self) -> None:
        """Complete the file."""
        if self._uncounted is not None:
            self._write_count(self._uncounted)
        self.flush()
        # An event of no meaning: the array must not end with a comma.
        self._write(b'{"ph":"M","name":"trace_end","pid":1,"args":{}}\n]\n')
        self._try(self._file.close)
        self._try(self._raw.close)

    def _write(self, data: bytes) -> None:
        self._try(lambda: self._file.write(data))

    def _sync(self) -> None:
        # Of what is packed, up to here.
        self._file.flush()
        self._raw.flush()

    def _try(self, use: Callable[[], Any]) -> None:
        """Use the file; if that fails, nothing more is written, and the run goes on."""
        if self.trouble is not None:
            return
        try:
            use()
        except (OSError, io.UnsupportedOperation) as error:
            self.trouble = error.strerror or str(error)
