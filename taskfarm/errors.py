"""Every error of taskfarm; its class identifies the cause: the task, a worker, the caller or the launch."""

from concurrent.futures import BrokenExecutor, CancelledError
from functools import lru_cache
from pickle import PicklingError, UnpicklingError
from typing import Any, TypeVar


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


class CommandFailed(TaskError):
    """A shell command failed: its exit code was not 0, a signal ended it, or it passed a limit.

    Attributes
    ----------
    ended : object
        How it ended: `returncode`, `stdout` and `stderr` are taken from it.
    """

    def __init__(self, text: str, ended: Any = None) -> None:
        super().__init__(text, ended)
        self.ended = ended

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def returncode(self) -> int:
        """The exit code, or minus the number of the signal, as `subprocess` counts."""
        return -self.ended.signal if self.ended.signal else int(self.ended.code)

    @property
    def stdout(self) -> Any:
        """What the command wrote to its standard output."""
        return self.ended.stdout

    @property
    def stderr(self) -> Any:
        """What the command wrote to its standard error."""
        return self.ended.stderr


class TaskKilledWorkers(TaskError):
    """Several workers died while they ran the task, so it is not retried."""


class TaskTooLong(TaskError):
    """The task would take longer than the whole run may, so it was not started."""


class DependencyFailed(TaskError):
    """A task was not run, because one whose result it needs has failed; the ``__cause__`` is that failure.

    Parameters
    ----------
    text : str
        The message.
    call : str
        The task that was not run.
    before : DependencyFailed or tuple of str
        Why the task that it needs was not run; if that one has failed itself, its call alone.
    """

    def __init__(
        self, text: str, call: str = "", before: "DependencyFailed | tuple[str, ...]" = ()
    ) -> None:
        super().__init__(text)
        self._call, self._before = call, before
        self._root: str = before._root if isinstance(before, DependencyFailed) else (*before, "")[0]

    @property
    def root(self) -> str:
        """The call that has failed: the first one of the path."""
        return self._root

    @property
    def path(self) -> tuple[str, ...]:
        """The calls from the task that failed to the one that was not run, each of which needs the last."""
        calls: list[str] = []
        one: DependencyFailed | tuple[str, ...] = self
        while isinstance(one, DependencyFailed):
            calls.append(one._call)
            one = one._before
        return (*one, *reversed(calls))

    def __reduce__(self) -> tuple[Any, ...]:
        *before, call = self.path
        return type(self), (*self.args, call, tuple(before))


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


class ResultLost(WorkerError):
    """A kept result was lost with its worker, and could not be made again.

    Attributes
    ----------
    token : bytes
        Identifies it where a call that needs it cannot start.
    """

    token = b""


class MasterLost(TaskFarmError):
    """Rank 0 has died or cannot be reached, so the worker exits."""


class InitializerFailed(WorkerError, BrokenExecutor):
    """The farm's initializer raised an exception on a worker; the farm accepts no more tasks."""


class SharedDataError(TaskFarmError):
    """A task, or the job, needs data of `taskfarm.share` or `taskfarm.build` that it cannot get."""


class BuildFailed(SharedDataError):
    """The function of `taskfarm.build` raised an exception; each task that needs its result fails so."""


class HostMemoryError(SharedDataError, MemoryError):
    """A host has no room for shared data; the message has its name, what is needed and what is free."""


class UsageError(TaskFarmError, RuntimeError):
    """The caller used taskfarm in a way that cannot work."""


class LaunchError(TaskFarmError):
    """The program was launched in a way that cannot work; the command line exits with code 2."""


class JournalError(TaskFarmError):
    """The journal cannot be read or written; the command line exits with code 2 if work has not begun."""


E = TypeVar("E", bound=TaskFarmError)

_NEVER_MIXED_IN = (StopIteration, StopAsyncIteration, CancelledError)


def wrap(kind: type[E], original: BaseException, text: str) -> E:
    """Return an error of `kind` with a cause; ``except`` clauses for the type of that catch it, too.

    So code that was written for another executor, which raises the original, finds what it expects.
    """
    error: E = _mixed(kind, type(original), text)
    error.__cause__ = original
    return error


def unmixed(error: BaseException) -> BaseException | None:
    """Return the same error without the type of its original; None if `wrap` has not made it."""
    kind = getattr(type(error), "__taskfarm_kind__", None)
    return None if kind is None else kind(*error.args)


def _set_text(self: BaseException, text: str) -> None:
    """Initialize an error without the constructor of its original, which may take other arguments."""
    self.args = (text,)


def _mixed(kind: Any, other: Any, text: str) -> Any:
    try:
        return _mixed_class(kind, other)(text)
    except Exception:  # some classes cannot be bases together
        return kind(text)


@lru_cache(64)
def _mixed_class(kind: Any, other: Any) -> Any:
    if issubclass(kind, other) or not issubclass(other, Exception) or issubclass(other, _NEVER_MIXED_IN):
        return kind
    namespace: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__taskfarm_kind__": kind,
        "__init__": _set_text,
        "__str__": Exception.__str__,
        "__reduce__": lambda self: (_mixed, (kind, other, *self.args)),
    }
    return type(kind.__name__, (kind, other), namespace)
