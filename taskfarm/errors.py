"""Every error of taskfarm; each name says who is to blame: the task, a worker, the caller, the launch."""

from concurrent.futures import BrokenExecutor
from pickle import PicklingError, UnpicklingError


class TaskFarmError(Exception):
    """Base of every error that taskfarm raises by itself."""


class TaskError(TaskFarmError):
    """The task is to blame; the farm goes on."""


class CallNotPicklable(TaskError, PicklingError):
    """The function or an argument could not be pickled on the master."""


class CallNotLoadable(TaskError, UnpicklingError):
    """The function or an argument could not be unpickled on the worker."""


class ResultNotPicklable(TaskError, PicklingError):
    """The task returned something that could not be pickled on the worker."""


class ResultNotLoadable(TaskError, UnpicklingError):
    """What the task returned could not be unpickled on the master."""


class TaskExited(TaskError):
    """The task raised SystemExit, KeyboardInterrupt or another exception that would end a program."""


class ExceptionNotPicklable(TaskError):
    """The task raised an exception that cannot travel; its type, text and traceback are in the message."""


class TaskTimeout(TaskError, TimeoutError):
    """The task passed its limit of time; its process was ended."""


class TaskMemory(TaskError, MemoryError):
    """The task passed its limit of memory; its process was ended."""


class TaskCrashed(TaskError):
    """The task ended the child process that ran it: by a signal, or by ``os._exit``."""


class TaskKilledWorkers(TaskError):
    """Several workers died while they ran the task, so it is not tried again."""


class RemoteTraceback(Exception):
    """The traceback of a task as text: the ``__cause__`` of the exception that the task raised.

    Attributes
    ----------
    tb : str
        The text; its name is that of the standard library.
    """

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return f"\n{self.tb}"


class WorkerError(TaskFarmError):
    """A worker is to blame."""


class WorkerLost(WorkerError):
    """No worker is left that could run the task."""


class MasterLost(TaskFarmError):
    """Rank 0 is gone, or cannot be reached; a worker ends then."""


class InitializerFailed(WorkerError, BrokenExecutor):
    """The farm's initializer raised on a worker; the farm takes no more tasks."""


class UsageError(TaskFarmError, RuntimeError):
    """The caller used taskfarm in a way that cannot work."""


class LaunchError(TaskFarmError):
    """The program was started in a way that cannot work; the command line exits with 2."""


class JournalError(TaskFarmError):
    """The journal cannot be read or written; the command line exits with 2, if work has not begun."""
