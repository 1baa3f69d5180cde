"""Runs one command on a worker, outside of MPI, and ends all that it has started."""

import contextlib
import os
import select
import shutil
import socket
import time
from signal import SIGTERM
from typing import NamedTuple

from taskfarm import interrupts
from taskfarm.environment import private_memory
from taskfarm.errors import CommandFailed
from taskfarm.shell import guard, start
from taskfarm.shell.template import SLOT
from taskfarm.worker.context import IN_TASK

INLINE = 256 << 10
"""Bytes of output that travel in a message; more goes through a file."""

KILL_SECONDS = 5.0
"""Seconds that a command gets to end after SIGKILL."""

MEMORY_INTERVAL = 0.1
"""Seconds between two looks at the memory of a command."""

LONGEST_SHOWN = 120
"""Characters of a command, and of a line that it printed, in the message about its failure."""

TAIL = 4096
"""Bytes at the end of the output in which the last line is looked for."""

TIMED_OUT = -1
"""The exit code of a command that has passed a limit, as in the log of GNU parallel."""


class Spooled(NamedTuple):
    """Output that is in a file.

    Attributes
    ----------
    path, host : str
        Where the file is.
    size : int
        Its bytes.
    keep : bool
        Whether the file stays where it is.
    """

    path: str
    host: str
    size: int
    keep: bool


class Ended(NamedTuple):
    """How a command ended.

    Attributes
    ----------
    code, signal : int
        Its exit code, and the signal that ended it or 0.
    started, seconds : float
        When it started, in seconds since 1970, and how long it ran.
    host, slot : str, int
        Where.
    stdout, stderr : bytes or Spooled
        What it printed.
    limit : str
        The limit that it has passed: ``"timeout"``, ``"memory"`` or nothing.
    """

    code: int
    signal: int
    started: float
    seconds: float
    host: str
    slot: int
    stdout: bytes | Spooled
    stderr: bytes | Spooled
    limit: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.code == 0 and self.signal == 0

    @property
    def received(self) -> int:
        """Bytes that it wrote to its standard output."""
        return len(self.stdout) if isinstance(self.stdout, bytes) else self.stdout.size

    @property
    def exit_code(self) -> int:
        """The exit code that a shell would show."""
        return 124 if self.limit else 128 + self.signal if self.signal else self.code

    def words(self) -> str:
        """How it ended, in words."""
        if self.limit:
            return f"passed its {self.limit} limit after {self.seconds:.3g} s"
        return f"was ended by signal {self.signal}" if self.signal else f"exited with code {self.code}"


class Where(NamedTuple):
    """Where a command's output goes, and its limits.

    Attributes
    ----------
    spool : str
        The folder for large output, which rank 0 reads there; empty if all output travels.
    keep : bool
        Whether what is there stays there.
    folder : str
        The folder that keeps the output; empty if none does.
    timeout : float or None
        Seconds after which the command is ended.
    memory : int or None
        Bytes that its processes may hold together.
    """

    spool: str = ""
    keep: bool = False
    folder: str = ""
    timeout: float | None = None
    memory: int | None = None


def run_command(
    text: str,
    number: int,
    spool: str = "",
    keep: bool = False,
    folder: str = "",
    timeout: float | None = None,
    memory: int | None = None,
) -> Ended:
    """Run a command, and raise `CommandFailed` unless it succeeds.

    All arguments are plain: so those of many commands travel in one pickle.

    Parameters
    ----------
    text : str
        The command; `SLOT` stands for the number of this worker.
    number : int
        The number of the command, counted from 1.
    spool, keep, folder, timeout, memory
        As in `Where`.
    """
    place = Where(spool, keep, folder, timeout, memory)
    context = IN_TASK.get()
    # Outside of tasks, a command runs as one of a worker that is alone.
    slot, attempt = (1, 1) if context is None else (context.current().rank, context.current().attempt)
    text = text.replace(SLOT, str(slot))
    files: list[int] = []
    try:
        out, err = (_output_file(place.folder, name, files) for name in ("stdout", "stderr"))
        started, begun = time.time(), time.perf_counter()
        process = start.current().start(text, out, err, _variables(number, slot, attempt))
        try:
            limit = _wait(process, place.timeout, place.memory)
        finally:
            # Whatever has ended the wait, nothing of the command goes on.
            _end(process)
        seconds = time.perf_counter() - begun
        outputs = _read(out, "stdout", number, place), _read(err, "stderr", number, place)
        ends = process.returncode == 0 and not limit
        last = "" if ends else _last_line(err)
    finally:
        for descriptor in files:
            os.close(descriptor)
    code = process.returncode or 0
    signal = SIGTERM if limit else max(0, -code)
    code = TIMED_OUT if limit else max(0, code)
    ended = Ended(code, signal, started, seconds, socket.gethostname(), slot, *outputs, limit)
    if not ended.ok:
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
        raise CommandFailed(f"`{shown}` {ended.words()}{last and ': '}{last}", ended)
    return ended


