"""A farm in virtual time: the real scheduler, and a model of the overheads of master and workers.

The simulation predicts, before a job runs, how efficiently a farm would use its workers. It also shows how
a change of the batching policy performs for any durations, with more workers than a test machine has::

    from taskfarm import testing

    testing.simulate([0.01] * 100_000, workers=1000).efficiency

The master is one serial server; a message waits while the master is busy. The scheduler, the batch sizes
and the blocks in which a worker claims its calls are the farm's own code. The model neglects the start of
the ranks, the transfer of functions, the size of arguments and results, and the time a sleeping rank
takes to wake.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from taskfarm.schedule.batching import RECALL_INTERVAL
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span
from taskfarm.simulation.virtual_worker import COSTS, Costs, EventQueue, Results, Returned, VirtualWorker

RECHECK_SHARE = 0.01
"""While workers are idle, the master checks again after at most this share of the time waited so far."""


class Simulated(NamedTuple):
    """The outcome of a simulation.

    Attributes
    ----------
    makespan : float
        Seconds until the master has received the last result.
    efficiency : float
        Fraction of the workers' time that was spent in tasks.
    bound : float
        Lower bound of the makespan of any schedule without overhead, in seconds: the total work over the
        number of workers, or the longest task.
    of_bound : float
        `bound` divided by `makespan`.
    batches, recalls : int
        Numbers of batches and recalls that the master sent.
    master_busy : float
        Fraction of the makespan during which the master was busy.
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


