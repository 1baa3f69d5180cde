"""Streams Chrome trace events to a file, which Perfetto and other viewers open.

The format is that of "Trace Event Format" (Google, 2016): a JSON array with one event per line. Viewers
accept an array without its end, so the trace of a killed run can be opened, too.
"""

import gzip
import io
import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskfarm.errors import LaunchError
from taskfarm.master.recorders import FinishedCalls, Recorder
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.views.critical_path import MOST_PARTS, EndedParts, among
from taskfarm.views.own_files import beside, put

SOON = 1.0
"""Seconds after which written events can be read by others."""

COUNTED = 0.01
"""Seconds between two events with the number of tasks that have ended, at least."""

MASTER = 1
"""Process and thread id of the lanes of rank 0; hosts have higher ids. Viewers may treat 0 as no id."""


_BEGIN = b"[\n"
_HEAD = _BEGIN + b'{"ph":"M","name":"process_name","pid":1'
_GZIP = b"\x1f\x8b"


class Trace(Recorder):
    """Writes an event for each part that ran, and events for its batch before it started.

    Each host is a process, in which each worker has two lanes: the calls that it ran, and the batch that
    was in flight until its first call started. Queued batches are in lanes of rank 0.

    Parameters
    ----------
    path : str
        The file; compressed if it ends with ``.gz``.
    began : float
        When the run began, in seconds of the master's clock; times of events are microseconds since then.
    clock : callable
        Returns the time, in seconds, which schedules the flushes of the file.

    Attributes
    ----------
    error : str or None
        Why the file is incomplete; None if it is complete so far.

    Raises
    ------
    LaunchError
        The file cannot be written.
    """

    def __init__(self, path: str, began: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.error: str | None = None
        self._closed = False
        self._began = began
        self._clock = clock
        self._flushed = clock()
        self._lines: list[str] = []
        self._names: dict[str, str] = {}
        self._hosts: dict[str, int] = {}
        self._pids: dict[int, int] = {}
        self._batches: dict[int, tuple[int, float]] = {}
        self._depends: dict[int, dict[int, None]] = {}
        self._ended: EndedParts[tuple[int, int, float, float]] = EndedParts()
        self._flows = 0
        self._lane_ends: dict[int, float] = {}
        self._done = self._failed = 0
        self._counted = -1.0
        self._uncounted: float | None = None
        try:
            self._file: gzip.GzipFile | io.BufferedWriter
            self._raw, new = _opened(path)
            self._file = gzip.GzipFile(path, "wb", 5, self._raw) if path.endswith(".gz") else self._raw
            self._file.write(_BEGIN)
            if new is not None:
                # An empty file would not be known again as a trace.
                self._sync()
                _put(new, path)
        except OSError as error:
            raise LaunchError(f"the trace {path!r} cannot be written: {error.strerror}") from error
        self._process(MASTER, "rank 0")

    # Recording

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        """Name the lanes of a worker."""
        if host not in self._hosts:
            self._hosts[host] = len(self._hosts) + MASTER + 1
            self._process(self._hosts[host], host)
        pid = self._pids[worker] = self._hosts[host]
        for lane, name in ((2 * worker, f"rank {worker}"), (2 * worker + 1, f"rank {worker} in hand")):
            ids = f'"pid":{pid},"tid":{lane}'
            self._meta("thread_name", ids, "name", name)
            self._meta("thread_sort_index", ids, "sort_index", lane)

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        """Mark that a worker was lost."""
        self._instant(f"rank {worker} is lost: {why}", self._pids.get(worker, MASTER), 2 * worker, now)

    def calls_finished(self, calls: FinishedCalls) -> None:
        """Write an event for calls that ran, and events for their batch if they are its first."""
        name = self._name(calls.function.name)
        pid = self._pids[calls.worker]
        lane = 2 * calls.worker
        retried = len(calls.retried)
        failed = len(calls.failures)
        # The estimate of the worker's clock improves over time, which must not make calls overlap.
        start = max(self._timestamp(calls.started), self._lane_ends.get(calls.worker, 0.0))
        length = max(0.0, self._timestamp(calls.started + calls.seconds) - start)
        self._lane_ends[calls.worker] = round(start + length, 1)
        batch, before = self._batches.get(calls.worker, (0, 0.0))
        if calls.batch != batch:
            self._write_batch(calls, name, pid, max(before, self._timestamp(calls.sent)), start)
        queue = (calls.sent - calls.queued) * 1e6
        transfer = (calls.started - calls.sent) * 1e6
        back = (calls.received - calls.started - calls.seconds) * 1e6
        self._lines.append(
            f'{{"ph":"X","name":{name},"cat":"run","pid":{pid},"tid":{lane},"ts":{start:.1f},'
            f'"dur":{length:.1f},"args":{{"first":{calls.first},"count":{calls.count},'
            f'"batch":{calls.batch},"attempt":{calls.attempt},"failed":{failed},"queue_us":{queue:.1f},'
            f'"transfer_us":{transfer:.1f},"return_us":{max(0.0, back):.1f}}}}}'
        )
        for offset, error in list(calls.failures.items())[:3]:
            text = f"{type(error).__qualname__} in task {calls.first + offset}"
            self._instant(text, pid, lane, calls.started + calls.seconds)
        self._write_dependencies(calls, (pid, lane, start, length / calls.count))
        self._done += calls.count - failed
        self._failed += failed - retried
        self._count(calls.received)

    def task_depends(self, task: int, on: int) -> None:
        """Keep a dependency until the task has run."""
        # A task that was sent before its needs were known, and came back, is told of them again.
        self._depends.setdefault(task, {})[on] = None
        self._ended.most = MOST_PARTS

    def waiting_changed(self, now: float, some_wait: bool) -> None:
        """Begin or end an event in the lane of rank 0 for the time in which tasks waited for others."""
        self._lines.append(
            f'{{"ph":"{"b" if some_wait else "e"}","name":"tasks wait for others","cat":"waiting","id":0,'
            f'"pid":{MASTER},"tid":{MASTER},"ts":{self._timestamp(now):.1f}}}'
        )

    def tasks_dropped(self, first: int, count: int) -> None:
        """Forget the dependencies of tasks that will not run."""
        for task in among(self._depends, first, count):
            del self._depends[task]

    def member_finished(self, calls: FinishedCalls) -> None:
        """Write an event for the share of another rank of a task."""
        self.calls_finished(calls._replace(count=0))

    def tasks_failed(
        self, now: float, function: RegisteredFunction, first: int, count: int, error: BaseException
    ) -> None:
        """Mark that tasks failed on the master, or were not run."""
        self._instant(
            f"{type(error).__qualname__} in {count} tasks of {function.name}", MASTER, MASTER, now
        )
        self._failed += count
        self._count(now)

    def _write_dependencies(self, calls: FinishedCalls, place: tuple[int, int, float, float]) -> None:
        """Write an arrow from the end of each task on which one of these depends to the start of that."""
        self._ended.add(calls.first, calls.count, place, calls.retried)
        pid, lane, start, each = place
        for task in among(self._depends, calls.first, calls.count):
            offset = task - calls.first
            if offset in calls.retried:
                continue
            for on in self._depends.pop(task):
                if (found := self._ended.find(on)) is None:
                    continue
                index, (from_pid, from_lane, from_start, from_each) = found
                self._flows += 1
                flow = f'"name":"depends","cat":"depends","id":{self._flows}'
                # An arrow belongs to what runs in its lane at that time: not quite at the end.
                leaves = max(from_start, from_start + from_each * (index + 1) - 0.1)
                self._lines.append(
                    f'{{"ph":"s",{flow},"pid":{from_pid},"tid":{from_lane},"ts":{leaves:.1f}}}'
                )
                arrives = start + each * offset
                self._lines.append(
                    f'{{"ph":"f","bp":"e",{flow},"pid":{pid},"tid":{lane},"ts":{arrives:.1f}}}'
                )

    def _write_batch(self, calls: FinishedCalls, name: str, pid: int, sent: float, start: float) -> None:
        """Write events for the time that a batch was queued, and in flight before its first call."""
        if start > sent:
            self._lines.append(
                f'{{"ph":"X","name":{name},"cat":"in hand","pid":{pid},"tid":{2 * calls.worker + 1},'
                f'"ts":{sent:.1f},"dur":{start - sent:.1f},"args":{{"batch":{calls.batch}}}}}'
            )
        self._batches[calls.worker] = (calls.batch, max(sent, start))
        queue = f'"name":{name},"cat":"queue","id":{calls.batch},"pid":{MASTER},"tid":{MASTER}'
        for phase, time_of in (("b", calls.queued), ("e", calls.sent)):
            self._lines.append(f'{{"ph":"{phase}",{queue},"ts":{self._timestamp(time_of):.1f}}}')

    # Formatting

    def _timestamp(self, now: float) -> float:
        """Convert a time to microseconds since the run began."""
        # With the precision of the file; otherwise adjacent events may overlap, and Perfetto drops one.
        return round(max(0.0, (now - self._began) * 1e6), 1)

    def _name(self, name: str) -> str:
        """Return a name as JSON, from a cache."""
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = json.dumps(name)
        return found

    def _meta(self, what: str, ids: str, key: str, value: str | int) -> None:
        self._lines.append(f'{{"ph":"M","name":"{what}",{ids},"args":{{"{key}":{json.dumps(value)}}}}}')

    def _process(self, pid: int, name: str) -> None:
        self._meta("process_name", f'"pid":{pid}', "name", name)
        self._meta("process_sort_index", f'"pid":{pid}', "sort_index", pid)

    def _instant(self, text: str, pid: int, lane: int, now: float) -> None:
        self._lines.append(
            f'{{"ph":"i","s":"t","name":{json.dumps(text)},"cat":"trouble","pid":{pid},"tid":{lane},'
            f'"ts":{self._timestamp(now):.1f}}}'
        )

    def _count(self, now: float) -> None:
        self._uncounted = now
        if now - self._counted >= COUNTED:
            self._write_count(now)

    def _write_count(self, now: float) -> None:
        self._counted, self._uncounted = now, None
        self._lines.append(
            f'{{"ph":"C","name":"tasks","pid":{MASTER},"ts":{self._timestamp(now):.1f},'
            f'"args":{{"done":{self._done},"failed":{self._failed}}}}}'
        )

    # File

    def flush(self) -> None:
        """Write the collected events, and flush the file every `SOON` seconds."""
        if not self._lines or self.error is not None or self._closed:
            self._lines.clear()
            return
        lines, self._lines = self._lines, []
        self._write("".join(f"{line},\n" for line in lines).encode(errors="replace"))
        now = self._clock()
        if now - self._flushed >= SOON:
            self._flushed = now
            self._try(self._sync)

    def close(self) -> None:
        """Complete the file; what happens afterwards is not in it."""
        if self._closed:
            return
        if self._uncounted is not None:
            self._write_count(self._uncounted)
        self.flush()
        # A JSON array must not end with a comma, so an event without meaning comes last.
        self._write(b'{"ph":"M","name":"trace_end","pid":1,"args":{}}\n]\n')
        self._try(self._file.close)
        self._try(self._raw.close)
        self._closed = True

    def _write(self, data: bytes) -> None:
        self._try(lambda: self._file.write(data))

    def _sync(self) -> None:
        # The compressed data first, then the file.
        self._file.flush()
        self._raw.flush()

    def _try(self, use: Callable[[], Any]) -> None:
        """Use the file; after an error nothing more is written, and the run continues."""
        if self.error is not None:
            return
        try:
            use()
        except (OSError, ValueError) as error:
            self.error = getattr(error, "strerror", None) or str(error)


def _opened(path: str) -> tuple[io.BufferedWriter, str | None]:
    """Open a new file for a whole run; also returns its name, if `path` is not to be written directly."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return Path(path).open("wb"), None  # a pipe, or a device such as /dev/null
    new = beside(path)
    return Path(new).open("xb"), new


def _put(new: str, path: str) -> None:
    try:
        put(new, path, is_trace)
    except BaseException:
        os.unlink(new)
        raise


def is_trace(path: str) -> bool:
    """Whether a file is a trace, compressed or not, complete or not."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
        if head.startswith(_GZIP):
            # Also of a file that was cut off, where no data may follow the header.
            packed, head = head, zlib.decompressobj(31).decompress(head, len(_HEAD))
            if not head:
                return len(packed) < len(_HEAD) + len(path)
    except (OSError, zlib.error):
        return False
    return len(head) >= len(_BEGIN) and _HEAD.startswith(head[: len(_HEAD)])
