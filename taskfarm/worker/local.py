"""One rank: a worker in the master's own process and thread, behind the same messages."""

from collections import deque

from taskfarm.protocol.messages import Parcel
from taskfarm.transport.interface import Received, Transport
from taskfarm.worker.worker import Worker


def copied(parcel: Parcel) -> Parcel:
    """The parcel as its receiver would have it: in memory of its own."""
    buffers = []
    if parcel.buffers:
        import numpy  # late: a farm of small messages never needs it

        buffers = [numpy.frombuffer(buffer, dtype=numpy.uint8).copy() for buffer in parcel.buffers]
    return Parcel(parcel.tag, bytes(parcel.head), buffers)


class _InProcess(Transport):
    """An end of a wire on which all is there at once."""

    def unsent(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self, code: int) -> None:
        raise SystemExit(code)


class LocalTransport(_InProcess):
    """The master's end; its one worker, rank 1, runs each message inside `send`.

    So a serial run does what a run under MPI does (arguments and results are pickled, exceptions
    carry their remote traceback), yet a debugger can step from the caller into the task.
    KeyboardInterrupt is the user's, not the task's, and goes through.
    """

    inline = True
    threads = False

    def __init__(self) -> None:
        self.rank = 0
        self.size = 2
        self._arrived: deque[Received] = deque()
        self._worker = Worker(WorkerEnd(1, self._arrived), passes=(KeyboardInterrupt,))
        self._worker.send_hello()

    def send(self, dest: int, parcel: Parcel) -> None:
        self._worker.handle(copied(parcel))

    def poll(self) -> Received | None:
        return self._arrived.popleft() if self._arrived else None


class WorkerEnd(_InProcess):
    """The worker's end: what it sends is there at once."""

    def __init__(self, rank: int, arrived: deque[Received]) -> None:
        self.rank = rank
        self.size = rank + 1
        self._arrived = arrived

    def send(self, dest: int, parcel: Parcel) -> None:
        self._arrived.append(Received(self.rank, copied(parcel)))

    def poll(self) -> Received | None:
        return None
