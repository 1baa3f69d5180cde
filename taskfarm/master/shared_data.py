"""Rank 0's part in sharing data: answers workers that need it, and tells them what was freed."""

import pickle
from functools import cached_property

from taskfarm.master.shared_places import Decision, Lead, Refuse, SharedPlaces, Show, Transfer
from taskfarm.master.workers import WorkerTable, ids_of
from taskfarm.protocol import shared
from taskfarm.protocol.messages import (
    FREED,
    Attach,
    Build,
    Drop,
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


class SharedDataServer:
    """Gives workers the data of the job's handles.

    A worker on rank 0's own host opens it there. On each other host one worker gets it, or builds it, and
    the others open it there. The hosts that have it send it to others.

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
        self._workers = workers
        self._places = SharedPlaces()
        self.freed = shared.follow_freed()

    def handle(self, worker: int, message: Fetch | Have | Failed) -> None:
        """Answer a message of a worker."""
        match message:
            case Fetch():
                self._answer(worker, message)
            case Have(token, host, location, sends):
                self._carry_out(self._places.has(worker, token, host, location, sends))
            case Failed(token, host, why, text, final):
                self._carry_out(self._places.failed(worker, token, host, why, text, final))

    def remove(self, worker: int) -> None:
        """Note that a worker is lost."""
        self._carry_out(self._places.remove(worker))

    def drop_freed(self) -> None:
        """Let the workers drop what the job has freed since the last call."""
        if not self.freed:
            return
        tokens = [self.freed.popleft() for _ in range(len(self.freed))]
        for token in tokens:
            self._carry_out(self._places.drop(token, FREED, str(shared.unavailable(FREED))))
        for worker in self._workers.connected:
            self._workers.send(worker, Drop(tokens))

    @cached_property
    def _host(self) -> str:
        return host_key()

    def _answer(self, worker: int, question: Fetch) -> None:
        token, host, reserved, again = question
        handle = shared.find(token)
        source = None if handle is None else handle.source
        if handle is None or source is None:
            self._carry_out([Refuse(worker, token, FREED, str(shared.unavailable(FREED)))])
        elif isinstance(source, Recipe) and not source.for_host:
            self._let_build(worker, token, source)
        elif isinstance(source, Stored) and reserved and self._places.leads(worker, token, host):
            self._carry_out(self._places.reserved(worker, token, host, again))
        elif (stored := handle.stored) is not None and host == self._host:
            self._carry_out([Show(worker, token, stored.segment.location)])
        else:
            self._carry_out(self._places.request(worker, token, host))

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            handle = shared.find(decision.token)
            source = None if handle is None else handle.source
            match decision, source:
                case Lead(worker, token), Recipe():
                    self._let_build(worker, token, source)
                case Lead(worker, token), Stored(segment):
                    self._workers.send(worker, Reserve(token, segment.view.nbytes))
                case Transfer(worker, token, 0), Stored():
                    self._give(worker, token, source)
                case Transfer(worker, token, sender), Stored():
                    self._workers.pass_on(token, sender, worker, source.needs)
                case Show(worker, token, location), Stored() | Recipe():
                    self._let_attach(worker, token, location, source)
                case Refuse(worker, token, why, text), _:
                    self._workers.send(worker, Unavailable(token, why, text))
                case ((Lead(worker, token) | Show(worker, token) | Transfer(worker, token)), _):
                    text = str(shared.unavailable(FREED))
                    self._workers.send(worker, Unavailable(token, FREED, text))

    def _give(self, worker: int, token: bytes, source: Stored) -> None:
        definitions = self._workers.missing_definitions(worker, source.needs)
        data = pickle.PickleBuffer(source.segment.view)
        self._workers.send(worker, Give(token, data, ids_of(source.needs), definitions))

    def _let_build(self, worker: int, token: bytes, recipe: Recipe) -> None:
        definitions = self._workers.missing_definitions(worker, recipe.needs)
        self._workers.send(worker, Build(token, recipe.blob, recipe.for_host, definitions))

    def _let_attach(self, worker: int, token: bytes, location: Location, source: Stored | Recipe) -> None:
        definitions = self._workers.missing_definitions(worker, source.needs)
        self._workers.send(worker, Attach(token, location, ids_of(source.needs), definitions))
