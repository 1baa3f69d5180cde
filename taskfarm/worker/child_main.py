"""What runs in the child process of a worker: receive, run, reply, until the poison pill."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from taskfarm.console import flush
from taskfarm.errors import SharedDataError
from taskfarm.fork_hooks import dump_stacks_on_sigquit, handle
from taskfarm.protocol import messages
from taskfarm.protocol.messages import (
    Answer,
    Define,
    DefineNames,
    Drop,
    Forget,
    Initialize,
    Ready,
    Results,
    SetPath,
    Stop,
    ToMaster,
    Work,
)
from taskfarm.worker.channel import CONNECTION_LOST, Channel, ChannelBroken
from taskfarm.worker.context import RUN, Place
from taskfarm.worker.left_behind import EndWatchdog
from taskfarm.worker.runner import Runner

if TYPE_CHECKING:
    from taskfarm.worker.shared_fetch import Fetcher
    from taskfarm.worker.spawning import Upstream

OOM_SCORE = 500
"""Added to the score by which Linux chooses what to kill when memory runs out."""

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    """Serve as a child until the poison pill.

    Parameters
    ----------
    arguments : sequence of str
        Process id of the worker, its rank and host, whether to send what tasks print, when the walltime is
        up, and the descriptors of the crash report and of the channel.
    """
    parent, rank, host, captures_output, ends, *numbers = arguments
    RUN.ends = float(ends)
    report, *descriptors = map(int, numbers)
    del sys.argv[1:]
    _die_with(int(parent))
    # Ctrl-C is for the worker, which decides. A handler, unlike SIG_IGN, is not inherited by exec.
    handle(signal.SIGINT, _ignore)
    _raise_oom_score()
    faulthandler.enable(report)
    # So the worker learns where a task is that has passed its limit, whoever holds the interpreter lock.
    dump_stacks_on_sigquit(report)
    channel = Channel.inherited(descriptors)
    runner = Runner(Place(int(rank), host, child=True), ())
    runner.namespace.install()
    runner.guard_signals()
    sender = _Sender(channel)
    runner.make_supplier = partial(_make_fetcher, channel, runner, sender)
    runner.make_upstream = partial(_make_upstream, channel, runner, sender)
    if int(captures_output):
        runner.capture_output(sender.send)
    try:
        while answer(channel, runner, sender):
            pass
    except ChannelBroken:
        os._exit(CONNECTION_LOST)
    sender.stop()
    runner.close()
    EndWatchdog(str(runner.place), lambda: os._exit(0)).start()


class _Sender:
    """Sends messages one at a time: threads of a task print, too.

    Attributes
    ----------
    idle : bool
        Whether the process waits for its next message.
    """

    def __init__(self, channel: Channel) -> None:
        self.idle = True
        self._channel = channel
        self._lock = threading.Lock()
        self._stopped = False

    def send(self, message: ToMaster) -> None:
        """Send a message."""
        try:
            if not self._stopped:
                with self._lock:
                    self._channel.send(messages.encode(message))
        except ChannelBroken:
            if not self._stopped:
                raise

    def stop(self) -> None:
        """Send nothing any more: the worker has stopped reading, though a thread may print for ever."""
        self._stopped = True
        self._channel.shut_down()


def _make_fetcher(channel: Channel, runner: Runner, sender: _Sender) -> "Fetcher":
    """What gets shared data from the worker, when a task first needs some."""
    from taskfarm.worker.shared_fetch import Fetcher

    def receive() -> Answer:
        if sender.idle:
            # The thread that waits for the next task would take the answer.
            raise SharedDataError(
                "a thread that a task has left cannot get shared data: let it take `.value` while its "
                "task runs"
            )
        parcel = channel.receive()
        assert parcel is not None
        return messages.decode(parcel)  # type: ignore[return-value]

    return Fetcher(runner.place.rank, sender.send, receive)


def _make_upstream(channel: Channel, runner: Runner, sender: _Sender) -> "Upstream":
    """The way by which tasks submit tasks, when one does for the first time."""
    from taskfarm.worker.child_nesting import UpstreamOfChild

    return UpstreamOfChild(channel, runner, sender.send)


def answer(channel: Channel, runner: Runner, sender: _Sender) -> bool:
    """Handle the next message; False after the poison pill.

    Each message has a call of its own, so that nothing of it is kept while the next one is awaited.
    """
    sender.idle = True
    parcel = channel.receive()
    sender.idle = False
    assert parcel is not None
    message = messages.decode(parcel)
    match message:
        case Work(parts, levels):
            runner.follow_levels(levels)
            sender.send(Results(runner.run(parts)))
            flush()
        case DefineNames() | Define() | Forget() | SetPath() | Drop():
            runner.prepare(message)
            if isinstance(message, Define):
                runner.load(message.function)
        case Initialize(farm):
            sender.send(Ready(farm, runner.initialize(message)))
            flush()
        case Stop():
            return False
        case _:
            raise AssertionError(f"not for a child: {message!r}")
    return True


def _ignore(*_: object) -> None:
    """Do nothing."""


def _die_with(parent: int) -> None:
    """Make sure that this process does not outlive its worker, however busy it is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(CONNECTION_LOST)


def _raise_oom_score() -> None:
    """Let the system's out-of-memory killer take this process before the rank."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = min(1000, int(file.read()) + OOM_SCORE)
        file.seek(0)
        file.write(str(score))
