"""Ends a group of processes when this process is gone, however it died."""

import os
import subprocess
from functools import lru_cache

from taskfarm.fork_hooks import close_in_forked_children

_WAIT_AND_KILL = 'read _; kill -KILL -"$1"'


def lifeline() -> int:
    """The reading end of a pipe whose other end only this process has: it closes with this process."""
    return _lifeline_of(os.getpid())


@lru_cache(1)
def _lifeline_of(_: int) -> int:
    reading, writing = os.pipe()
    close_in_forked_children([writing])
    return reading


def guard_group(group: int) -> "subprocess.Popen[bytes]":
    """Start what kills a process group once this process is gone; end it when the group has ended.

    Raises
    ------
    OSError
        No process can be started.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _WAIT_AND_KILL, "sh", str(group)],
        stdin=lifeline(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # What ends the processes of this one's session or group must not end it first.
        start_new_session=True,
    )
