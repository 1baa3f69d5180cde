"""A process that ends a run whose rank 0 cannot: run as a file, it loads nothing of taskfarm.

Code of C that holds Python's interpreter lock keeps every thread of rank 0 from running, the one that
reads arriving signals, too. This process shares that thread's socket, and looks whether a signal remains
unread. It ends when rank 0 has ended: the socket is closed then.
"""

import _socket
import contextlib
import os
import select
import signal
import sys
import time

UNREAD_SECONDS = 1.0
"""Seconds after which a signal counts as unread."""

CHECK_INTERVAL = 0.5
"""Seconds between two looks whether the signal has been read after all."""

MPIEXEC_SECONDS = 3.0
"""Seconds that the launcher gets to end after rank 0 was killed, and again after SIGTERM."""

MAX_SLEEP = 86400.0
"""Longest sleep, in seconds."""

ENDING = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that end a run."""


def start_of(pid: int) -> str:
    """When a process started, which tells it from a later one with the same id; empty if it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


class Guard:
    """Watches one rank 0.

    Parameters
    ----------
    descriptor : int
        The socket on which the numbers of signals arrive.
    pid, launcher : int
        The processes of rank 0 and of what started it; 0 if that must not be ended.
    limit : float
        Seconds that rank 0 gets after a signal.
    walltime : float
        Seconds from now after which rank 0 must have ended.
    """

    def __init__(self, descriptor: int, pid: int, launcher: int, limit: float, walltime: float) -> None:
        self._arrived = _socket.socket(fileno=descriptor)
        self._rank_0 = (pid, start_of(pid))
        self._launcher = (launcher, start_of(launcher))
        self._limit = limit
        self._deadline = time.monotonic() + walltime

    def watch(self) -> None:
        """Wait until rank 0 ends, or has to be ended."""
        poll = select.poll()
        poll.register(self._arrived.fileno(), select.POLLIN)
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._end("the walltime")
                return
            if not poll.poll(min(left, MAX_SLEEP) * 1000):
                continue
            time.sleep(UNREAD_SECONDS)
            numbers = self._unread()
            if numbers == b"" or self._is_gone(self._rank_0):
                return
            for number in ENDING:
                if numbers and number in numbers and not self._read_in_time():
                    self._end(number.name)
                    return

    def _is_gone(self, process: tuple[int, str]) -> bool:
        """Whether a process has ended."""
        pid, started = process
        return not started or start_of(pid) != started

    def _unread(self) -> bytes | None:
        """The numbers of unread signals; None if there are none, empty if rank 0 has ended."""
        try:
            return self._arrived.recv(64, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _read_in_time(self) -> bool:
        deadline = min(self._deadline, time.monotonic() + self._limit)
        while self._unread() and not self._is_gone(self._rank_0):
            if time.monotonic() > deadline:
                return False
            time.sleep(CHECK_INTERVAL)
        return True

    def _end(self, why: str) -> None:
        line = f"taskfarm: {why}: the job holds the interpreter in code of C, so all ranks end by force\n"
        pid = self._rank_0[0]
        with contextlib.suppress(OSError), open(f"/proc/{pid}/fd/2", "a") as stderr:
            stderr.write(line)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGKILL):
            time.sleep(MPIEXEC_SECONDS)
            if self._is_gone(self._launcher):
                return
            with contextlib.suppress(OSError):
                os.kill(self._launcher[0], number)


if __name__ == "__main__":
    Guard(*map(int, sys.argv[1:4]), *map(float, sys.argv[4:])).watch()
