"""Says which tasks on several ranks were running when somebody else has ended rank 0.

Most MPIs end all ranks when one dies: MPICH within milliseconds, and by a signal that cannot be handled. So
rank 0 keeps its last words in a file in memory, and a process that outlives it prints them.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence

from taskfarm.fork_hooks import close_in_forked_children
from taskfarm.worker.group_guard import lifeline

# Whoever has a rank's standard error as its own counts as left behind by a task.
_WAIT_AND_PRINT = 'exec 3>&2 2>/dev/null; read _; cat "/dev/fd/$1" >&3'


class LastGangs:
    """What is printed if this process is gone while tasks on several ranks run.

    Parameters
    ----------
    journal : bool
        Whether the run keeps a journal.
    """

    def __init__(self, journal: bool) -> None:
        self._advice = (
            "the journal has what was done before: go on with --resume"
            if journal
            else "with --journal the next run would go on from there"
        )
        self._file: int | None = None
        self._pid = os.getpid()

    def note(self, running: Sequence[str]) -> None:
        """Note which tasks run, in words such as ``task 7 solve on ranks 1, 2``."""
        if self._file is None:
            self._file = self._start()
        if self._file < 0 or os.getpid() != self._pid:
            return
        text = b""
        if running:
            line = (
                f"taskfarm: this run ended during {'; '.join(running)}: "
                f"if nobody else has ended it, one of these ranks has died; {self._advice}\n"
            )
            text = line.encode(errors="backslashreplace")
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def clear(self) -> None:
        """Print nothing at the end of this process."""
        if self._file is not None:
            self.note(())

    @staticmethod
    def _start() -> int:
        """Start the process that prints; returns the file, or -1 if no process can be started."""
        try:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
            subprocess.Popen(
                ["/bin/sh", "-c", _WAIT_AND_PRINT, "sh", str(descriptor)],
                stdin=lifeline(),
                stdout=subprocess.DEVNULL,
                pass_fds=[descriptor],
                # What ends the processes of this one's session or group must not end it first.
                start_new_session=True,
            )
        except OSError:
            return -1
        close_in_forked_children([descriptor])
        return descriptor
