"""One farm in the scheduler: its queue, the workers it may use, and what it has had of them. Pure."""

from collections.abc import Iterable

from taskfarm.schedule.batching import BATCH_SECONDS
from taskfarm.schedule.queue import TaskQueue
from taskfarm.schedule.spans import Span
from taskfarm.schedule.waiting import WaitingTasks


class FarmQueue:
    """The tasks of one farm.

    Farms are served by start-time fair queueing (P. Goyal, H. M. Vin and H. Cheng, IEEE/ACM Trans.
    Networking 5, 690 (1997)). So each farm that has tasks gets the same share of the workers' time,
    whatever the duration of its tasks, and saves up no time while it has no tasks or cannot use a worker.

    Parameters
    ----------
    id : int
        The farm.
    needs_ready : bool
        Whether a worker may run tasks of the farm only after `ready` has named it.
    max_workers : int or None
        Most workers that hold tasks of the farm at a time; None: all.

    Attributes
    ----------
    queue : TaskQueue
        The tasks that no worker holds, but for those of `late`.
    late : list of Span
        Tasks that would not end before the walltime, so that they do not start.
    waiting : WaitingTasks
        The tasks that need results which are missing yet.
    queued, assigned : int
        Number of tasks in the queue, and of those that workers hold.
    answered : int
        Number of tasks whose worker has answered, but whose outcomes are not known yet.
    is_unrestricted : bool
        Whether any worker may run its tasks.
    held : dict of int to int
        Number of tasks of this farm that each worker holds, by worker.
    draining : bool
        Whether no more of its tasks are assigned.
    abandoned : bool
        Whether nobody waits for its tasks: those that workers hold count as cancelled when they end.
    served : float
        Seconds of the workers' time that the farm has had, or was too late for.
    is_active : bool
        Whether it has had a worker since it last had no unfinished task.
    seconds_each : float
        Estimated seconds of a task of the batch that was assigned last.
    """

    __slots__ = (
        *(
            "abandoned",
            "answered",
            "assigned",
            "draining",
            "held",
            "id",
            "is_active",
            "is_unrestricted",
            "late",
            "max_workers",
        ),
        *("queue", "queued", "ready", "seconds_each", "served", "waiting"),
    )

    def __init__(self, id: int = 0, needs_ready: bool = False, max_workers: int | None = None) -> None:
        self.id = id
        self.queue = TaskQueue()
        self.late: list[Span] = []
        self.waiting = WaitingTasks()
        self.queued = self.assigned = self.answered = 0
        self.held: dict[int, int] = {}
        self.ready: set[int] | None = set() if needs_ready else None
        self.max_workers = max_workers
        self.is_unrestricted = not needs_ready and max_workers is None
        self.draining = self.abandoned = self.is_active = False
        self.served = 0.0
        self.seconds_each = BATCH_SECONDS

    @property
    def unfinished(self) -> int:
        """Number of tasks whose outcomes are not known."""
        return self.queued + self.assigned + self.answered + self.waiting.count

    def accepts(self, worker: int) -> bool:
        """Whether a worker may be sent tasks of this farm now."""
        if self.ready is not None and worker not in self.ready:
            return False
        return self.max_workers is None or worker in self.held or len(self.held) < self.max_workers

    def first_accepted(self, workers: Iterable[int]) -> int | None:
        """The first of some workers that may be sent tasks of this farm now."""
        return next(filter(self.accepts, workers), None)

    def num_workers(self, total: int) -> int:
        """How many of all workers can run tasks of this farm at a time."""
        if self.ready is not None:
            total = max(1, len(self.ready))
        return total if self.max_workers is None else min(total, self.max_workers)

    def start_tag(self, virtual_time: float) -> float:
        """The farm with the lowest tag is served next; the tasks that workers hold count by estimate."""
        served = self.served if self.is_active else max(self.served, virtual_time)
        return served + self.assigned * self.seconds_each

    def take_from(self, worker: int, count: int) -> None:
        """Record that a worker no longer holds `count` tasks."""
        self.assigned -= count
        if not (self.assigned or self.queued):
            self.is_active = False
        left = self.held.pop(worker) - count
        if left:
            self.held[worker] = left

    def give_to(self, worker: int, count: int, virtual_time: float) -> None:
        """Record that a worker holds `count` more tasks."""
        if not self.is_active:
            self.is_active = True
            self.served = max(self.served, virtual_time)
        self.assigned += count
        self.held[worker] = self.held.get(worker, 0) + count
