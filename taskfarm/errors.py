"""Every error of taskfarm; its class identifies the cause: the task, a worker, the caller or the launch."""

from concurrent.futures import BrokenExecutor
from pickle import PicklingError, UnpicklingError


class TaskFarmError(Exception):
    """Base class of every error that taskfarm itself raises."""


class TaskError(TaskFarmError):
    """The task is the cause; the farm continues."""


class CallNotPicklable(TaskError, PicklingError):
    """The function or an argument could not be pickled on the master."""


class CallNotLoadable(TaskError, UnpicklingError):
    """The function or an argument could not be unpickled on the worker."""


class ResultNotPicklable(TaskError, PicklingError):
    """The return value of the task could not be pickled on the worker."""


class ResultNotLoadable(TaskError, UnpicklingError):
    """The return value of the task could not be unpickled on the master."""


class TaskExited(TaskError):
    """The task raised SystemExit, KeyboardInterrupt or another exception that would end a program."""


class ExceptionNotPicklable(TaskError):
    """The task raised an exception that cannot be pickled; the message has its type, text and traceback."""


class TaskTimeout(TaskError, TimeoutError):
    """The task exceeded its time limit; its process was killed."""


class TaskMemory(TaskError, MemoryError):
    """The task exceeded its memory limit; its process was killed."""


class TaskCrashed(TaskError):
    """The child process that ran the task ended, by a signal or by ``os._exit``."""


class TaskKilledWorkers(TaskError):
    """Several workers died while they ran the task, so it is not retried."""


class RemoteTraceback(Exception):
    """The traceback of a task as text: the ``__cause__`` of the exception that the task raised.

    Attributes
    ----------
    tb : str
        The text of the traceback. The standard library uses the same attribute name.
    summary : str
        Type and text of the exception on one line, as its worker has formatted them.
    """

    def __init__(self, tb: str, summary: str = "") -> None:
        super().__init__(tb)
        self.tb = tb
        self.summary = summary

    def __str__(self) -> str:
        return f"\n{self.tb}"


class WorkerError(TaskFarmError):
    """A worker is the cause."""


class WorkerLost(WorkerError):
    """No worker is left to run the task."""


class MasterLost(TaskFarmError):
    """Rank 0 has died or cannot be reached, so the worker exits."""


class InitializerFailed(WorkerError, BrokenExecutor):
    """The farm's initializer raised an exception on a worker; the farm accepts no more tasks."""


class UsageError(TaskFarmError, RuntimeError):
    """The caller used taskfarm in a way that cannot work."""


class LaunchError(TaskFarmError):
    """The program was launched in a way that cannot work; the command line exits with code 2."""


class JournalError(TaskFarmError):
    """The journal cannot be read or written; the command line exits with code 2 if work has not begun."""
