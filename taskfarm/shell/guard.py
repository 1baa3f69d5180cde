"""Ends the commands of a worker when the worker is gone, however it died. A process of its own.

It loads nothing of taskfarm: there is one beside each worker that runs commands.
"""

import contextlib
import os
import signal
import sys
import time

TERM_SECONDS = 5.0
"""Seconds that processes get to end after SIGTERM."""

TOKEN = "TASKFARM_COMMANDS"
"""The variable by which the processes of a worker's commands are known, also those in other groups."""


def end_groups(groups: set[int], seconds: float = TERM_SECONDS) -> None:
    """End process groups: by SIGTERM, and by SIGKILL what is alive after some seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        ending = time.monotonic() + seconds
        pause = 1e-3
        while (groups := {group for group in groups if _lives(group)}) and time.monotonic() < ending:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


def _lives(group: int) -> bool:
    """Whether a group has a process that has not ended; a zombie waits only for its parent."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(of == group and state not in ("Z", "X") for _, state, of in processes())


def processes() -> list[tuple[int, str, int]]:
    """Id, state and group of all processes."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
                state, _, group, *_ = file.read().rpartition(") ")[2].split()
                found.append((int(entry), state, int(group)))
    return found


def _groups_of(token: str) -> set[int]:
    """The groups of the processes that were started with this token in their environment."""
    wanted = f"{TOKEN}={token}".encode()
    groups = set()
    for pid, state, group in processes():
        if state not in ("Z", "X") and group != os.getpgrp():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    groups.add(group)
    return groups


def main() -> None:
    """Wait until the worker is gone; then end what is left of its commands, and what that starts."""
    os.read(0, 1)
    while groups := _groups_of(sys.argv[1]):
        end_groups(groups)


if __name__ == "__main__":
    main()
