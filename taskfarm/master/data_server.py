"""Tells workers where they get data that they need: what `SharedPlaces` decides is carried out here."""

import pickle
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from taskfarm.master.shared_places import Decision, Lead, Refuse, SharedPlaces, Show, Transfer
from taskfarm.master.workers import WorkerTable, ids_of
from taskfarm.protocol.kept import Kept
from taskfarm.protocol.messages import (
    Attach,
    Build,
    Failed,
    Fetch,
    Give,
    Have,
    Location,
    Reserve,
    Unavailable,
)
from taskfarm.protocol.shared import Recipe, Stored
from taskfarm.transport.segments import host_key


class Origin(NamedTuple):
    """Where data comes from.

    Attributes
    ----------
    source : Stored or Recipe or Kept
        The data on rank 0, how workers make it, or the worker that keeps it.
    needs : tuple of Definition
        The definitions that its pickle needs.
    here : Location or None
        Where processes of rank 0's host can open it.
    """

    source: Stored | Recipe | Kept
    needs: tuple[Any, ...] = ()
    here: Location | None = None


class DataServer:
    """Answers workers that need data.

    A worker on rank 0's own host opens it there, if rank 0 has it. On each other host one worker gets it,
    or builds it, and the others open it there. The hosts that have it send it to others.

    Parameters
    ----------
    workers : WorkerTable
        The workers.
    find : callable
        Returns the `Origin` of the data with a token; None if it is gone.
    why, text : str
        Why there is no data that is gone.

    Attributes
    ----------
    places : SharedPlaces
        Decides who gets data from whom.
    """

    def __init__(
        self, workers: WorkerTable, find: Callable[[bytes], Origin | None], why: str, text: str
    ) -> None:
        self._workers = workers
        self._find = find
        self._why, self._text = why, text
        self.places = SharedPlaces()

    def handle(self, worker: int, message: Fetch | Have | Failed) -> None:
        """Answer a message of a worker."""
        match message:
            case Fetch():
                self._carry_out(self._decide(worker, message))
            case Have():
                self._carry_out(self.places.has(worker, *message))
            case Failed():
                self._carry_out(self.places.failed(worker, *message))

    def remove(self, worker: int) -> None:
        """Note that a worker is lost."""
        self._carry_out(self.places.remove(worker))

    def forget(self, worker: int, token: bytes) -> None:
        """Note that a worker does not have data, or not any more."""
        self._carry_out(self.places.forget(worker, token))

    def drop(self, token: bytes) -> None:
        """Note that data is gone."""
        self._carry_out(self.places.drop(token, self._why, self._text))

    @cached_property
    def host(self) -> str:
        """Identifies the processes that can open each other's files in memory, as workers do."""
        return host_key()

    def _decide(self, worker: int, question: Fetch) -> list[Decision]:
        token, host, reserved, again = question
        origin = self._find(token)
        if origin is None:
            return [Refuse(worker, token, self._why, self._text)]
        if isinstance(origin.source, Recipe) and not origin.source.for_host:
            return [Lead(worker, token)]
        if reserved and self.places.leads(worker, token, host):
            return self.places.reserved(worker, token, host, again)
        if origin.here is not None and host == self.host:
            return [Show(worker, token, origin.here)]
        return self.places.request(worker, token, host)

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            worker, token = decision[:2]
            origin = self._find(token)
            if isinstance(decision, Refuse):
                self._workers.send(worker, Unavailable(token, decision.why, decision.text))
            elif origin is None:
                self._workers.send(worker, Unavailable(token, self._why, self._text))
            else:
                self._send(worker, token, decision, origin)

    def _send(self, worker: int, token: bytes, decision: Lead | Transfer | Show, origin: Origin) -> None:
        """Let a worker make data, make room for it, get it, or open it."""
        workers, source = self._workers, origin.source
        match decision, source:
            case Lead(), Recipe(blob, for_host):
                workers.send(worker, Build(token, blob, for_host, self._definitions(worker, origin)))
            case Lead(), Stored(segment):
                workers.send(worker, Reserve(token, segment.view.nbytes))
            case Lead(), Kept():
                workers.send(worker, Reserve(token, source.nbytes))
            case Transfer(_, _, 0), Stored(segment):
                definitions = self._definitions(worker, origin)
                data = pickle.PickleBuffer(segment.view)
                workers.send(worker, Give(token, data, ids_of(origin.needs), definitions))
            case Transfer(_, _, sender), _:
                workers.pass_on(token, sender, worker, origin.needs)
            case Show(_, _, location), _:
                definitions = self._definitions(worker, origin)
                workers.send(worker, Attach(token, location, ids_of(origin.needs), definitions))

    def _definitions(self, worker: int, origin: Origin) -> Any:
        """What a worker lacks of the definitions that data needs."""
        return self._workers.missing_definitions(worker, origin.needs) if origin.needs else ()