def _last_line(descriptor: int) -> str:
    """The last line in a file that has any text, shortened."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL, max(0, size - TAIL)).decode(errors="replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][-LONGEST_SHOWN:] if lines else ""


def _variables(number: int, slot: int, attempt: int) -> dict[str, str]:
    """What a command finds in its environment about itself."""
    return {
        "TASKFARM_SEQ": str(number),
        "TASKFARM_SLOT": str(slot),
        "TASKFARM_ATTEMPT": str(attempt),
        "PARALLEL_SEQ": str(number),
        "PARALLEL_JOBSLOT": str(slot),
    }


def _output_file(folder: str, name: str, files: list[int]) -> int:
    """A file for the output of one command; without a folder it has no name, and ends with the command."""
    if folder:
        os.makedirs(folder, exist_ok=True)
    descriptor = start.named_file(os.path.join(folder, name)) if folder else start.unnamed_file()
    files.append(descriptor)
    return descriptor


def _wait(process: start.Process, timeout: float | None, memory: int | None) -> str:
    """Wait for the end of a command, or until it passes a limit, which is returned."""
    if timeout is None and memory is None and _waits_for_end(process.pid):
        return ""
    deadline = None if timeout is None else time.monotonic() + timeout
    ended = _Ending(process)
    try:
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return "timeout"
            if memory is not None:
                left = MEMORY_INTERVAL if left is None else min(left, MEMORY_INTERVAL)
            if ended.within(left):
                return ""
            if memory is not None and _memory_of(process.pid) > memory:
                return "memory"
    finally:
        ended.close()


@interrupts.interruptible
def _waits_for_end(pid: int) -> bool:
    """Wait for the end of a process, however long it takes; False if the system cannot.

    The process is left to `start.Process.poll`: an exception may come here after its end.
    """
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return False
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return True


class _Ending:
    """Waits for the end of a process without asking again and again, where the system can tell."""

    def __init__(self, process: start.Process) -> None:
        self._process = process
        self._descriptor = -1
        with contextlib.suppress(OSError, AttributeError):  # Linux before 5.3, and other systems
            self._descriptor = os.pidfd_open(process.pid)
            self._readable = select.poll()
            self._readable.register(self._descriptor, select.POLLIN)

    @interrupts.interruptible
    def within(self, seconds: float | None) -> bool:
        """Wait at most so many seconds; whether it has ended."""
        if self._descriptor >= 0:
            return bool(self._readable.poll(None if seconds is None else 1e3 * seconds + 1))
        return self._process.wait(seconds)

    def close(self) -> None:
        """Release the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _end(process: start.Process) -> None:
    """End what is left of a command: all of it, or what it has left behind in its group."""
    if process.poll() is not None:
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
    guard.end_groups({process.pid})
    # One that hangs in the kernel is left behind.
    process.wait(KILL_SECONDS)


def _memory_of(group: int) -> int:
    """The private memory of the processes of a group, in bytes."""
    return sum(private_memory(pid) for pid, _, of in guard.processes() if of == group)


def _read(descriptor: int, name: str, number: int, place: Where) -> bytes | Spooled:
    """The output in a file: small output itself, else where rank 0 finds it."""
    size = os.fstat(descriptor).st_size
    if not size:
        return b""
    if size <= INLINE or not (place.folder or place.spool):
        return _all_bytes(descriptor, size)
    host = socket.gethostname()
    if place.folder:
        return Spooled(os.path.abspath(os.path.join(place.folder, name)), host, size, True)
    os.makedirs(place.spool, mode=0o700, exist_ok=True)
    path = os.path.join(place.spool, f"{number}.{name}")
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file, open(path, "wb") as copy:
        shutil.copyfileobj(file, copy, INLINE)
    return Spooled(path, host, os.path.getsize(path), place.keep)


def _all_bytes(descriptor: int, size: int) -> bytes:
    """The bytes of a file; a read may bring fewer than were asked for, above all of 2 GiB and more."""
    if size <= INLINE:
        return os.pread(descriptor, size, 0)
    parts = []
    done = 0
    while done < size and (part := os.pread(descriptor, size - done, done)):
        parts.append(part)
        done += len(part)
    return b"".join(parts)
