"""Ends a process although tasks have left threads, processes or exit functions behind."""

import contextlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable

from taskfarm.environment import process_stat

LEFT_SECONDS = 5.0
"""Seconds that what tasks have left behind gets to end, once the work is done."""

TERMINATE_SECONDS = 1.0
"""Seconds that a process gets to end after SIGTERM."""


MAX_NAME = 120
"""Characters of a command that are shown."""


class EndWatchdog(threading.Thread):
    """Ends this process if it does not end by itself: Python waits forever for threads and exit functions.

    Parameters
    ----------
    where : str
        This process, for the line that says what was left.
    end : callable
        Ends this process from another thread than the main one.
    """

    def __init__(self, where: str, end: Callable[[], object]) -> None:
        super().__init__(name="taskfarm end", daemon=True)
        self._where = where
        self._end = end
        self._ended = threading.Event()

    def cancel(self) -> None:
        """Note that the main thread has come through."""
        self._ended.set()

    def run(self) -> None:
        """Wait; then say what is left, end it as far as possible, and end this process."""
        if self._ended.wait(LEFT_SECONDS):
            return
        found = holders_of_output() | processes_of_multiprocessing()
        words = [f"thread {name}" for name in left_threads()] + _words(found)
        report(self._where, words or [_stuck_function()])
        end_processes(found)
        # The main thread may have waited only for one of these processes.
        if found and not left_threads():
            if self._ended.wait(TERMINATE_SECONDS):
                return
            report(self._where, [_stuck_function()])
        self._end()


def report(where: str, left: Iterable[str]) -> None:
    """Say on standard error what tasks have left behind."""
    line = f"taskfarm: {where}: ended what tasks have left behind: {', '.join(left)}\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode(errors="replace"))


def left_threads() -> list[str]:
    """Names of the threads for which Python would wait."""
    return [thread.name for thread in _others() if not thread.daemon]


def other_threads() -> bool:
    """Whether there are threads but the main one, this one and our own: they may hold the streams."""
    return any(not thread.name.startswith("taskfarm") for thread in _others())


def _others() -> list[threading.Thread]:
    """The threads of this process, without the main one and this one."""
    known = (threading.main_thread(), threading.current_thread())
    return [thread for thread in threading.enumerate() if thread not in known]


def _stuck_function() -> str:
    """The function that the main thread runs, probably registered with atexit."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "an exit function"
    while frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    return f"exit function {code.co_name} ({code.co_filename}:{frame.f_lineno})"


# Processes


def processes_of_multiprocessing() -> dict[int, str]:
    """The living children that multiprocessing knows, and waits for; their names by their ids."""
    module = sys.modules.get("multiprocessing")
    if module is None:
        return {}
    return {child.pid: child.name for child in module.active_children() if child.pid is not None}


def holders_of_output() -> dict[int, str]:
    """Other processes that hold this rank's output open, so that its launcher would wait for them.

    Returns
    -------
    dict of int to str
        Their names by their ids; none if the output does not belong to this rank alone.
    """
    mine = {}
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor):
                mine[descriptor] = os.readlink(f"/proc/self/fd/{descriptor}")
    links = {link for link in mine.values() if link not in _output_of(os.getppid())}
    if not links:
        return {}
    found = {}
    with contextlib.suppress(OSError):
        launcher, started = _parent_and_start(os.getpid())
        for pid in _pids() - {os.getpid()}:
            if links.intersection(_output_of(pid)):
                with contextlib.suppress(OSError):
                    parent, later = _parent_and_start(pid)
                    # The other ranks are children of the launcher.
                    if parent != launcher and later >= started and not _helps(name := _name(pid)):
                        found[pid] = name
    return found


def report_group(where: str, group: int) -> None:
    """Say which processes of a group are alive, before the group is ended."""
    found = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            state, _, process_group = process_stat(pid)[1][:3]
            if int(process_group) == group and state not in ("Z", "X") and not _helps(_name(pid)):
                found[pid] = _name(pid)
    if found:
        report(where, _words(found))


def _pids() -> set[int]:
    with contextlib.suppress(OSError):
        return {int(entry) for entry in os.listdir("/proc") if entry.isdecimal()}
    return set()


def _output_of(pid: int) -> set[str]:
    """What a process has as its standard output and error."""
    links = set()
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            links.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return links


def _parent_and_start(pid: int) -> tuple[int, int]:
    """The parent of a process, and when the process started, in clock ticks."""
    fields = process_stat(pid)[1]
    return int(fields[1]), int(fields[19])


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().decode(errors="replace").split("\0")
        return " ".join(filter(None, words))[:MAX_NAME]
    return "?"


def _helps(name: str) -> bool:
    """Whether a process is one of multiprocessing's or loky's own, which ends with those that use it."""
    return "resource_tracker" in name or "forkserver" in name


def _words(processes: dict[int, str]) -> list[str]:
    return [f"process {pid} ({name})" for pid, name in processes.items()]


def end_processes(processes: Iterable[int]) -> None:
    """End processes: by SIGTERM, and by SIGKILL those that are alive a second later."""
    left = set(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        ending = time.monotonic() + TERMINATE_SECONDS
        while (left := {pid for pid in left if _alive(pid)}) and time.monotonic() < ending:
            time.sleep(5e-3)


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return process_stat(pid)[1][0] not in ("Z", "X")
    return False


def end_holders_of_output(where: str) -> None:
    """End the processes for which the launcher of this rank would wait, and say which."""
    if found := holders_of_output():
        report(where, _words(found))
        end_processes(found)
