"""Workers in virtual time: what `worker`, `running` and `helper` do, without running anything.

The blocks in which a worker claims its calls are those of the real one: the same `ClaimedCalls` cuts them.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from itertools import count as counter
from typing import Any, NamedTuple

from taskfarm.schedule.spans import Span
from taskfarm.worker.claims import ClaimedCalls
from taskfarm.worker.progress_thread import CHECK_INTERVAL


class Costs(NamedTuple):
    """What the farm costs, in seconds; ``mpiexec -n 2 python scripts/simulate --measure`` measures it.

    The defaults are from one machine with 2 cores. Master and worker are measured on a fake transport;
    what MPI takes is all in the latency.

    Attributes
    ----------
    send : float
        The master's time for a batch that it sends.
    receive : float
        The master's time for a message that it receives.
    per_task : float
        The master's time for a task, both ways together.
    latency : float
        From the end of a send until the message has arrived.
    batch : float
        The worker's time for a batch, besides its tasks.
    task : float
        The worker's time for a task, besides the task itself.
    """

    send: float = 12e-6
    receive: float = 10e-6
    per_task: float = 0.05e-6
    latency: float = 2e-6
    batch: float = 16e-6
    task: float = 0.1e-6


COSTS = Costs()
"""The default costs."""


class Results(NamedTuple):
    """To the master: first id, number of tasks and seconds of each part of a batch."""

    worker: int
    parts: list[tuple[int, int, float]]


class Returned(NamedTuple):
    """To the master: what has not started, and function, tasks and seconds of what runs."""

    worker: int
    tasks: list[tuple[int, int]]
    running: tuple[int, int, float] | None


class Agenda:
    """What will happen when, in seconds; of what happens at once, first comes what was entered first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., object], Any]] = []
        self._number = counter()

    def add(self, when: float, what: Callable[..., object], argument: object) -> None:
        """Enter that `what(argument)` will be called at some moment."""
        heapq.heappush(self._events, (when, next(self._number), what, argument))

    def run(self) -> None:
        """Let all of it happen."""
        while self._events:
            self.now, _, what, argument = heapq.heappop(self._events)
            what(argument)


class VirtualWorker:
    """Runs batches in order; a list of spans in its inbox is a batch, None is a recall."""

    __slots__ = (
        "_agenda",
        "_batch",
        "_began",
        "_costs",
        "_durations",
        "_inbox",
        "_parts",
        "_phase",
        "_plan",
        "_rank",
        "_reply",
        "_since",
    )

    def __init__(
        self,
        rank: int,
        agenda: Agenda,
        durations: list[float],
        costs: Costs,
        reply: Callable[[Results | Returned], None],
    ) -> None:
        self._rank, self._agenda, self._durations, self._costs = rank, agenda, durations, costs
        self._reply = reply
        self._inbox: deque[list[Span] | None] = deque()
        self._parts: list[Span] = []
        self._since = self._began = math.inf
        self._batch = self._plan = 0
        # The helpers of several workers do not look at the same moments.
        self._phase = rank * 0.618034 % 1.0 * CHECK_INTERVAL

    def arrive(self, message: list[Span] | None) -> None:
        """Take in a message: a batch, or None for a recall."""
        self._inbox.append(message)
        if self._since == math.inf:
            self._go_on()
        elif message is None:
            self._await_look()

    def _go_on(self) -> None:
        """Take the next messages until one is a batch."""
        while self._inbox:
            self._parts = self._inbox.popleft() or []
            if self._parts:
                self._since = self._agenda.now
                self._began = self._since + self._costs.batch
                self._batch += 1
                self._plan_end()
                if None in self._inbox:
                    self._await_look()
                return
            self._send(Returned(self._rank, [], None))

    def _send(self, message: Results | Returned) -> None:
        self._agenda.add(self._agenda.now + self._costs.latency, self._reply, message)

    def _run(self, until: float) -> tuple[list[tuple[ClaimedCalls, float]], float]:
        """Run the batch from its beginning until a moment: each part begun and its seconds; the end."""
        now, begun = self._began, []
        for span in self._parts:
            if now > until:
                break
            started = now
            share = ClaimedCalls(span.function, span.first, span.count, now)
            while now <= until and (count := share.claim_next(now)):
                end = span.first + share.claimed
                now += sum(self._durations[end - count : end]) + count * self._costs.task
            begun.append((share, now - started))
        return begun, now

    def _plan_end(self) -> None:
        begun, end = self._run(math.inf)
        self._plan += 1
        outcomes = [(share.first, share.end, seconds) for share, seconds in begun]
        self._agenda.add(end, self._end, (self._plan, outcomes))

    def _end(self, planned: tuple[int, list[tuple[int, int, float]]]) -> None:
        plan, outcomes = planned
        if plan == self._plan:
            self._since = math.inf
            if outcomes:
                self._send(Results(self._rank, outcomes))
            self._go_on()

    def _await_look(self) -> None:
        """Let the progress thread find the recall: it looks at batches older than `CHECK_INTERVAL`."""
        earliest = max(self._agenda.now, self._since + CHECK_INTERVAL)
        look = self._phase + math.ceil((earliest - self._phase) / CHECK_INTERVAL) * CHECK_INTERVAL
        self._agenda.add(max(look, earliest), self._look, self._batch)

    def _look(self, batch: int) -> None:
        if batch == self._batch and self._since < math.inf:
            while None in self._inbox:
                waiting = []
                while parts := self._inbox.popleft():
                    waiting.extend(parts)
                self._give_back(waiting)

    def _give_back(self, waiting: list[Span]) -> None:
        """Give back what has not been claimed by now, and what waits; the batch ends the sooner."""
        now = self._agenda.now
        begun, _ = self._run(now)
        unstarted = self._parts[len(begun) :] + waiting
        self._parts = self._parts[: len(begun)]
        given, running = [(span.first, span.count) for span in unstarted], None
        if begun:
            share = begun[-1][0]
            running = (share.function, share.claimed, now - share.started)
            if count := share.release_unstarted():
                given.append((share.first + share.end, count))
                self._parts[-1] = self._parts[-1].split(share.end)[0]
        self._plan_end()
        self._send(Returned(self._rank, given, running))
