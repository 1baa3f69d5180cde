"""A worker as a member of a task that runs on several ranks."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from taskfarm.errors import UsageError
from taskfarm.protocol.failures import summarize
from taskfarm.protocol.messages import (
    DropComms,
    EndGang,
    GangResult,
    Outcomes,
    Regroup,
    Regrouped,
    StartGang,
)
from taskfarm.transport.interface import Transport
from taskfarm.worker.runner import Runner


class GangMember:
    """Runs this worker's share of tasks on several ranks, and ends it when another member fails.

    Parameters
    ----------
    transport : Transport
        The way to the master.
    runner : Runner
        Runs the calls.
    send : callable
        Sends a message to the master.
    """

    def __init__(
        self, transport: Transport, runner: Runner, send: Callable[[GangResult | Regrouped], None]
    ) -> None:
        from taskfarm.transport.groups import Groups

        self._groups = Groups(transport)  # type: ignore[arg-type]
        self._rank = transport.rank
        self._runner = runner
        self._send = send
        # Held by the main thread while it is inside a task.
        self._current: StartGang | None = None
        self._last = self._last_comm = 0
        self._ended: dict[int, EndGang] = {}
        self._deadline: float | None = None
        self._regrouping: threading.Thread | None = None

    def handle(self, message: StartGang | EndGang | DropComms | Regroup) -> None:
        """Handle a message; `EndGang` and `Regroup` also in another thread."""
        match message:
            case StartGang():
                self._start(message)
            case EndGang():
                self._end(message)
            case DropComms(numbers, free):
                self._groups.drop(numbers, free)
            case Regroup(number):
                self._regroup(number)

    def _start(self, message: StartGang) -> None:
        gang, number, members, part, _ = message
        self._current = message
        is_void = False
        try:
            # The others wait for this rank, also if the task has failed already.
            comm = self._groups.get(number, members)
        except BaseException as error:
            outcomes = self._runner.failed(part, error)
            is_void = self._groups.is_death(error)
        else:
            if (end := self._ended.get(gang)) is not None:
                outcomes = self._runner.failed(part, UsageError(end.why))
            else:
                outcomes = self._run(message, comm)
        is_secondary = gang in self._ended or self._groups.is_revoked(number)
        if outcomes.failures and self._groups.can_revoke:
            # Whoever waits for this rank waits no more.
            self._groups.revoke(number)
        self._current, self._last, self._last_comm, self._deadline = None, gang, number, None
        self._ended.clear()
        keeps = not outcomes.failures and self._groups.is_whole(number)
        self._send(GangResult(gang, outcomes, is_secondary, keeps, is_void))

    def _run(self, message: StartGang, comm: Any) -> Outcomes:
        part = message.part
        outcomes = self._runner.run_in_gang(part, comm, message.members.index(self._rank), message.gang)
        if not outcomes:
            return self._runner.failed(part, UsageError("it was abandoned before it began"))
        return outcomes[0]

    def _end(self, message: EndGang) -> None:
        gang, _, grace = message
        if gang <= self._last:
            if gang == self._last and self._groups.can_revoke:
                # This rank has ended, but others may wait for it.
                self._groups.revoke(self._last_comm)
            return
        self._ended[gang] = message
        if grace is not None:
            self._deadline = time.perf_counter() + grace
        current = self._current
        if current is not None and current.gang == gang:
            # It revokes the communicator when it gets out of MPI. A thread of a rank that waits there could
            # not: that would neither wake this rank nor reach those that do the same.
            self._runner.end_gang(gang, message.why)

    def _regroup(self, number: int) -> None:
        """Agree with the others on who is left, in another thread, since some may be late."""
        before = self._regrouping

        def regroup() -> None:
            if before is not None:
                before.join()
            why = ""
            try:
                self._groups.regroup()
            except Exception as error:
                why = summarize(error)
            self._send(Regrouped(number, why))

        self._regrouping = threading.Thread(target=regroup, name="taskfarm regroup", daemon=True)
        self._regrouping.start()

    def check(self) -> None:
        """End this process if its share has not ended in time; for another thread."""
        if self._deadline is not None and time.perf_counter() > self._deadline:
            # Only so do the others notice.
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Release the communicators."""
        self._groups.close()
