"""Rank 0's part in sharing data: answers workers that need it, and tells them what was freed."""

from taskfarm.master.data_server import DataServer, Origin
from taskfarm.master.workers import WorkerTable
from taskfarm.protocol import shared
from taskfarm.protocol.messages import FREED, Drop


class SharedDataServer(DataServer):
    """Gives workers the data of the job's handles.

    Parameters
    ----------
    workers : WorkerTable
        The workers.

    Attributes
    ----------
    freed : deque of bytes
        The tokens of what the job has freed, until the workers are told.
    """

    def __init__(self, workers: WorkerTable) -> None:
        super().__init__(workers, _origin, FREED, str(shared.unavailable(FREED)))
        self.freed = shared.follow_freed()

    def drop_freed(self) -> None:
        """Let the workers drop what the job has freed since the last call."""
        if not self.freed:
            return
        tokens = [self.freed.popleft() for _ in range(len(self.freed))]
        for token in tokens:
            self.drop(token)
        for worker in self._workers.connected:
            self._workers.send(worker, Drop(tokens))


def _origin(token: bytes) -> Origin | None:
    handle = shared.find(token)
    source = None if handle is None else handle.source
    if handle is None or source is None:
        return None
    stored = handle.stored
    return Origin(source, source.needs, None if stored is None else stored.segment.location)
