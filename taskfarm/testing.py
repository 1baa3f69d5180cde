"""For tests: a farm in this process, over a fake transport, with faults and a virtual clock.

Every message is serialized, as over MPI. All ranks run in one thread, in an order that the seed fixes.
A run can therefore be repeated exactly, and never sleeps::

    from taskfarm import testing

    with testing.farm(workers=3, seed=7, faults=[testing.Dies(2, after=10)]) as farm:
        assert list(farm.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
"""

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from taskfarm import interrupts
from taskfarm.job.farm import Farm, open_on
from taskfarm.master.master import Master
from taskfarm.protocol.messages import Parcel
from taskfarm.schedule.offers import parse_offer
from taskfarm.schedule.resources import Resources
from taskfarm.simulation.simulator import Simulated, simulate
from taskfarm.simulation.virtual_worker import Costs
from taskfarm.transport.interface import Received, Transport
from taskfarm.transport.waiting import Clock
from taskfarm.worker.context import INLINE
from taskfarm.worker.local import WorkerEnd, copied
from taskfarm.worker.worker import Worker

__all__ = [
    "Aborted",
    "Costs",
    "Dies",
    "FakeTransport",
    "Fault",
    "Silent",
    "Simulated",
    "Slow",
    "Stuck",
    "VirtualClock",
    "farm",
    "simulate",
]


class Aborted(BaseException):
    """The farm aborted all ranks; under MPI, nothing would run after this."""