class _VirtualMaster:
    """Receives messages one at a time, then decides and sends, as `Master.run_once` does."""

    def __init__(
        self, durations: list[float], workers: int, costs: Costs, window: bool, chunk: int
    ) -> None:
        self.scheduler = Scheduler()
        self.makespan = 0.0
        self.busy_seconds = 0.0
        self.batches = 0
        self.recalls = 0
        self._events = EventQueue()
        self._costs = costs
        self._windowed = window
        self._chunk = chunk
        self._drawn = 0
        self._completed = 0
        self._done = bytearray(len(durations))
        self._inbox: deque[Results | Returned] = deque()
        self._busy = False
        self._idle_since = 0.0
        self._recheck_scheduled = False
        self._workers = {}
        for rank in range(1, workers + 1):
            self._workers[rank] = VirtualWorker(rank, self._events, durations, costs, self._arrive)
            self.scheduler.add_worker(rank)

    def run(self) -> None:
        """Run until no event is left."""
        self._step()
        self._events.run()
        if self._completed != len(self._done):
            raise AssertionError(f"{self._completed} of {len(self._done)} tasks have ended")
        self.scheduler.check()

    def _arrive(self, message: Results | Returned) -> None:
        self._inbox.append(message)
        if not self._busy:
            self._step()

    def _step(self, _: None = None) -> None:
        """Handle one message or, if there is none, decide; repeats once that time is over."""
        cost = 0.0
        decided = False
        # A step without cost needs no event: the next one follows at once.
        while not (cost or decided):
            if self._inbox:
                cost = self._handle(self._inbox.popleft())
            else:
                cost = self._decide()
                decided = True
        self._busy = cost > 0
        if self._busy:
            self.busy_seconds += cost
            self._idle_since = self._events.now + cost
            self._events.add(self._idle_since, self._step, None)
        elif self.scheduler.idle and self.scheduler.assigned > 1 and not self._recheck_scheduled:
            self._recheck_scheduled = True
            waited = self._events.now - self._idle_since
            delay = max(RECALL_INTERVAL, RECHECK_SHARE * waited)
            self._events.add(self._events.now + delay, self._recheck, None)

    def _recheck(self, _: None) -> None:
        self._recheck_scheduled = False
        if not self._busy:
            self._step()

    def _handle(self, message: Results | Returned) -> float:
        """Handle a message; returns the seconds spent."""
        cost = self._costs.receive
        if isinstance(message, Returned):
            if not self.scheduler.finish_recall(message.worker, message.tasks, message.running):
                raise AssertionError(
                    f"worker {message.worker} did not hold all of the tasks {message.tasks}"
                )
            return cost
        for first, count, seconds in message.parts:
            end = first + count
            retried = self.scheduler.finish(message.worker, first, count, (), seconds, 0, self._events.now)
            if retried is None or self._done.count(1, first, end):
                raise AssertionError(f"one of the tasks {first} to {end - 1} has ended twice")
            self._done[first:end] = bytes([1]) * count
            self._completed += count
            cost += count * self._costs.per_task / 2
        self.makespan = self._events.now + cost
        return cost

    def _decide(self) -> float:
        """Send batches or recall tasks, then draw tasks of the map; returns the seconds spent."""
        cost = 0.0
        if self.scheduler.can_assign:
            cost = self._dispatch(cost)
        elif self.scheduler.idle and self.scheduler.assigned > 1:
            for worker in self.scheduler.recall(self._events.now):
                cost += self._costs.send
                self.recalls += 1
                self._send(worker, None, cost)
        while count := self._tasks_to_draw():
            self.scheduler.submit(Span(0, self._drawn, count, 0, self._chunk))
            self._drawn += count
            cost = self._dispatch(cost)
        return cost

    def _dispatch(self, cost: float) -> float:
        """Send batches one after the other; returns `cost` plus the seconds spent."""
        for worker, spans in self.scheduler.assign(self._events.now):
            tasks = sum(span.count for span in spans)
            cost += self._costs.send + tasks * self._costs.per_task / 2
            self.batches += 1
            self._send(worker, spans, cost)
        return cost

    def _send(self, worker: int, message: list[Span] | None, cost: float) -> None:
        arrival = self._events.now + cost + self._costs.latency
        self._events.add(arrival, self._workers[worker].arrive, message)

    def _tasks_to_draw(self) -> int:
        """Return the number of tasks to draw now, as a map does; 0 while the window is nearly full."""
        undrawn = len(self._done) - self._drawn
        workers = len(self._workers)
        if not self._windowed:
            return undrawn
        if not self._drawn:
            return min(undrawn, 1)
        window = self.scheduler.estimate(0).window(workers)
        window = max(window, 4 * workers * (self._chunk or 1))
        room = window - (self._drawn - self._completed)
        return min(undrawn, room) if room >= max(1, window // 4) else 0


def simulate(
    durations: Sequence[float], workers: int, costs: Costs = COSTS, *, window: bool = True, chunk: int = 0
) -> Simulated:
    """Simulate a farm that runs tasks of one function.

    Parameters
    ----------
    durations : sequence of float
        Duration of each task in seconds, in the order in which the tasks are queued.
    workers : int
        Number of workers.
    costs : Costs
        Overheads of the farm.
    window : bool
        Whether tasks are drawn and queued as by a map, a window ahead. If False, all tasks are queued at
        the start.
    chunk : int
        Tasks per batch; 0 lets the farm choose.

    Returns
    -------
    Simulated
        The outcome, identical for identical arguments.
    """
    if workers < 1:
        raise ValueError(f"a farm needs at least one worker, not {workers}")
    seconds = [float(duration) for duration in durations]
    master = _VirtualMaster(seconds, workers, costs, window, chunk)
    master.run()
    work = math.fsum(seconds)
    makespan = master.makespan
    bound = max(work / workers, max(seconds, default=0.0))
    return Simulated(
        makespan=makespan,
        efficiency=work / (workers * makespan) if makespan else 1.0,
        bound=bound,
        of_bound=bound / makespan if makespan else 1.0,
        batches=master.batches,
        recalls=master.recalls,
        master_busy=master.busy_seconds / makespan if makespan else 0.0,
        tasks=len(seconds),
    )


# Difficult cases: durations in seconds of `count` tasks, 1 ms in the mean unless the docstring differs


def uniform(count: int, seed: int = 0) -> list[float]:
    """Uniform from 0 to 2 ms."""
    random = Random(seed)
    return [random.uniform(0, 2e-3) for _ in range(count)]


def lognormal(count: int, seed: int = 0, mean: float = 1e-3, sigma: float = 1.5) -> list[float]:
    """Lognormal, with a long tail: the logarithm has standard deviation `sigma`."""
    random = Random(seed)
    mu = math.log(mean) - sigma**2 / 2
    return [random.lognormvariate(mu, sigma) for _ in range(count)]


def straggler(count: int, seed: int = 0) -> list[float]:
    """All tasks last 1 ms, except the last one, which lasts 1,000 times as long."""
    return [1e-3] * (count - 1) + [1.0] * min(count, 1)


def ascending(count: int, seed: int = 0) -> list[float]:
    """Lognormal, in ascending order."""
    return sorted(lognormal(count, seed))


def descending(count: int, seed: int = 0) -> list[float]:
    """Lognormal, in descending order."""
    return sorted(lognormal(count, seed), reverse=True)


def bimodal(count: int, seed: int = 0) -> list[float]:
    """One task in 100 lasts 91 ms, the others 91 us."""
    random = Random(seed)
    return [91e-3 if random.random() < 0.01 else 91e-6 for _ in range(count)]


def jump(count: int, seed: int = 0) -> list[float]:
    """Tasks of the second half last 1,000 times as long as those of the first, 20 ms instead of 20 us."""
    return [20e-6] * (count // 2) + [20e-3] * (count - count // 2)


def few(count: int, seed: int = 0) -> list[float]:
    """Only 10 tasks, uniform from 0 to 2 ms."""
    return uniform(10, seed)


CASES: dict[str, Callable[[int, int], list[float]]] = {
    case.__name__: case
    for case in (uniform, lognormal, straggler, ascending, descending, bimodal, jump, few)
}
"""The difficult cases by name; each returns durations for a number of tasks and a seed."""
