"""Tasks in a child process that submit tasks: what the child asks, and how its worker answers."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from taskfarm.errors import UsageError
from taskfarm.protocol import messages
from taskfarm.protocol.messages import (
    Await,
    Blob,
    DefineNames,
    Settled,
    Spawn,
    ToMaster,
    Withdraw,
    Withdrawn,
)
from taskfarm.worker.channel import Channel
from taskfarm.worker.spawning import Spawner, Upstream

if TYPE_CHECKING:
    from taskfarm.worker.helping import Helper
    from taskfarm.worker.nesting import Nesting
    from taskfarm.worker.runner import Runner

MAX_PROCESSES = 30
"""Tasks in child processes that may wait inside each other on one worker: each keeps its process."""


class UpstreamOfChild(Upstream):
    """The way from a task in a child process to its worker, which runs other tasks while this one waits."""

    def __init__(self, channel: Channel, runner: "Runner", send: Callable[[ToMaster], None]) -> None:
        self._channel = channel
        self._runner = runner
        self._send = send

    def send(self, message: ToMaster) -> None:
        """Send a message to the worker."""
        self._send(message)

    def wait(
        self,
        spawner: Spawner,
        done: Callable[[], bool],
        deadline: float | None,
        wanted: list[tuple[int, int]],
    ) -> bool:
        """Wait until `done()`; False if the deadline passes first."""
        part = spawner.context.part
        assert part is not None
        task = spawner.context.task
        while not done():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._runner.nesting.suspended():
                self.send(Await(task, part.function, wanted, [], left))
                answer = self._receive(spawner)
            if answer.error:
                raise UsageError(answer.error)
            wanted = []
            spawner.settle()
            if deadline is not None and time.monotonic() >= deadline:
                return done()
        return True

    def ask(self, spawner: Spawner, done: Callable[[], bool]) -> None:
        """Wait for an answer of rank 0."""
        spawner.take(self._receive(spawner))

    def _receive(self, spawner: Spawner) -> Withdrawn:
        """Take what arrives, up to the last answer."""
        while True:
            parcel = self._channel.receive()
            assert parcel is not None
            message = messages.decode(parcel)
            match message:
                case Settled():
                    spawner.take(message)
                case Withdrawn():
                    return message
                case _:
                    self._runner.prepare(message)  # type: ignore[arg-type]


class ChildTasks:
    """What the task of a child process has submitted, for its worker.

    Parameters
    ----------
    nesting : Nesting
        Lets tasks of the worker wait.
    """

    def __init__(self, nesting: "Nesting") -> None:
        self._nesting = nesting
        self._numbers: list[range] = []
        self._arrived: list[Settled | Withdrawn] = []

    def has(self, number: int) -> bool:
        """Whether the task has submitted the call with this number."""
        return any(number in numbers for numbers in self._numbers)

    def take(self, message: Settled | Withdrawn) -> None:
        """Keep what has arrived."""
        if isinstance(message, Settled):
            self._nesting.define(DefineNames(message.definitions))
        self._arrived.append(message)

    @property
    def arrived(self) -> bool:
        """Whether anything has arrived for the task."""
        return bool(self._arrived)

    def settle(self) -> None:
        """Do nothing: the child looks at what has arrived."""

    def answers(self, message: Spawn | Await | Withdraw) -> "Iterator[tuple[Any, tuple[int, ...]]]":
        """The answers to a message of the child, each with the definitions that it needs."""
        helper: Helper = self._nesting.upstream  # type: ignore[assignment]
        error = ""
        match message:
            case Spawn(_, _, first, count):
                self._numbers.append(range(first, first + count))
                helper.send(message)
                return
            case Withdraw():
                helper.send(message)
                helper.wait_for_answer(self)
            case Await(task, function, wanted, _, seconds):
                if len(self._nesting.spare) + helper.depth >= MAX_PROCESSES:
                    error = (
                        f"{MAX_PROCESSES} tasks wait inside each other on this worker, each in its own "
                        "process: return the future instead of its result(), and no worker has to wait"
                    )
                else:
                    deadline = None if seconds is None else time.monotonic() + seconds
                    helper.wait_for(task, function, self, lambda: self.arrived, deadline, wanted)
        arrived, self._arrived = self._arrived, []
        last = Withdrawn([], error)
        for one in arrived:
            if isinstance(one, Withdrawn):
                last = one
                continue
            blobs = [] if isinstance(one.values, bytes) else [b for b in one.values if isinstance(b, Blob)]
            yield one, tuple(dict.fromkeys(need for blob in blobs for need in blob.needs))
        yield last, ()
