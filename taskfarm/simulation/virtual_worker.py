"""Workers in virtual time: a model of `Worker`, `Runner` and `ProgressThread` that runs no tasks.

A virtual worker claims its calls in the same blocks as a real one: both use `ClaimedCalls`.
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
    """Overheads of the farm in seconds; ``mpiexec -n 2 python scripts/simulate --measure`` measures them.

    The defaults are from a machine with 2 cores. Master and worker are measured on a fake transport;
    the latency contains all the time of MPI.

    Attributes
    ----------
    send : float
        Time of the master per batch that it sends.
    receive : float
        Time of the master per message that it receives.
    per_task : float
        Time of the master per task, for sending and receiving together.
    latency : float
        Time from the end of a send until the message has arrived.
    batch : float
        Overhead of the worker per batch, apart from its tasks.
    task : float
        Overhead of the worker per task, apart from the task itself.
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
    """Message to the master: first id, number of tasks and seconds of each part of a batch."""

    worker: int
    parts: list[tuple[int, int, float]]


class Returned(NamedTuple):
    """Message to the master: unstarted tasks; function, number of tasks and seconds of the running part."""

    worker: int
    tasks: list[tuple[int, int]]
    running: tuple[int, int, float] | None


class EventQueue:
    """Future events by their time in seconds; simultaneous events keep the order of their insertion."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., object], Any]] = []
        self._number = counter()

    def add(self, time: float, function: Callable[..., object], argument: object) -> None:
        """Schedule a call of `function(argument)`."""
        heapq.heappush(self._events, (time, next(self._number), function, argument))

    def run(self) -> None:
        """Run all events, including those that they add."""
        while self._events:
            self.now, _, function, argument = heapq.heappop(self._events)
            function(argument)


class VirtualWorker:
    """Runs batches in order. In its inbox, a list of spans is a batch, and None is a recall."""

    __slots__ = (
        "_batch",
        "_batch_started",
        "_check_phase",
        "_costs",
        "_durations",
        "_events",
        "_inbox",
        "_parts",
        "_planned_end",
        "_rank",
        "_reply",
        "_tasks_started",
    )

    def __init__(
        self,
        rank: int,
        events: EventQueue,
        durations: list[float],
        costs: Costs,
        reply: Callable[[Results | Returned], None],
    ) -> None:
        self._rank = rank
        self._events = events
        self._durations = durations
        self._costs = costs
        self._reply = reply
        self._inbox: deque[list[Span] | None] = deque()
        self._parts: list[Span] = []
        # Infinite while the worker is idle.
        self._batch_started = math.inf
        self._tasks_started = math.inf
        # Number of the current batch, and of the event that ends it: a recall invalidates older events.
        self._batch = 0
        self._planned_end = 0
        # The progress threads of different workers do not check at the same times.
        self._check_phase = rank * 0.618034 % 1.0 * CHECK_INTERVAL

    def arrive(self, message: list[Span] | None) -> None:
        """Receive a message: a batch, or None for a recall."""
        self._inbox.append(message)
        if self._batch_started == math.inf:
            self._handle_inbox()
        elif message is None:
            self._schedule_check()

    def _handle_inbox(self) -> None:
        """Handle messages until one of them is a batch, and start it."""
        while self._inbox:
            self._parts = self._inbox.popleft() or []
            if self._parts:
                self._batch_started = self._events.now
                self._tasks_started = self._batch_started + self._costs.batch
                self._batch += 1
                self._plan_end()
                if None in self._inbox:
                    self._schedule_check()
                return
            self._send(Returned(self._rank, [], None))

    def _send(self, message: Results | Returned) -> None:
        self._events.add(self._events.now + self._costs.latency, self._reply, message)

    def _run(self, until: float) -> tuple[list[tuple[ClaimedCalls, float]], float]:
        """Run the batch up to a time; returns the started parts with their seconds, and the end time.

        The calls that are claimed by then run to their end.
        """
        now = self._tasks_started
        started_parts: list[tuple[ClaimedCalls, float]] = []
        for span in self._parts:
            if now > until:
                break
            started = now
            calls = ClaimedCalls(span.function, span.first, span.count, now)
            while now <= until and (count := calls.claim_next(now)):
                end = span.first + calls.claimed
                now += sum(self._durations[end - count : end]) + count * self._costs.task
            started_parts.append((calls, now - started))
        return started_parts, now

    def _plan_end(self) -> None:
        """Schedule the end of the batch, in place of an end planned earlier."""
        started_parts, end = self._run(math.inf)
        self._planned_end += 1
        outcomes = [(calls.first, calls.end, seconds) for calls, seconds in started_parts]
        self._events.add(end, self._end_batch, (self._planned_end, outcomes))

    def _end_batch(self, planned: tuple[int, list[tuple[int, int, float]]]) -> None:
        planned_end, outcomes = planned
        if planned_end == self._planned_end:
            self._batch_started = math.inf
            if outcomes:
                self._send(Results(self._rank, outcomes))
            self._handle_inbox()

    def _schedule_check(self) -> None:
        """Schedule the check of the progress thread that finds a recall.

        The thread acts only on a batch that has run for `CHECK_INTERVAL`.
        """
        earliest = max(self._events.now, self._batch_started + CHECK_INTERVAL)
        intervals = math.ceil((earliest - self._check_phase) / CHECK_INTERVAL)
        check = self._check_phase + intervals * CHECK_INTERVAL
        self._events.add(max(check, earliest), self._check, self._batch)

    def _check(self, batch: int) -> None:
        if batch == self._batch and self._batch_started < math.inf:
            while None in self._inbox:
                waiting: list[Span] = []
                while parts := self._inbox.popleft():
                    waiting.extend(parts)
                self._return_unstarted(waiting)

    def _return_unstarted(self, waiting: list[Span]) -> None:
        """Return the unclaimed calls of the batch and the `waiting` spans; the batch ends sooner."""
        now = self._events.now
        started_parts, _ = self._run(now)
        unstarted = self._parts[len(started_parts) :] + waiting
        self._parts = self._parts[: len(started_parts)]
        returned = [(span.first, span.count) for span in unstarted]
        running = None
        if started_parts:
            calls, _ = started_parts[-1]
            running = (calls.function, calls.claimed, now - calls.started)
            if count := calls.release_unstarted():
                returned.append((calls.first + calls.end, count))
                self._parts[-1] = self._parts[-1].split(calls.end)[0]
        self._plan_end()
        self._send(Returned(self._rank, returned, running))
