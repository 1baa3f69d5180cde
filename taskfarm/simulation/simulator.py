"""A farm in virtual time: the real scheduler, and a model of what the master and the workers cost.

It answers before a job runs how well a farm would use its workers, and how a change of the batching
policy does on any durations, with more workers than a test machine has::

    from taskfarm import testing

    testing.simulate([0.01] * 100_000, workers=1000).efficiency

The master is one serial server; a message waits while it is at work. The scheduler, the sizes of
batches and the blocks in which a worker claims its calls are the farm's own code. Left out are the
start of the ranks, the sending of functions, the size of arguments and results, and how late a rank
that sleeps wakes.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from taskfarm.schedule.batching import RECALL_INTERVAL
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span
from taskfarm.simulation.virtual_worker import COSTS, Agenda, Costs, Results, Returned, VirtualWorker

TICK = 0.01
"""While workers are idle, the master looks again at least each time a wait has grown by this share."""


class Simulated(NamedTuple):
    """How a simulated farm did.

    Attributes
    ----------
    makespan : float
        Seconds until the master has the last result.
    efficiency : float
        Share of the workers' time that was spent in tasks.
    bound : float
        The least makespan of any schedule without costs, in seconds: all workers busy all the time, or
        the longest task.
    of_bound : float
        `bound` over `makespan`.
    batches, recalls : int
        Batches and recalls that the master sent.
    master_busy : float
        Share of the makespan during which the master was at work.
    tasks : int
        Number of tasks.
    """

    makespan: float
    efficiency: float
    bound: float
    of_bound: float
    batches: int
    recalls: int
    master_busy: float
    tasks: int


class _Master:
    """Takes what has arrived, one message at a time, then decides and sends, as `Master.turn` does."""

    def __init__(
        self, durations: list[float], workers: int, costs: Costs, window: bool, chunk: int
    ) -> None:
        self.scheduler = Scheduler()
        self.makespan = self.spent = self._moved = 0.0
        self.batches = self.recalls = 0
        self._agenda = Agenda()
        self._costs, self._windowed, self._chunk = costs, window, chunk
        self._drawn = self._completed = 0
        self._done = bytearray(len(durations))
        self._inbox: deque[Results | Returned] = deque()
        self._busy = self._ticking = False
        self._workers = {}
        for rank in range(1, workers + 1):
            self._workers[rank] = VirtualWorker(rank, self._agenda, durations, costs, self._arrive)
            self.scheduler.add_worker(rank)

    def run(self) -> None:
        """Run until nothing happens any more."""
        self._step()
        self._agenda.run()
        if self._completed != len(self._done):
            raise AssertionError(f"{self._completed} of {len(self._done)} tasks have ended")
        self.scheduler.check()

    def _arrive(self, message: Results | Returned) -> None:
        self._inbox.append(message)
        if not self._busy:
            self._step()

    def _step(self, _: None = None) -> None:
        """Take a message or, when all are taken, decide; and again when the time for that is over."""
        cost, decided = 0.0, False
        while not (cost or decided):
            decided = not self._inbox
            cost = self._decide() if decided else self._take(self._inbox.popleft())
        self._busy = cost > 0
        if self._busy:
            self.spent += cost
            self._moved = self._agenda.now + cost
            self._agenda.add(self._moved, self._step, None)
        elif self.scheduler.has_idle and self.scheduler.assigned > 1 and not self._ticking:
            self._ticking = True
            waited = self._agenda.now - self._moved
            self._agenda.add(self._agenda.now + max(RECALL_INTERVAL, TICK * waited), self._tick, None)

    def _tick(self, _: None) -> None:
        self._ticking = False
        if not self._busy:
            self._step()

    def _take(self, message: Results | Returned) -> float:
        """Take in a message; returns the seconds spent."""
        cost = self._costs.receive
        if isinstance(message, Returned):
            if not self.scheduler.finish_recall(message.worker, message.tasks, message.running):
                raise AssertionError(f"some of the tasks {message.tasks} were not there")
            return cost
        for first, count, seconds in message.parts:
            end = first + count
            again = self.scheduler.finish(message.worker, first, count, (), seconds, 0, self._agenda.now)
            if again is None or self._done.count(1, first, end):
                raise AssertionError(f"some task of {first} to {end - 1} has ended twice")
            self._done[first:end] = bytes([1]) * count
            self._completed += count
            cost += count * self._costs.per_task / 2
        self.makespan = self._agenda.now + cost
        return cost

    def _decide(self) -> float:
        """Send what can be sent, or recall, then draw; returns the seconds spent."""
        cost = 0.0
        if self.scheduler.can_assign:
            cost = self._dispatch(cost)
        elif self.scheduler.has_idle and self.scheduler.assigned > 1:
            for worker in self.scheduler.recall(self._agenda.now):
                cost += self._costs.send
                self.recalls += 1
                self._send(worker, None, cost)
        while room := self._room():
            self.scheduler.submit(Span(0, self._drawn, room, 0, self._chunk))
            self._drawn += room
            cost = self._dispatch(cost)
        return cost

    def _dispatch(self, cost: float) -> float:
        """Send batches one after the other; returns `cost` and the seconds spent."""
        for worker, spans in self.scheduler.assign(self._agenda.now):
            tasks = sum(span.count for span in spans)
            cost += self._costs.send + tasks * self._costs.per_task / 2
            self.batches += 1
            self._send(worker, spans, cost)
        return cost

    def _send(self, worker: int, message: list[Span] | None, cost: float) -> None:
        arrives = self._agenda.now + cost + self._costs.latency
        self._agenda.add(arrives, self._workers[worker].arrive, message)

    def _room(self) -> int:
        """Tasks to draw now, as a map does; 0 until it is worth while."""
        left, workers = len(self._done) - self._drawn, len(self._workers)
        if not self._windowed:
            return left
        if not self._drawn:
            return min(left, 1)
        window = self.scheduler.estimate(0).window(workers)
        window = max(window, 4 * workers * (self._chunk or 1))
        room = window - (self._drawn - self._completed)
        return min(left, room) if room >= max(1, window // 4) else 0


def simulate(
    durations: Sequence[float], workers: int, costs: Costs = COSTS, *, window: bool = True, chunk: int = 0
) -> Simulated:
    """Run tasks of one function on a farm in virtual time.

    Parameters
    ----------
    durations : sequence of float
        How long each task takes, in seconds, in the order in which they are queued.
    workers : int
        How many.
    costs : Costs
        What the farm itself costs.
    window : bool
        Whether tasks are queued as a map queues them, a window ahead; otherwise all are at the start.
    chunk : int
        Tasks to send at once; 0 leaves it to the farm.

    Returns
    -------
    Simulated
        How it went; the same for the same arguments.
    """
    if workers < 1:
        raise ValueError(f"a farm needs at least one worker, not {workers}")
    seconds = [float(duration) for duration in durations]
    master = _Master(seconds, workers, costs, window, chunk)
    master.run()
    work, makespan = math.fsum(seconds), master.makespan
    bound = max(work / workers, max(seconds, default=0.0))
    return Simulated(
        makespan=makespan,
        efficiency=work / (workers * makespan) if makespan else 1.0,
        bound=bound,
        of_bound=bound / makespan if makespan else 1.0,
        batches=master.batches,
        recalls=master.recalls,
        master_busy=master.spent / makespan if makespan else 0.0,
        tasks=len(seconds),
    )


# Durations that are hard on a farm: of `count` tasks that last 1 ms on the average or mostly, in seconds


def uniform(count: int, seed: int = 0) -> list[float]:
    """From 0 to 2 ms, evenly."""
    random = Random(seed)
    return [random.uniform(0, 2e-3) for _ in range(count)]


def lognormal(count: int, seed: int = 0, mean: float = 1e-3, sigma: float = 1.5) -> list[float]:
    """A long tail: the logarithm is normal, with standard deviation `sigma`."""
    random = Random(seed)
    mu = math.log(mean) - sigma**2 / 2
    return [random.lognormvariate(mu, sigma) for _ in range(count)]


def straggler(count: int, seed: int = 0) -> list[float]:
    """All alike but the last task, which lasts 1,000 times as long."""
    return [1e-3] * (count - 1) + [1.0] * min(count, 1)


def ascending(count: int, seed: int = 0) -> list[float]:
    """Lognormal, and the longest tasks last."""
    return sorted(lognormal(count, seed))


def descending(count: int, seed: int = 0) -> list[float]:
    """Lognormal, and the longest tasks first."""
    return sorted(lognormal(count, seed), reverse=True)


def bimodal(count: int, seed: int = 0) -> list[float]:
    """One task in 100 lasts 91 ms, the others 91 us."""
    random = Random(seed)
    return [91e-3 if random.random() < 0.01 else 91e-6 for _ in range(count)]


def jump(count: int, seed: int = 0) -> list[float]:
    """From the middle on, tasks last 1,000 times as long."""
    return [20e-6] * (count // 2) + [20e-3] * (count - count // 2)


def few(count: int, seed: int = 0) -> list[float]:
    """10 tasks only."""
    return uniform(10, seed)


CASES: dict[str, Callable[[int, int], list[float]]] = {
    case.__name__: case
    for case in (uniform, lognormal, straggler, ascending, descending, bimodal, jump, few)
}
"""The bad cases by name: each makes durations from a number of tasks and a seed."""
