"""Ctrl-C while a run starts. Loads next to nothing: it has to be there before anything else is."""

import os
import signal

from taskfarm.console import say
from taskfarm.environment import claimed_size
from taskfarm.launch.exit_codes import INTERRUPTED

INTERRUPTED_EARLY = "interrupted before the job started"


class EarlyInterrupt:
    """What Ctrl-C does until rank 0 has its own handlers.

    A process alone ends. A rank waits until MPI has started: under MPICH, the others would wait in
    ``MPI_Init`` for ever.

    Attributes
    ----------
    pending : bool
        Whether Ctrl-C came, and rank 0 has to end all ranks.
    """

    def __init__(self) -> None:
        self.pending = False

    def catch(self) -> None:
        """Handle Ctrl-C from now on."""
        signal.signal(signal.SIGINT, self._handle)
        # `run -n` may have blocked it for the time before this.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def release(self) -> None:
        """Let Ctrl-C be a KeyboardInterrupt again, for a command that runs no job."""
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, *_: object) -> None:
        self.pending = True
        if claimed_size(os.environ) is None:
            say(INTERRUPTED_EARLY)
            os._exit(INTERRUPTED)


early_interrupt = EarlyInterrupt()
