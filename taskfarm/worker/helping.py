"""What a worker does while one of its tasks waits: it runs what this task, or one of those, submitted."""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from taskfarm import interrupts
from taskfarm.protocol import messages
from taskfarm.protocol.messages import (
    Await,
    GoOn,
    Parcel,
    Part,
    Returned,
    Settled,
    Stop,
    ToMaster,
    Withdrawn,
    Work,
)
from taskfarm.worker.spawning import Spawner, Upstream

if TYPE_CHECKING:
    from taskfarm.worker.worker import Worker

FRAMES = 1000
"""Python frames that a task may need; the limit of recursion grows by so many for each task that waits."""

_STOP = messages.TAGS[Stop]

NO_TASK = -2
"""In the place of a task that waits: its worker runs nothing meanwhile."""


class Taker(Protocol):
    """Takes what arrives for a task that waits.

    Attributes
    ----------
    arrived : bool
        Whether anything has arrived for the task that waits.
    """

    @property
    def arrived(self) -> bool: ...  # see above

    def settle(self) -> None:
        """Look at what has arrived, while the task can go on."""

    def has(self, number: int) -> bool:
        """Whether the task has submitted the call with this number."""

    def take(self, message: Settled | Withdrawn) -> None:
        """Take a message."""


class _Wait:
    """One task that waits.

    Attributes
    ----------
    task : int
        The task.
    taker : Taker
        Takes what arrives for it.
    asked : bool
        Whether rank 0 will send a descendant of the task when there is one.
    """

    __slots__ = ("asked", "taker", "task")

    def __init__(self, task: int, taker: Taker) -> None:
        self.task, self.taker = task, taker
        self.asked = task == NO_TASK


class Helper(Upstream):
    """Lets the tasks of a worker wait.

    While a task waits, its worker asks rank 0 for descendants of the task and runs them, one batch after
    the other. It returns all other work at once: that may have to run before the wait can end.

    Parameters
    ----------
    worker : Worker
        The worker.
    """

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._waits: list[_Wait] = []
        self.num_workers = worker.num_workers

    @property
    def depth(self) -> int:  # type: ignore[override]
        """Tasks that wait inside each other on this worker."""
        return len(self._waits)

    def send(self, message: ToMaster) -> None:
        """Send a message to rank 0."""
        self._worker.send(message)

    def wait(
        self,
        spawner: Spawner,
        done: Callable[[], bool],
        deadline: float | None,
        wanted: list[tuple[int, int]],
    ) -> bool:
        """Run descendants of the task that waits until `done()`; False if the deadline passes first."""
        context = spawner.context
        assert context.part is not None
        return self.wait_for(context.task, context.part.function, spawner, done, deadline, wanted)

    def ask(self, spawner: Spawner, done: Callable[[], bool]) -> None:
        """Wait for an answer of rank 0, and run nothing."""
        self.wait_for(NO_TASK, 0, spawner, done, None, [])

    def wait_for_answer(self, taker: Taker) -> None:
        """Wait until anything has arrived, and run nothing."""
        self.wait_for(NO_TASK, 0, taker, lambda: taker.arrived, None, [])

    def wait_for(
        self,
        task: int,
        function: int,
        taker: Taker,
        done: Callable[[], bool],
        deadline: float | None,
        wanted: list[tuple[int, int]],
    ) -> bool:
        """Run descendants of a task until `done()`; False if the deadline passes first.

        Parameters
        ----------
        task, function : int
            The task, and its function; `NO_TASK` runs nothing.
        taker : Taker
            Takes what arrives for the task.
        done, deadline, wanted
            As for `Upstream.wait`.
        """
        worker = self._worker
        wait = _Wait(task, taker)
        self._waits.append(wait)
        released: list[tuple[int, int]] = []
        try:
            while not done():
                # Before the batch of this task is set aside.
                released += self._release(task)
                with worker.runner.nesting.suspended(), _deeper_stack():
                    since = time.perf_counter()
                    while not (taker.arrived or done()):
                        interrupts.raise_pending()
                        if not wait.asked or wanted or released:
                            wait.asked = True
                            self.send(Await(task, function, wanted, released))
                            wanted, released = [], []
                        if worker.must_end:
                            raise CancelledError("the run ends before what this task waits for is done")
                        parcel = worker.next_while_waiting(time.perf_counter() - since)
                        if parcel is not None:
                            since = time.perf_counter()
                            self.handle(parcel)
                        if deadline is not None and time.monotonic() >= deadline:
                            break
                taker.settle()
                if deadline is not None and time.monotonic() >= deadline:
                    return done()
            return True
        finally:
            self._waits.pop()
            if released:
                # They must not be lost, whatever has ended the wait.
                self.send(Returned(released, None))
            if wait.asked and task != NO_TASK:
                self.send(GoOn())

    def handle(self, parcel: Parcel) -> None:
        """Handle a message while a task waits."""
        worker = self._worker
        if parcel.tag == _STOP:
            worker.must_end = True
            worker.put_back(parcel)
            return
        message = messages.decode(parcel)
        match message:
            case Settled() | Withdrawn():
                self._give(message)
            case Work(parts, levels, helps):
                wait = self._waits[-1]
                if helps == wait.task:
                    wait.asked = False
                    worker.handle_message(message)
                else:
                    self.returned(helps)
                    worker.runner.follow_levels(levels)
                    self.send(Returned(_ids(parts), None))
            case _:
                worker.handle_message(message)

    def returned(self, task: int) -> None:
        """Note that descendants of a task were returned unrun: if it waits, it asks for others."""
        for wait in self._waits:
            if wait.task == task:
                wait.asked = False

    def _give(self, message: Settled | Withdrawn) -> None:
        if isinstance(message, Withdrawn):
            self._waits[-1].taker.take(message)
            return
        for wait in reversed(self._waits):
            if wait.taker.has(message.first):
                wait.taker.take(message)
                return

    def _release(self, task: int) -> list[tuple[int, int]]:
        """What has to leave this worker, since it would wait behind a task that waits itself."""
        worker = self._worker
        # Who waits for an answer of rank 0 only goes on soon.
        released = [] if task == NO_TASK else worker.runner.release_behind()
        for parcel in worker.take_work():
            work = Work(*messages.decode(parcel))
            if work.helps == task:
                worker.put_back(parcel)
            else:
                worker.runner.follow_levels(work.levels)
                released += _ids(work.parts)
        return released


def _ids(parts: list[Part]) -> list[tuple[int, int]]:
    return [(part.first, part.count) for part in parts]


@contextmanager
def _deeper_stack() -> Iterator[None]:
    """A context in which tasks have as much room on the stack as the one that waits had."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + FRAMES)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
