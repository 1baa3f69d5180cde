"""The worker: receive, run, reply, until the poison pill."""

import os
import platform
import socket
import sys
import time
from collections import deque

from taskfarm import messages
from taskfarm._version import __version__
from taskfarm.messages import Define, Initialize, Parcel, Stop, Work
from taskfarm.running import Runner
from taskfarm.task import Blob
from taskfarm.transport import Received, Transport
from taskfarm.waiting import CLOCK

MASTER = 0


class Worker:
    """One worker over one transport.

    Parameters
    ----------
    transport : Transport
        The way to the master.
    passes : tuple of exception types
        What goes through to the caller of `handle` when a task raises it, after the batch has been
        answered for.
    """

    def __init__(self, transport: Transport, passes: tuple[type[BaseException], ...] = ()) -> None:
        self._transport = transport
        self._host = socket.gethostname()
        self._runner = Runner(f"rank {transport.rank} ({self._host})", passes)
        self._inbox: deque[Received] = deque()
        self.stopped = False

    def greet(self) -> None:
        """Tell the master that this worker is there."""
        self._send(messages.Hello(__version__, platform.python_version(), self._host, os.getpid()))

    def serve(self) -> None:
        """Work until the poison pill."""
        self.greet()
        waiting_since = time.perf_counter()
        while not self.stopped:
            received = self._inbox.popleft() if self._inbox else self._transport.poll()
            if received is None:
                CLOCK.rest(time.perf_counter() - waiting_since)
                continue
            self.handle(received.parcel)
            self._flush()
            waiting_since = time.perf_counter()

    def handle(self, parcel: Parcel) -> None:
        """Do what one message asks for."""
        message = messages.decode(parcel)
        match message:
            case Work(parts):
                outcomes = self._runner.run(parts)
                self._send(messages.Results(outcomes))
                if self._runner.interrupted is not None:
                    raise self._runner.interrupted
            case Define(function, name, blob, forget):
                self._runner.define(function, name, blob, forget)
            case Initialize(farm, path, blob):
                self._initialize(farm, path, blob)
            case Stop():
                self.stopped = True
                self._send(messages.Goodbye(self._runner.tasks))
            case _:
                raise AssertionError(f"not for a worker: {message!r}")

    def _initialize(self, farm: int, path: list[str], blob: Blob | None) -> None:
        sys.path.extend(place for place in path if place not in sys.path)
        failure = self._runner.initialize(blob) if blob else None
        self._send(messages.Ready(farm, failure))

    def _send(self, message: messages.ToMaster) -> None:
        self._transport.send(MASTER, messages.encode(message))

    def _flush(self) -> None:
        """Wait until what was sent has left: a large result moves only while MPI is called."""
        started = time.perf_counter()
        while self._transport.unsent():
            received = self._transport.poll()
            if received is None:
                CLOCK.rest(time.perf_counter() - started)
            else:
                self._inbox.append(received)