class VirtualClock(Clock):
    """A clock whose time passes only while a rank waits.

    Parameters
    ----------
    start : float
        Time at which the clock starts, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return the current time in seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance the clock by `seconds`, or by 1 us for 0, when a real clock would yield the core."""
        self._now += seconds or 1e-6

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`."""
        self._now += seconds


class Fault:
    """Base class of the faults of a worker; has no effect.

    Parameters
    ----------
    worker : int
        Rank of the worker.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker

    def dies(self, handled: int) -> bool:
        """Whether the worker is dead after `handled` messages."""
        return False

    def waits(self, others_can_go_on: bool) -> bool:
        """Whether the worker makes no progress now."""
        return False


class Dies(Fault):
    """The worker dies after it has handled `after` messages; unsent results are lost."""

    def __init__(self, worker: int, after: int) -> None:
        super().__init__(worker)
        self._after = after

    def dies(self, handled: int) -> bool:
        """Whether the worker has handled enough messages."""
        return handled >= self._after


class Slow(Fault):
    """The worker makes progress only when no other worker can."""

    def waits(self, others_can_go_on: bool) -> bool:
        """Whether another worker can make progress."""
        return others_can_go_on


class Stuck(Fault):
    """The worker never makes progress."""

    def waits(self, others_can_go_on: bool) -> bool:
        """Return True."""
        return True


class Silent(Fault):
    """The worker makes no progress while `silent` is true, but is not dead: it is suspended or unreachable.

    Attributes
    ----------
    silent : bool
        Whether the worker is silent now.
    """

    def __init__(self, worker: int) -> None:
        super().__init__(worker)
        self.silent = False

    def waits(self, others_can_go_on: bool) -> bool:
        """Whether the worker is silent now."""
        return self.silent


class _Died(BaseException):
    """Ends the task of a worker that has died while the task waited."""


class _FakeWorkerEnd(WorkerEnd):
    """The worker's end of the fake transport; a dead worker sends nothing."""

    def __init__(self, rank: int, arrived: deque[Received], worker: "_FakeWorker") -> None:
        super().__init__(rank, arrived)
        self._worker = worker
        self.run: Callable[[], bool] = lambda: False

    def send(self, dest: int, parcel: Parcel) -> None:
        if not self._worker.dead:
            super().send(dest, parcel)

    def run_master(self) -> bool:
        if self._worker.dead:
            raise _Died
        return self.run()


class _FakeWorker:
    """A worker of the fake transport, with its inbox and its faults."""

    def __init__(self, rank: int, arrived: deque[Received], faults: list[Fault]) -> None:
        self.inbox: deque[Parcel] = deque()
        self.dead = False
        self._handled = 0
        self._faults = faults
        self.end = _FakeWorkerEnd(rank, arrived, self)
        self._worker = Worker(self.end)
        self._worker.send_hello()

    def dies_now(self) -> bool:
        """Whether the worker has just died; True once."""
        if self.dead or not any(fault.dies(self._handled) for fault in self._faults):
            return False
        self.dead = True
        self.inbox.clear()
        self._worker.close()
        return True

    def ready(self) -> bool:
        return bool(self.inbox) and not self.dead

    def waits(self, others_can_go_on: bool) -> bool:
        return any(fault.waits(others_can_go_on) for fault in self._faults)

    def step(self) -> None:
        self._handled += 1
        # A real worker is another process, which an interruption of the job does not reach.
        with interrupts.shielded(), contextlib.suppress(_Died), INLINE:
            parcel = self.inbox.popleft()
            if self._worker.is_waiting:
                # Its task is further down the stack; what it waits for runs up here.
                self._worker.handle_meanwhile(parcel)
            else:
                self._worker.handle(parcel)
                self._worker.handle_kept()


class FakeTransport(Transport):
    """The master's end of a transport to workers in this process.

    Parameters
    ----------
    workers : int
        Number of workers.
    seed : int
        Random seed of the order in which workers make progress.
    faults : sequence of Fault
        Faults of the workers.
    """

    threads = False
    in_process = True

    def __init__(self, workers: int = 2, seed: int = 0, faults: Sequence[Fault] = ()) -> None:
        self.rank = 0
        self.size = workers + 1
        self._random = Random(seed)
        self._arrived: deque[Received] = deque()
        self._workers = {
            rank: _FakeWorker(rank, self._arrived, [fault for fault in faults if fault.worker == rank])
            for rank in range(1, self.size)
        }

    def run_meanwhile(self, run_master: Callable[[], bool]) -> None:
        """Let `run_master` run while a task waits."""
        for worker in self._workers.values():
            worker.end.run = run_master

    def send(self, dest: int, parcel: Parcel) -> None:
        """Append a parcel to a worker's inbox."""
        worker = self._workers[dest]
        if not worker.dead:
            worker.inbox.append(copied(parcel))

    def poll(self) -> Received | None:
        """Return the next parcel; if none has arrived, first let one worker handle one message."""
        if not self._arrived:
            ready = [worker for worker in self._workers.values() if worker.ready()]
            runnable = [worker for worker in ready if not worker.waits(True)]
            if not runnable:
                runnable = [worker for worker in ready if not worker.waits(False)]
            if runnable:
                self._random.choice(runnable).step()
        return self._arrived.popleft() if self._arrived else None

    def lost(self) -> list[int]:
        """Return the workers that have died since the last call."""
        return [rank for rank, worker in self._workers.items() if worker.dies_now()]

    def unsent(self) -> int:
        """Return 0: a send completes at once."""
        return 0

    def close(self) -> None:
        """Do nothing: the transport holds no resources."""

    def abort(self, code: int) -> None:
        """Raise Aborted."""
        raise Aborted(code)


def farm(
    workers: int = 2,
    *,
    seed: int = 0,
    faults: Sequence[Fault] = (),
    clock: Clock | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    resources: Sequence[str] = (),
) -> Farm:
    """Open a farm in this process, whose tasks run while the caller waits for results.

    Parameters
    ----------
    workers : int
        Number of workers.
    seed : int
        Random seed of the order in which workers make progress.
    faults : sequence of Fault
        Faults of the workers.
    clock : Clock, optional
        The farm's clock; a new `VirtualClock` by default.
    initializer, initargs
        As for `Farm`.
    resources : sequence of str
        What tasks may need, each as after ``--resource``. All workers are on one host.
    """
    master = Master(FakeTransport(workers, seed, faults), clock or VirtualClock())
    hosts = dict.fromkeys(range(1, workers + 1), socket.gethostname())
    master.scheduler.resources = Resources(list(map(parse_offer, resources)), hosts)
    return open_on(Farm, master, initializer=initializer, initargs=initargs)
