"""For tests: a farm in this process, over a fake transport, with faults and a virtual clock.

Every message is turned into bytes and back, as on the wire, and every step is taken in one thread, in
an order that a seed fixes; so a run can be repeated exactly, and nothing sleeps::

    from taskfarm import testing

    with testing.farm(workers=3, seed=7, faults=[testing.Dies(2, after=10)]) as farm:
        assert list(farm.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from taskfarm.job.farm import Farm
from taskfarm.master.master import Master
from taskfarm.protocol.messages import Parcel
from taskfarm.simulation.simulator import Simulated, simulate
from taskfarm.simulation.virtual_worker import Costs
from taskfarm.transport.interface import Received, Transport
from taskfarm.transport.waiting import Clock
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
    """The farm ended all ranks; under MPI nothing would run after this."""


class VirtualClock(Clock):
    """Time that passes only while somebody waits.

    Parameters
    ----------
    start : float
        Where it begins, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds since its beginning."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let so much time pass, and a little where the farm would only yield."""
        self._now += seconds or 1e-6

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class Fault:
    """What may go wrong with a worker; this one does nothing.

    Parameters
    ----------
    worker : int
        Its rank.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker

    def dies(self, handled: int) -> bool:
        """Whether the worker is dead, having handled so many messages."""
        return False

    def waits(self, others_can_go_on: bool) -> bool:
        """Whether the worker does nothing now."""
        return False


class Dies(Fault):
    """The worker dies after it has handled `after` messages; what it has not sent is lost."""

    def __init__(self, worker: int, after: int) -> None:
        super().__init__(worker)
        self._after = after

    def dies(self, handled: int) -> bool:
        """Whether it has handled so many."""
        return handled >= self._after


class Slow(Fault):
    """The worker goes on only when no other can."""

    def waits(self, others_can_go_on: bool) -> bool:
        """Whether another can go on."""
        return others_can_go_on


class Stuck(Fault):
    """The worker never does anything."""

    def waits(self, others_can_go_on: bool) -> bool:
        """Always."""
        return True


class Silent(Fault):
    """The worker does nothing while `silent` is true, and is not dead: it was stopped, or is cut off.

    Attributes
    ----------
    silent : bool
        Whether it does nothing now.
    """

    def __init__(self, worker: int) -> None:
        super().__init__(worker)
        self.silent = False

    def waits(self, others_can_go_on: bool) -> bool:
        """While it is silent."""
        return self.silent


class _Station:
    """A worker of the fake: its inbox, and what has happened to it."""

    def __init__(self, rank: int, arrived: deque[Received], faults: list[Fault]) -> None:
        self.inbox: deque[Parcel] = deque()
        self.dead = False
        self._handled = 0
        self._faults = faults
        self._worker = Worker(WorkerEnd(rank, arrived))
        self._worker.send_hello()

    def dies_now(self) -> bool:
        """Whether it has just died; True once."""
        if self.dead or not any(fault.dies(self._handled) for fault in self._faults):
            return False
        self.dead = True
        self.inbox.clear()
        return True

    def ready(self) -> bool:
        return bool(self.inbox) and not self.dead

    def waits(self, others_can_go_on: bool) -> bool:
        return any(fault.waits(others_can_go_on) for fault in self._faults)

    def step(self) -> None:
        self._handled += 1
        self._worker.handle(self.inbox.popleft())


class FakeTransport(Transport):
    """The master's end of a wire to workers in this process.

    Parameters
    ----------
    workers : int
        How many.
    seed : int
        Fixes the order in which workers go on.
    faults : sequence of Fault
        What goes wrong.
    """

    threads = False

    def __init__(self, workers: int = 2, seed: int = 0, faults: Sequence[Fault] = ()) -> None:
        self.rank = 0
        self.size = workers + 1
        self._random = Random(seed)
        self._arrived: deque[Received] = deque()
        self._stations = {
            rank: _Station(rank, self._arrived, [f for f in faults if f.worker == rank])
            for rank in range(1, self.size)
        }

    def send(self, dest: int, parcel: Parcel) -> None:
        """Put a parcel into a worker's inbox."""
        station = self._stations[dest]
        if not station.dead:
            station.inbox.append(copied(parcel))

    def poll(self) -> Received | None:
        """Let one worker take one step if nothing has arrived."""
        if not self._arrived:
            ready = [station for station in self._stations.values() if station.ready()]
            eager = [station for station in ready if not station.waits(True)]
            eager = eager or [station for station in ready if not station.waits(False)]
            if eager:
                self._random.choice(eager).step()
        return self._arrived.popleft() if self._arrived else None

    def lost(self) -> list[int]:
        """Workers that have died since the last call."""
        return [rank for rank, station in self._stations.items() if station.dies_now()]

    def unsent(self) -> int:
        """Nothing is ever on its way."""
        return 0

    def close(self) -> None:
        """Nothing is held."""

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
) -> Farm:
    """A farm in this process, whose tasks run while its caller waits.

    Parameters
    ----------
    workers : int
        How many.
    seed : int
        Fixes the order in which workers go on.
    faults : sequence of Fault
        What goes wrong with them.
    clock : Clock, optional
        The time; a `VirtualClock` by default.
    initializer, initargs
        As for `Farm`.
    """
    master = Master(FakeTransport(workers, seed, faults), clock or VirtualClock())
    return Farm(initializer=initializer, initargs=initargs, _master=master)
