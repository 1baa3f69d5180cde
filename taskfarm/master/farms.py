"""A farm as the master knows it: what its workers prepare, and whether it takes tasks."""

from collections.abc import Iterator

from taskfarm.environment import current_folder
from taskfarm.errors import TaskFarmError, UsageError
from taskfarm.protocol.functions import FunctionTable
from taskfarm.protocol.messages import Blob
from taskfarm.protocol.shared import alive, tokens_in
from taskfarm.schedule.farm_queue import FarmQueue


class OpenFarm:
    """One of the farms that share the workers; it lasts until it is closed and all its tasks have ended.

    Parameters
    ----------
    tasks : FarmQueue
        Its tasks in the scheduler.
    functions : FunctionTable
        The functions that its tasks call.
    initializer : Blob or None
        The initializer and its arguments.
    seed : int
        The seed of `taskfarm.rng` in its tasks.
    submit_numbers, map_streams : iterator of int
        Number the random streams of its submits and of its maps.

    Attributes
    ----------
    folder : str
        Where its tasks run: the job's current folder when it was opened.
    accepting : bool
        Whether it takes tasks.
    error : TaskFarmError or None
        Why no task of it can run any more.
    """

    def __init__(
        self,
        tasks: FarmQueue,
        functions: FunctionTable,
        initializer: Blob | None,
        seed: int,
        submit_numbers: Iterator[int],
        map_streams: Iterator[int],
    ) -> None:
        self.id = tasks.id
        self.tasks = tasks
        self.functions = functions
        self.initializer = initializer
        self.seed = seed
        self.submit_numbers = submit_numbers
        self.map_streams = map_streams
        self.folder = current_folder()
        self.accepting = True
        self.error: TaskFarmError | None = None
        # Workers that start late get them, too.
        self._handles = [] if initializer is None else alive(tokens_in(initializer))

    @property
    def isolates(self) -> bool:
        """Whether the initializer, and tasks that do not say otherwise, run in child processes."""
        return self.functions.defaults.isolate

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for tasks that have not ended."""
        return self.tasks.unfinished > 0 and not self.tasks.abandoned

    @property
    def has_ended(self) -> bool:
        """Whether it is closed and all its tasks have ended."""
        return not (self.accepting or self.tasks.unfinished)

    def check_usable(self) -> None:
        """Raise the reason for which no task can be queued, if there is one."""
        if not self.accepting:
            raise UsageError("cannot schedule new futures after shutdown")
        if self.error is not None:
            raise type(self.error)(*self.error.args)

    def check_unbroken(self) -> None:
        """Raise the reason for which no task can run, if there is one."""
        if self.error is not None:
            raise type(self.error)(*self.error.args)
