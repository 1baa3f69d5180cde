"""What runs in the child process of a worker: receive, run, reply, until the poison pill."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Sequence

from taskfarm.protocol import messages
from taskfarm.protocol.messages import (
    Define,
    DefineNames,
    Forget,
    Initialize,
    OutputLine,
    Ready,
    Results,
    SetPath,
    Stop,
    Work,
)
from taskfarm.worker.channel import CONNECTION_LOST, Channel, ChannelBroken
from taskfarm.worker.context import Place
from taskfarm.worker.runner import Runner

OOM_SCORE = 500
"""Added to the score by which Linux chooses what to kill when memory runs out."""

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    """Serve as a child until the poison pill.

    Parameters
    ----------
    arguments : sequence of str
        Process id of the worker, its rank and host, whether to send what tasks print, and the descriptors
        of the crash report and of the channel.
    """
    parent, rank, host, captures_output, *numbers = arguments
    report, *descriptors = map(int, numbers)
    del sys.argv[1:]
    _die_with(int(parent))
    # Ctrl-C is for the worker, which decides. A handler, unlike SIG_IGN, is not inherited by exec.
    signal.signal(signal.SIGINT, lambda *_: None)
    _raise_oom_score()
    faulthandler.enable(report)
    # So the worker learns where a task is that has passed its limit, whoever holds the interpreter lock.
    faulthandler.register(signal.SIGQUIT, report)
    channel = Channel.inherited(descriptors)
    runner = Runner(Place(int(rank), host, child=True), ())
    runner.namespace.install()
    if int(captures_output):
        # Threads of a task print, too.
        lock = threading.Lock()

        def send(line: OutputLine) -> None:
            with lock:
                channel.send(messages.encode(line))

        runner.capture_output(send)
    try:
        while answer(channel, runner):
            pass
    except ChannelBroken:
        os._exit(CONNECTION_LOST)


def answer(channel: Channel, runner: Runner) -> bool:
    """Handle the next message; False after the poison pill.

    Each message has a call of its own, so that nothing of it is kept while the next one is awaited.
    """
    parcel = channel.receive()
    assert parcel is not None
    message = messages.decode(parcel)
    match message:
        case Work(parts):
            channel.send(messages.encode(Results(runner.run(parts))))
            _flush()
        case DefineNames() | Define() | Forget() | SetPath():
            runner.prepare(message)
            if isinstance(message, Define):
                runner.load(message.function)
        case Initialize(farm):
            channel.send(messages.encode(Ready(farm, runner.initialize(message))))
            _flush()
        case Stop():
            return False
        case _:
            raise AssertionError(f"not for a child: {message!r}")
    return True


def _flush() -> None:
    """Write out what the task has printed: a later task may end the process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


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
