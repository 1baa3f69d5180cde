"""What a program shows on a terminal."""

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pyte


def shown(
    words: Sequence[str], folder: Path, seconds: float, rows: int = 30, columns: int = 110
) -> tuple[int | None, list[str]]:
    """Run a program on a terminal of its own, for at most `seconds`.

    Returns
    -------
    code : int or None
        Its exit code; None if it had not ended, and was interrupted.
    lines : list of str
        What was on the screen then, without empty lines.
    """
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (rows, columns))
    environ = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    environ["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
    process = subprocess.Popen(words, cwd=folder, env=environ, stdin=its, stdout=its, stderr=its)
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    deadline = time.monotonic() + seconds
    code = None
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                stream.feed(os.read(ours, 1 << 16))
            elif (code := process.poll()) is not None:
                break
        lines = [line.rstrip() for line in screen.display]
        if code is None:
            _end(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(its)
        os.close(ours)
    return code, [line for line in lines if line]


def _end(process: "subprocess.Popen[bytes]", terminal: int) -> None:
    """Interrupt a program, and read on so that it can say so."""
    process.terminate()
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 1 << 16)
