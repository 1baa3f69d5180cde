"""The worker: receive, run, reply, until the poison pill."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskfarm import __version__, interrupts
from taskfarm.console import write_to
from taskfarm.errors import MasterLost, SharedDataError
from taskfarm.protocol import messages
from taskfarm.protocol.messages import (
    ANSWERS,
    LOST,
    STACK,
    Abandon,
    Answer,
    Cancel,
    Define,
    DefineNames,
    Deliver,
    Drop,
    DropComms,
    EndGang,
    Forget,
    Give,
    Initialize,
    Outcomes,
    Parcel,
    PassOn,
    Ping,
    Recall,
    Regroup,
    Release,
    ReportStack,
    SendKept,
    SetPath,
    Settled,
    StartGang,
    Stop,
    Withdrawn,
    Work,
)
from taskfarm.protocol.serialize import nbytes as size_of
from taskfarm.protocol.sides import is_installed
from taskfarm.transport.interface import Received, Transport
from taskfarm.transport.waiting import CLOCK, MOVING_SECONDS, Waiter
from taskfarm.worker.context import Place
from taskfarm.worker.progress_thread import ProgressThread
from taskfarm.worker.runner import Runner

if TYPE_CHECKING:
    from taskfarm.worker.gang import GangMember
    from taskfarm.worker.helping import Helper
    from taskfarm.worker.shared_fetch import Fetcher

MASTER = 0

URGENT = tuple(
    messages.TAGS[cls]
    for cls in (
        *(Recall, Abandon, Cancel, Ping, ReportStack, PassOn, Deliver, EndGang, SendKept, Release),
        Regroup,
    )
)
"""Tags of messages that are answered while a task runs."""


HELD_BYTES = 1 << 24
"""Bytes of the results of a reduction from which on they wait until the master asks for them."""

_ANSWER_TAGS = tuple(map(messages.TAGS.__getitem__, ANSWERS))

_RUN_NOTHING = frozenset((*ANSWERS, PassOn, Deliver))
"""The messages that are handled under whatever ``__main__`` there is."""

MAX_FLUSH_SECONDS = 0.25
"""Seconds after which the next message no longer waits: a thread of a task may print for ever."""


class Worker:
    """One worker over one transport.

    Parameters
    ----------
    transport : Transport
        The way to the master.
    propagate : tuple of exception types
        Exceptions of a task that end its batch, and are then raised where the job waits: in a serial run,
        the worker interrupts its master.

    Attributes
    ----------
    stopped : bool
        Whether it has received the poison pill.
    leaves : bool
        Whether it must end without finalizing MPI.
    interrupted : bool
        Whether to raise KeyboardInterrupt from `serve` as soon as no message is being handled.
    must_end : bool
        Whether the poison pill has arrived while a task waited.
    """

    def __init__(self, transport: Transport, propagate: tuple[type[BaseException], ...] = ()) -> None:
        self._transport = transport
        self._host = socket.gethostname()
        self._propagate = propagate
        self._runner = Runner(Place(transport.rank, self._host), propagate)
        self._inbox: deque[Received] = deque()
        self._answers: deque[Answer] = deque()
        self._held: dict[int, Outcomes] = {}
        # Held around each use of the transport and the inbox, by two threads.
        self._lock = threading.RLock()
        self._progress: ProgressThread | None = None
        self._member: GangMember | None = None
        self._waiter = Waiter(CLOCK, transport)
        if not transport.in_process:
            self._runner.make_supplier = self._make_fetcher
        self._silence_limit: float | None = None
        self._last_ping = self._last_check = time.perf_counter()
        self._helper: Helper | None = None
        self._runner.make_upstream = self._make_helper
        self.stopped = self.leaves = self.interrupted = self.must_end = False

    def send_hello(self) -> None:
        """Tell the master that this worker has started."""
        python = sys.version.split()[0]
        self._send(messages.Hello(__version__, python, self._host, os.getpid()))

    def guard_signals(self) -> None:
        """Keep the signal handlers of tasks from disturbing this process."""
        self._runner.guard_signals()

    def capture_output(self) -> None:
        """Send what tasks print and log to the master, line by line."""
        self._runner.capture_output(self._send)

    def serve(self) -> None:
        """Work until the poison pill; meanwhile ``__main__`` is that of the tasks."""
        with self._runner.namespace.serving(), self._ends_with_the_master():
            self.send_hello()
            if self._transport.threads:
                self._progress = ProgressThread(self._move)
                self._progress.start()
            try:
                self._serve()
            finally:
                progress, self._progress = self._progress, None
                if progress:
                    progress.stop()
                self._runner.close()

    def _serve(self) -> None:
        if self._transport.threads:
            self._runner.let_others_break_off()
        progress = self._progress
        waiting_since = time.perf_counter()
        while not self.stopped:
            if self.interrupted:
                raise KeyboardInterrupt
            received = self._next()
            if received is None:
                self._check_master()
                self._waiter.pause(time.perf_counter() - waiting_since)
                continue
            self._waiter.received()
            if progress is not None:
                progress.batch_started()
            try:
                self.handle(received.parcel)
            finally:
                if progress is not None:
                    progress.batch_ended()
            self._flush()
            waiting_since = time.perf_counter()

    @property
    def runs_task(self) -> bool:
        """Whether the calls of a batch are running."""
        return self._runner.is_running

    def resign(self, why: str, seconds: float) -> bool:
        """Tell the master that this worker stops, and drop what it still sends.

        Parameters
        ----------
        why : str
            The reason.
        seconds : float
            How long to wait for the poison pill.

        Returns
        -------
        bool
            Whether nothing is left between the two.
        """
        if not self.stopped:
            self._send(messages.Goodbye(self._runner.num_tasks, why))
        started = time.perf_counter()
        while not self.stopped or self._transport.unsent():
            waited = time.perf_counter() - started
            if waited > seconds:
                return False
            received = self._next()
            if received is None:
                self._waiter.pause(waited)
            elif received.parcel.tag == messages.TAGS[Stop]:
                self.stopped = True
        return True

    def close(self) -> None:
        """Drop what it has in memory, as its end does."""
        self._runner.close()

    def handle(self, parcel: Parcel) -> None:
        """Handle one message."""
        self.handle_message(messages.decode(parcel))

    def handle_message(self, message: messages.Message) -> None:
        """Handle one message that has been decoded."""
        if type(message) in _RUN_NOTHING:
            self._handle_outside(message)
        elif is_installed(self._runner.namespace.side):
            self._handle(message)
        else:
            with self._runner.namespace.installed():
                self._handle(message)

    def _handle_outside(self, message: messages.Message) -> None:
        match message:
            case PassOn():
                self._pass_on(*message)
            case Deliver(first):
                self._deliver(first)
            case _:
                # To a question that was given up.
                self._answers.append(message)  # type: ignore[arg-type]

    def _handle(self, message: messages.Message) -> None:
        match message:
            case Work():
                if message.levels is not None:
                    self._runner.follow_levels(message.levels)
                self._work(message.parts)
            case DefineNames() | Define() | Forget() | SetPath() | Drop():
                self._runner.prepare(message)
            case Initialize(farm, _, initializer):
                started = time.perf_counter()
                failure = self._runner.initialize(message)
                if initializer is not None:
                    self._send(messages.Ready(farm, failure, time.perf_counter() - started))
            case Recall() | Abandon() | Cancel():
                self._break_off(message)
            case Stop(leave):
                self._stop(leave)
            case _:
                self._handle_rare(message)

    def _handle_rare(self, message: messages.Message) -> None:
        match message:
            case Ping(limit):
                self._silence_limit, self._last_ping = limit, time.perf_counter()
                self._send(messages.Pong())
            case ReportStack():
                self._send(messages.OutputLine(STACK, 0, "", *self._runner.current_stack()))
            case StartGang() | EndGang() | DropComms() | Regroup():
                self._gang_member.handle(message)
            case Settled() | Withdrawn():
                # The task has not waited for it to the end.
                self._runner.spawner.take(message)
            case SendKept(token):
                self._send_kept(token)
            case Release(tokens):
                self._runner.kept_results.release(tokens)
            case _:
                raise AssertionError(f"not for a worker: {message!r}")

    def _stop(self, leave: bool) -> None:
        """Take the poison pill."""
        if self._member is not None and not leave:
            self._member.close()
        self.stopped, self.leaves = True, leave
        # A thread that a task has left may print for ever.
        self._runner.restore_output()
        self._send(messages.Goodbye(self._runner.num_tasks))

    @property
    def _gang_member(self) -> "GangMember":
        """What runs tasks together with other workers; most workers never do."""
        if self._member is None:
            from taskfarm.worker.gang import GangMember

            self._member = GangMember(self._transport, self._runner, self._send)
        return self._member

    def _break_off(self, message: Recall | Abandon | Cancel) -> None:
        if isinstance(message, Abandon):
            self._abandon(message.farm)
            return
        # What waits here must not start.
        self._answer_recall()
        if isinstance(message, Cancel):
            self._runner.cancel(message.task)

    def _work(self, parts: list[messages.Part]) -> None:
        if self._propagate and interrupts.pending():
            # The job is to be interrupted before it starts anything more.
            self._send(messages.Returned([(part.first, part.count) for part in parts], None))
            return
        outcomes = []
        for one in self._runner.run(parts):
            if one.covers is None or not self._hold(one):
                outcomes.append(one)
        if outcomes:
            self._send(messages.Results(outcomes))
        left = self._runner.release_left()
        if left or self._runner.interrupted is not None:
            self._send(messages.Returned(left, None))
        if self._runner.interrupted is not None:
            interrupts.postpone(self._runner.interrupted)

    def _send_kept(self, token: bytes) -> None:
        """Send a result that this worker keeps to the master."""
        from taskfarm.protocol import layout

        memory = self._memory_of(token)
        if memory is not None:
            self._send(messages.SentKept(token, layout.read(memory)))

    def _memory_of(self, token: bytes) -> memoryview | None:
        """Data that this worker has; tells the master if it has it no more."""
        memory = self._runner.memory_of(token)
        if memory is None:
            self._send(messages.Failed(token, "", LOST, "", final=False))
        return memory

    def _abandon(self, farm: int) -> None:
        """Break off the running task if it belongs to a farm for whose results nobody waits."""
        for first in list(self._held):
            self._deliver(first)
        # What waits here must not start.
        self._answer_recall()
        self._runner.abandon(farm)

    def _hold(self, outcomes: Outcomes) -> bool:
        """Hold back large values of a reduction: the master has no room for those of all workers."""
        nbytes = 0 if isinstance(outcomes.values, bytes) else sum(map(size_of, outcomes.values))
        if nbytes < HELD_BYTES:
            return False
        self._held[outcomes.first] = outcomes
        self._send(messages.Held(outcomes.first, outcomes.count, outcomes.seconds, nbytes))
        return True

    def _deliver(self, first: int) -> None:
        """Send what was held back."""
        outcomes = self._held.pop(first, None)
        if outcomes is not None:
            self._send(messages.Results([outcomes]))

    def _answer_recall(self) -> None:
        """Return to the master the calls that have not started here."""
        tasks, running = self._runner.release_unstarted()
        kept = []
        for received in self._inbox:
            if received.parcel.tag == messages.TAGS[Work]:
                work = messages.Work(*messages.decode(received.parcel))
                tasks.extend((part.first, part.count) for part in work.parts)
                if self._helper is not None:
                    self._helper.returned(work.helps)
                self._runner.follow_levels(work.levels)
            else:
                kept.append(received)
        self._inbox = deque(kept)
        self._send(messages.Returned(tasks, running))

    def _send(self, message: messages.ToMaster) -> None:
        # Not `with`, which takes twice as long.
        lock = self._lock
        lock.acquire()
        try:
            self._transport.send(MASTER, messages.encode(message))
        finally:
            lock.release()

    def _next(self) -> Received | None:
        """The next message, if one has arrived."""
        if self._progress is not None and self._progress.error is not None:
            raise self._progress.error
        lock = self._lock
        lock.acquire()
        try:
            return self._inbox.popleft() if self._inbox else self._transport.poll()
        finally:
            lock.release()

    def _keep(self, received: Received) -> None:
        """Keep a message that has arrived while another one is handled."""
        if received.parcel.tag in _ANSWER_TAGS:
            self._answers.append(messages.decode(received.parcel))  # type: ignore[arg-type]
        else:
            self._inbox.append(received)

    # While a task waits for tasks that it has submitted

    @property
    def runner(self) -> Runner:
        """What runs the tasks."""
        return self._runner

    @property
    def num_workers(self) -> int:
        """Number of workers of this run."""
        return max(1, self._transport.size - 1)

    @property
    def is_waiting(self) -> bool:
        """Whether a task of this worker waits for others."""
        return self._helper is not None and self._helper.depth > 0

    def _make_helper(self) -> "Helper":
        """What lets tasks submit tasks and wait for them, when one does for the first time."""
        from taskfarm.worker.helping import Helper

        self._helper = Helper(self)
        self._runner.never_break_off_in(Helper.wait_for)  # type: ignore[arg-type]
        return self._helper

    def send(self, message: messages.ToMaster) -> None:
        """Send a message to the master."""
        self._send(message)

    def next_while_waiting(self, waited: float) -> Parcel | None:
        """The next message, or None after a pause, or after the master in this process has run."""
        received = self._next()
        if received is not None:
            self._waiter.received()
            return received.parcel
        if not self._transport.run_master():
            self._check_master()
            self._waiter.pause(waited)
        return None

    def take_work(self) -> list[Parcel]:
        """Take the batches that have arrived."""
        with self._lock:
            work = [one.parcel for one in self._inbox if one.parcel.tag == messages.TAGS[Work]]
            self._inbox = deque(one for one in self._inbox if one.parcel.tag != messages.TAGS[Work])
        return work

    def put_back(self, parcel: Parcel) -> None:
        """Handle a message again, before those that arrive from now on."""
        with self._lock:
            self._inbox.append(Received(MASTER, parcel))

    def handle_kept(self) -> None:
        """Handle what a task in this process has left when it waited."""
        while self._inbox and not self.is_waiting:
            self.handle(self._inbox.popleft().parcel)

    def handle_meanwhile(self, parcel: Parcel) -> None:
        """Handle a message that has arrived in this process while a task waits."""
        if self._helper is not None:
            self._helper.handle(parcel)

    def _make_fetcher(self) -> "Fetcher":
        """What gets shared data from the master, when a task first needs some."""
        from taskfarm.worker.shared_fetch import Fetcher

        transport = self._transport
        fetcher = Fetcher(
            transport.rank, self._send, self._await_answer, self._expect, sends=transport.threads
        )
        self._transport.receive_into(messages.TAGS[Give], fetcher.memory)
        self._runner.never_break_off_in(Fetcher.fetch)  # type: ignore[arg-type]
        return fetcher

    def _expect(
        self, source: int, number: int, memory: memoryview, complete: Parcel, overdue: Parcel
    ) -> None:
        with self._lock:
            self._transport.expect(source, number, memory, complete, overdue)

    def _pass_on(self, token: bytes, worker: int, number: int) -> None:
        """Send data to a worker of another host, unless it was freed."""
        memory = self._memory_of(token)
        if memory is not None:
            with self._lock:
                self._transport.pass_on(worker, number, memory)

    def _await_answer(self) -> Answer:
        """Wait for what the master answers to a question of a task; any thread of it may ask."""
        since = time.perf_counter()
        while True:
            with self._lock, self._ends_with_the_master():
                if self._answers:
                    return self._answers.popleft()
                received = self._transport.poll()
                if received is not None and received.parcel.tag in URGENT:
                    self.handle(received.parcel)
                elif received is not None:
                    self._keep(received)
                elif any(waiting.parcel.tag == messages.TAGS[Stop] for waiting in self._inbox):
                    raise SharedDataError("the run ends, so there is no shared data any more")
                self._check_master()
            if received is None:
                self._waiter.pause(time.perf_counter() - since)
            else:
                self._waiter.received()

    def _move(self) -> None:
        """Move messages while the other thread runs a task: keep them, but answer the urgent ones."""
        ended = time.perf_counter() + MOVING_SECONDS
        with self._lock, self._ends_with_the_master():
            while (received := self._transport.poll()) or self._transport.moving:
                if received is None:
                    if time.perf_counter() > ended:
                        return
                elif received.parcel.tag in URGENT:
                    self.handle(received.parcel)
                else:
                    self._keep(received)
            self._runner.break_off()
            if self._member is not None:
                self._member.check()
            self._check_master()

    def _check_master(self) -> None:
        """Raise MasterLost if the master has been silent for too long."""
        if self._silence_limit is None:
            return
        now = time.perf_counter()
        if now - self._last_check > self._silence_limit / 4:
            # A worker that was itself held up cannot tell who has been silent meanwhile.
            self._last_ping = now
        self._last_check = now
        if now - self._last_ping > self._silence_limit:
            raise MasterLost(f"no message from rank 0 for {now - self._last_ping:.0f} s")

    @contextlib.contextmanager
    def _ends_with_the_master(self) -> Iterator[None]:
        """End this process if the master is lost, whatever its other thread does."""
        try:
            yield
        except MasterLost as error:
            # Not over a stream that would send it to the master.
            line = f"taskfarm: rank {self._transport.rank} ends: {error}"
            write_to(sys.__stderr__, f"{line}\n")
            # Under Open MPI the survivors would not notice an exit with another code.
            os.kill(os.getpid(), signal.SIGKILL)

    def _flush(self) -> None:
        """Wait until what was sent has left: a large result moves only while MPI is called.

        If the progress thread can see to that, the next batch need not wait for a busy master.
        """
        if not self._transport.unsent():
            return
        started = time.perf_counter()
        while unsent := self._transport.unsent():
            waited = time.perf_counter() - started
            enough = MOVING_SECONDS if unsent == 1 else MAX_FLUSH_SECONDS
            if self._progress and self._inbox and waited > enough:
                return
            with self._lock:
                received = self._transport.poll()
                if received is not None:
                    self._keep(received)
            if received is None:
                self._check_master()
                self._waiter.pause(waited)
