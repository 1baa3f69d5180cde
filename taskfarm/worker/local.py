"""The transport of a run with one rank: its worker runs in the master's own process and thread."""

from collections import deque
from collections.abc import Callable

from taskfarm.protocol.messages import Buffer, Parcel, TooLarge
from taskfarm.transport.frames import allocate
from taskfarm.transport.interface import Received, Transport
from taskfarm.worker.context import INLINE
from taskfarm.worker.worker import Worker


def copied(parcel: Parcel) -> Parcel:
    """A copy of a parcel, in the memory that its receiver would have allocated for it."""
    return Parcel(parcel.tag, bytes(parcel.head), [_copied(buffer) for buffer in parcel.buffers])


def _copied(buffer: Buffer) -> Buffer:
    copy = allocate(memoryview(buffer).nbytes)
    if not isinstance(copy, TooLarge):
        memoryview(copy)[:] = buffer
    return copy


class _InProcessTransport(Transport):
    """One end of a transport within one process, where every parcel arrives immediately."""

    in_process = True

    def unsent(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self, code: int) -> None:
        raise SystemExit(code)


class LocalTransport(_InProcessTransport):
    """The master's end; its only worker, rank 1, handles each message inside `send`.

    So a serial run behaves like a run under MPI (arguments and results are pickled, exceptions carry their
    remote traceback), but a debugger can step from the caller into the task. KeyboardInterrupt comes from
    the user, not from the task, and is raised where the job waits; the task that it interrupted runs again.
    """

    inline = True
    threads = False

    def __init__(self) -> None:
        self.rank = 0
        self.size = 2
        self._arrived: deque[Received] = deque()
        self._end = WorkerEnd(1, self._arrived)
        self._worker = Worker(self._end, propagate=(KeyboardInterrupt,))
        self._worker.send_hello()

    def run_meanwhile(self, run_master: Callable[[], bool]) -> None:
        self._end.run_master = run_master  # type: ignore[method-assign]

    def send(self, dest: int, parcel: Parcel) -> None:
        if self._worker.is_waiting:
            self._worker.put_back(copied(parcel))
            return
        with INLINE:
            self._worker.handle(copied(parcel))
            self._worker.handle_kept()

    def poll(self) -> Received | None:
        return self._arrived.popleft() if self._arrived else None


class WorkerEnd(_InProcessTransport):
    """The worker's end: the master receives its parcels immediately."""

    def __init__(self, rank: int, arrived: deque[Received]) -> None:
        self.rank = rank
        self.size = rank + 1
        self._arrived = arrived

    def send(self, dest: int, parcel: Parcel) -> None:
        self._arrived.append(Received(self.rank, copied(parcel)))

    def poll(self) -> Received | None:
        return None
