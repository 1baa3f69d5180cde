"""The child process of a worker, as the worker sees it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from taskfarm.environment import PACKAGE, forget_launcher, private_memory
from taskfarm.protocol import messages
from taskfarm.protocol.messages import ASKED_BY_CHILD, Asked, Limits, Message, OutputLine, Parcel
from taskfarm.shadowing import folders_set_aside
from taskfarm.transport.segments import memory_file
from taskfarm.worker.channel import Channel, ChannelBroken
from taskfarm.worker.context import RUN, Place
from taskfarm.worker.group_guard import guard_group
from taskfarm.worker.output_capture import SendOutput

MEMORY_INTERVAL, ALIVE_INTERVAL = 20e-3, 0.25
"""Seconds between two looks at a busy child: at its memory, and at whether it is alive."""

EXIT_SECONDS = 1.0
"""Seconds that a child gets to end by itself."""

STACK_SECONDS = 0.1
"""Seconds that a child gets to write its stack."""

# The package is imported from the same place as here, but a job's random.py must not replace Python's own.
_START = (
    "import sys; path = {path!r}; sys.path[:] = [*filter(None, sys.path), *path]; "
    "from taskfarm.shadowing import set_aside; from taskfarm.worker.child_main import main; "
    "sys.path[:] = path; "
    "[set_aside(folder, ('taskfarm.protocol', 'taskfarm.worker')) for folder in {folders!r}]; "
    "main(sys.argv[1:])"
)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: a task that imports mpi4py there is alone in its MPI."""
    changed = dict(environ)
    forget_launcher(changed)
    return changed


def _decoded(parcel: Parcel) -> Message:
    try:
        return messages.decode(parcel)
    except Exception as error:
        raise ChannelBroken(f"a message cannot be decoded: {error}") from error


class LimitExceeded(NamedTuple):
    """The time limit that a call has passed, or else the memory it held, in bytes."""

    timeout: float | None
    memory: int


class ChildProcess:
    """A child process.

    Parameters
    ----------
    place : Place
        Where it runs.
    captures_output : bool
        Whether it sends what tasks print and log.

    Attributes
    ----------
    channel : Channel
        The connection to it.
    farms : set of int
        The farms for which it is prepared.
    tasks : int
        Number of tasks that it has run.
    functions : set of int
        The functions that it has.
    definitions : set of int
        The definitions that it has.
    path : list of str
        Where it looks for modules.
    """

    def __init__(self, place: Place, captures_output: bool) -> None:
        self.farms: set[int] = set()
        self.tasks = 0
        self.functions: set[int] = set()
        self.definitions: set[int] = set()
        self.path = [entry for entry in sys.path if isinstance(entry, str)]
        self._report = memory_file()
        self._report_start = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self.channel, other = Channel.pair()
        inherited = (self._report, *other.descriptors)
        code = _START.format(path=self.path, folders=folders_set_aside())
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-c", code, str(os.getpid())]
        command += [str(place.rank), place.host, str(int(captures_output)), str(RUN.ends)]
        try:
            self._process = subprocess.Popen(
                [*command, *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                env=child_environment(os.environ),
                process_group=0,
            )
            self._guard = guard_group(self.group)
        except BaseException:
            self.close()
            raise
        finally:
            other.close()

    @property
    def group(self) -> int:
        """Id of the group of the process and of what it has started."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def memory(self) -> int:
        """Private memory of the process, in bytes; 0 if the system does not tell."""
        return private_memory(self._process.pid)

    def wait(
        self,
        limits: Limits,
        send_output: SendOutput | None = None,
        answer: Callable[[Asked], None] | None = None,
    ) -> Message | LimitExceeded:
        """Wait for the child's answer, or until it passes a limit; its output goes to `send_output`.

        What its task asks goes to `answer`. The time that this takes does not count.

        Raises
        ------
        ChannelBroken
            The process has ended, or has sent something other than a parcel.
        """
        timeout, memory, _ = limits
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seconds = ALIVE_INTERVAL if memory is None else MEMORY_INTERVAL
            if deadline is not None:
                seconds = min(seconds, max(0.0, deadline - time.monotonic()))
            gone = self.ended
            if (parcel := self.channel.receive(0.0 if gone else seconds)) is not None:
                message = _decoded(parcel)
                if isinstance(message, OutputLine):
                    if send_output is not None:
                        send_output(message)
                elif answer is not None and isinstance(message, ASKED_BY_CHILD):
                    asked = time.monotonic()
                    answer(message)
                    deadline = deadline and deadline + time.monotonic() - asked
                else:
                    return message
                continue
            if gone:
                # A process forked from it may hold the connection open.
                raise ChannelBroken("the process has ended")
            if deadline is not None and time.monotonic() >= deadline:
                return LimitExceeded(timeout, 0)
            if memory is not None and (held := self.memory()) > memory:
                return LimitExceeded(None, held)

    def wait_for_end(self, seconds: float) -> None:
        """Wait at most `seconds` for the process to end."""
        ending = time.monotonic() + seconds
        while not self.ended and time.monotonic() < ending:
            time.sleep(1e-3)

    def dump_stack(self) -> None:
        """Let the process write its stack to its report."""
        self._report_start = size = os.fstat(self._report).st_size
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGQUIT)
        ending = time.monotonic() + STACK_SECONDS
        while time.monotonic() < ending:
            time.sleep(5e-3)
            before, size = size, os.fstat(self._report).st_size
            if size > self._report_start and size == before:
                return

    def crash_report(self) -> str:
        """The stack of the process when it crashed, or was asked, without taskfarm's own frames."""
        text = os.pread(self._report, 1 << 16, self._report_start).decode(errors="replace")
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if PACKAGE not in line and '"<string>"' not in line)

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, seconds: float = 0.0) -> int | None:
        """Wait at most `seconds` for the process to end; then kill it and everything that it started.

        Returns
        -------
        int or None
            Its exit code, as in `subprocess.Popen.returncode`; None if it was ended by force.
        """
        self.wait_for_end(seconds)
        code = self._process.returncode
        self.kill()
        # One that hangs in the kernel is left behind.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        return code

    def close(self) -> None:
        """Release the descriptors of a process that has ended."""
        self.channel.close()
        os.close(self._report)
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
