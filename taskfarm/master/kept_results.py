"""Rank 0's part in results that stay with their workers: it knows where each is, and who needs it."""

from collections import deque
from functools import cached_property, partial
from typing import Any
from weakref import ref

from taskfarm.master.shared_places import Decision, Lead, Refuse, SharedPlaces, Show
from taskfarm.master.workers import WorkerTable
from taskfarm.protocol import layout
from taskfarm.protocol.kept import Kept, reference
from taskfarm.protocol.messages import (
    LOST,
    Attach,
    Blob,
    Failed,
    Fetch,
    Have,
    Passed,
    PassOn,
    Receive,
    Release,
    Reserve,
    Unavailable,
)
from taskfarm.transport.segments import Segment, host_key


class KeptResult:
    """A result that stays with the worker that made it; freed when nobody refers to it any more.

    Attributes
    ----------
    at : Kept or None
        Where it is; None if it is lost.
    holders : dict of int to Kept
        The workers that have it, one or more of each host.
    arrived : Blob or None
        The result itself, once rank 0 has got it.
    """

    __slots__ = ("__weakref__", "arrived", "at", "holders", "nbytes")

    def __init__(self, kept: Kept) -> None:
        self.at: Kept | None = kept
        self.nbytes = kept.nbytes
        self.holders = {kept.worker: kept}
        self.arrived: Blob | None = None

    @property
    def reference(self) -> Blob:
        """What a task gets in its place."""
        assert self.at is not None
        return reference(self.at)


class KeptResults:
    """Follows where kept results are, answers workers that need one, and tells them what is freed.

    Parameters
    ----------
    workers : WorkerTable
        The workers.

    Attributes
    ----------
    functions : set of int
        The functions whose results may be kept.
    """

    def __init__(self, workers: WorkerTable) -> None:
        self._workers = workers
        self._places = SharedPlaces()
        self._results: dict[bytes, ref[KeptResult]] = {}
        self._receiving: dict[tuple[int, bytes], int] = {}
        # The garbage collector may run at any moment, so it only notes what the event loop has to do.
        self._dropped: deque[bytes] = deque()
        self.functions: set[int] = set()

    def __contains__(self, token: bytes) -> bool:
        return token in self._results

    def add(self, kept: Kept, result: KeptResult | None = None) -> KeptResult:
        """Enter what a worker has kept; `result` is what was lost and has been made again."""
        token = kept.token
        if result is None:
            result = KeptResult(kept)
        else:
            result.at, result.holders = kept, {kept.worker: kept}
        self._results[token] = ref(result, partial(_note, self._dropped, token))
        self._places.keep(kept.worker, token, kept.host, kept.location)
        return result

    def find(self, token: bytes) -> KeptResult | None:
        """The result with a token, unless it is freed."""
        found = self._results.get(token)
        return None if found is None else found()

    def handle(self, worker: int, message: Fetch | Have | Failed | Passed) -> None:
        """Answer a message of a worker."""
        match message:
            case Fetch(token, host, reserved):
                self._answer(worker, token, host, reserved)
            case Have(token, host, location):
                self._receiving.pop((worker, token), None)
                result = self.find(token)
                if result is None or result.at is None:
                    self._workers.send(worker, Release([token]))
                    return
                result.holders[worker] = result.at._replace(worker=worker, host=host, location=location)
                self._carry_out(self._places.has(worker, token, host, location))
            case Failed(token, host, why, text, final):
                self._carry_out(self._places.failed(worker, token, host, why, text, final))
            case Passed(token, blob):
                if (result := self.find(token)) is not None:
                    result.arrived = blob

    def remove(self, worker: int) -> list[KeptResult]:
        """Note that a worker is lost; returns the results that are lost with it."""
        self._carry_out(self._places.remove(worker))
        lost: list[KeptResult] = []
        for token, found in list(self._results.items()):
            result = found()
            if result is None or result.holders.pop(worker, None) is None:
                continue
            if result.at is not None and result.at.worker == worker:
                result.at = next(iter(result.holders.values()), None)
            if result.at is None and result.arrived is None:
                self._carry_out(self._places.drop(token, LOST, _LOST_TEXT))
                lost.append(result)
        for (receiver, token), source in list(self._receiving.items()):
            if receiver == worker:
                del self._receiving[receiver, token]
            elif source == worker:
                del self._receiving[receiver, token]
                host = self._places.host_led_by(receiver, token)
                self._workers.send(receiver, Unavailable(token, LOST, _LOST_TEXT))
                self._carry_out(self._places.failed(receiver, token, host, LOST, _LOST_TEXT, False))
        return lost

    def release_dropped(self) -> None:
        """Let the workers drop what nobody needs any more."""
        if not self._dropped:
            return
        tokens: dict[int, list[bytes]] = {}
        while self._dropped:
            token = self._dropped.popleft()
            del self._results[token]
            for worker in self._places.holders(token):
                tokens.setdefault(worker, []).append(token)
            self._carry_out(self._places.drop(token, LOST, _LOST_TEXT))
        for worker, dropped in tokens.items():
            if worker in self._workers.connected:
                self._workers.send(worker, Release(dropped))

    def open_here(self, result: KeptResult) -> Blob | None:
        """A result as it was pickled, if its worker is on rank 0's host.

        Otherwise it is asked for: `KeptResult.arrived`, or no `KeptResult.at`, tells when to ask again.
        """
        if result.arrived is not None or result.at is None:
            return result.arrived
        for kept in result.holders.values():
            if kept.host == self._host:
                try:
                    return layout.read(Segment.open(kept.location, mapped=False).copy())
                except OSError:
                    # Its process has ended, or the processes of this host cannot see each other.
                    continue
        self._workers.send(result.at.worker, PassOn(result.at.token, 0))
        return None

    @cached_property
    def _host(self) -> str:
        return host_key()

    def _answer(self, worker: int, token: bytes, host: str, reserved: bool) -> None:
        result = self.find(token)
        if result is None or result.at is None:
            self._workers.send(worker, Unavailable(token, LOST, _LOST_TEXT))
        elif reserved and self._places.leads(worker, token, host):
            source = result.at.worker
            self._receiving[worker, token] = source
            # Both go out in one order to all workers, so that what passes between two of them has one, too.
            self._workers.send(source, PassOn(token, worker))
            self._workers.send(worker, Receive(token, source))
        else:
            self._carry_out(self._places.request(worker, token, host))

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Lead(worker, token):
                    result = self.find(token)
                    if result is None:
                        self._workers.send(worker, Unavailable(token, LOST, _LOST_TEXT))
                    else:
                        self._workers.send(worker, Reserve(token, result.nbytes))
                case Show(worker, token, location):
                    self._workers.send(worker, Attach(token, location))
                case Refuse(worker, token, why, text):
                    self._workers.send(worker, Unavailable(token, why, text))


_LOST_TEXT = "the worker that kept a result is lost"


def _note(dropped: deque[bytes], token: bytes, _: Any) -> None:
    dropped.append(token)
