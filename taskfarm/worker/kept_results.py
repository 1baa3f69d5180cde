"""The results that a worker keeps, and how a task gets those that it depends on.

A kept result is a file in memory. Every process of its host opens it there, whatever the worker that has it
does meanwhile. Another host gets it once, from that worker, as it gets shared data.
"""

import os
import resource
from collections.abc import Iterable
from functools import cache
from typing import Any

from taskfarm.errors import HostMemoryError, ResultLost, SharedDataError
from taskfarm.protocol import layout, shared
from taskfarm.protocol.kept import KEEP_BYTES, MARK, Kept, reference
from taskfarm.protocol.messages import Blob, Outcomes
from taskfarm.protocol.serialize import loads, nbytes
from taskfarm.transport.segments import Segment, host_key, store
from taskfarm.worker.context import Place
from taskfarm.worker.shared_data import Found, SharedData

OTHER_FILES = 64
"""Files that a worker has open besides, or a few more than that."""


@cache
def _host() -> str:
    return host_key()


def _max_files() -> int:
    """Most results to keep: each is an open file, of which tasks need some, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft - OTHER_FILES) // 2 if soft > 0 else 1 << 16


class KeptResults:
    """What a process has of kept results.

    Parameters
    ----------
    place : Place
        Rank and host.
    shared_data : SharedData
        Gets data from other hosts, once for each.
    """

    def __init__(self, place: Place, shared_data: SharedData) -> None:
        self._place = place
        self._shared_data = shared_data
        self._own: dict[bytes, Segment] = {}

    def keep(self, outcomes: Outcomes) -> Outcomes:
        """Outcomes with references in the place of large results, which stay here.

        The results of a map go to the job anyway. Those for which there is no room travel as usual, and so
        does what is not known yet, because a task has returned futures.
        """
        # Calls that were queued one by one are those without a source.
        if outcomes.source >= 0 or not isinstance(outcomes.values, list):
            return outcomes
        joins = outcomes.joins or ()
        found = {
            offset: kept
            for offset, blob in enumerate(outcomes.values)
            if offset not in joins and (kept := self._keep(blob))
        }
        values = [
            _reference(blob, found[offset]) if offset in found else blob
            for offset, blob in enumerate(outcomes.values)
        ]
        return outcomes._replace(values=values, kept=found)

    def _keep(self, blob: Blob) -> Kept | None:
        if nbytes(blob) < KEEP_BYTES or len(self._own) >= _max_files():
            return None
        try:
            segment = store(blob, mapped=False)
        except (HostMemoryError, OSError):
            return None
        token = MARK + os.urandom(12)
        self._own[token] = segment
        return Kept(token, self._place.rank, segment.nbytes, _host(), segment.location)

    def load(self, kept: Kept) -> Any:
        """The value of a kept result: a copy of its own for each call.

        Raises
        ------
        ResultLost
            Nobody has it any more.
        HostMemoryError
            This host has no room for it.
        """
        try:
            return loads(layout.read(self._find(kept).copy()))
        finally:
            if self._place.child:
                # Nobody tells a child process when to drop it.
                self._shared_data.drop([kept.token])

    def _find(self, kept: Kept) -> Segment:
        own = self._own.get(kept.token)
        if own is not None:
            return own
        if kept.host == _host():
            try:
                return Segment.open(kept.location, mapped=False)
            except OSError:
                # Its process has ended, or the processes of this host cannot see each other.
                pass
        try:
            source = self._shared_data.find(kept.token)
        except HostMemoryError:
            raise
        except SharedDataError as error:
            lost = ResultLost(str(error))
            lost.token = kept.token
            raise lost from None
        assert isinstance(source, Found)
        return source.segment

    def memory_of(self, token: bytes) -> memoryview | None:
        """A result that was made here, if it is not dropped."""
        own = self._own.get(token)
        return None if own is None else own.copy()

    def release(self, tokens: Iterable[bytes]) -> None:
        """Drop results; another thread may be using others."""
        for token in tokens:
            self._own.pop(token, None)
        self._shared_data.drop(tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the results take that were made here."""
        return sum(segment.nbytes for segment in list(self._own.values()))


def _reference(blob: Blob, kept: Kept) -> Blob:
    return reference(kept, shared.all_tokens_in(blob.data))._replace(needs=blob.needs)
