"""Results that are received where their sink wants them, without a copy: the blocks of `map_array`."""

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakSet

from taskfarm.master.event_loop import EventLoop
from taskfarm.master.interfaces import ResultSink
from taskfarm.master.pending_calls import PendingCalls
from taskfarm.protocol import messages
from taskfarm.protocol.messages import Blob, Results
from taskfarm.transport.frames import allocate

ARRIVING_SECONDS = 5.0
"""Seconds that the end of a map waits for what is still being received into its array."""


class PlacingSink(ResultSink, Protocol):
    """A sink that has memory for results before they arrive."""

    def place_of(self, task: int, data: bytes) -> Any | None:
        """Where the buffer of a result goes, an array of bytes; called under the master's lock.

        Parameters
        ----------
        task : int
            The task, which has not ended.
        data : bytes
            The pickle of the result without its buffer.

        Returns
        -------
        ndarray or None
            None if it needs memory of its own.
        """


class ResultPlaces:
    """Tells the transport where results of some maps go.

    Parameters
    ----------
    master : EventLoop
        Whose transport receives them.
    pending : PendingCalls
        The calls that have not ended.
    """

    def __init__(self, master: EventLoop, pending: PendingCalls) -> None:
        self._master = master
        self._pending = pending
        # Weak, because a map that was interrupted at its end may not have closed its entry.
        self._sinks: WeakSet[PlacingSink] = WeakSet()

    def open(self, sink: PlacingSink) -> None:
        """Ask a sink from now on where its results go."""
        with self._master.lock:
            self._sinks.add(sink)
            self._master.transport.receive_into(messages.TAGS[Results], self._allocate)

    def close(self, sink: PlacingSink, memory: Any) -> bool:
        """Ask a sink no more, and wait until nothing is received into its array.

        Returns
        -------
        bool
            False if something may still be: a worker has stopped, or was given up, in the middle of it.
        """
        master = self._master
        with master.lock:
            self._sinks.discard(sink)
            if not (self._sinks or master.closed):
                master.transport.receive_into(messages.TAGS[Results], None)
        since = master.clock.now()
        while self._is_received(memory):
            waited = master.clock.now() - since
            if waited > ARRIVING_SECONDS:
                return False
            if not master.run_once(deliver=False):
                master.waiter.pause(waited)
        return True

    def _is_received(self, memory: Any) -> bool:
        with self._master.lock:
            return self._master.transport.receives_into(memory)

    def _allocate(self, head: bytearray, sizes: Sequence[int]) -> list[Any]:
        """The memory for the buffers of a message; called by the transport, under the master's lock."""
        places: dict[int, Any] = {}
        # What a child process has sent to its worker is pickled in another way, and needs the buffers.
        with contextlib.suppress(ValueError):
            # Numbers stand for the buffers, which have not arrived.
            parts = messages.decode_head(Results, head, len(sizes)).parts if head else []
            for outcomes in parts:
                sink: Any = self._pending.sink_of(outcomes.source, outcomes.first)
                if sink in self._sinks and not (outcomes.failures or isinstance(outcomes.values, bytes)):
                    for task, blob in enumerate(outcomes.values, outcomes.first):
                        self._find(sink, task, blob, places)
        return [
            place if (place := places.get(at)) is not None and place.nbytes == size else allocate(size)
            for at, size in enumerate(sizes)
        ]

    @staticmethod
    def _find(sink: PlacingSink, task: int, blob: Blob, places: dict[int, Any]) -> None:
        data = blob.data
        if len(blob.buffers) == 1 and isinstance(data, bytes) and not (blob.needs or blob.results):
            place = sink.place_of(task, data)
            if place is not None:
                places[messages.buffer_number(blob.buffers[0])] = place
