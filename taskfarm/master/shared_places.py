"""Which workers have data, and who gets it from whom: decisions only, without sending anything.

The first worker of a host that needs some data leads: it gets it, or builds it, while the others of the
host wait. Then these open it where the leader has it. If the leader is lost, one that waits takes its
place.

Data that is sent spreads over the hosts as a tree: each host that has it sends it to one other host at a
time. Rank 0 sends as many copies as the tree needs, the binary logarithm of the number of hosts, and
more only if nobody else can. Of what a worker has made, and keeps, rank 0 sends none.
"""

from typing import NamedTuple, TypeAlias

from taskfarm.protocol.messages import Location

MASTER, MASTER_HOST = 0, ""
"""Rank 0 as the source of data, and what stands for its host here."""


class Lead(NamedTuple):
    """Let a worker be the first of its host to have some data."""

    worker: int
    token: bytes


class Transfer(NamedTuple):
    """Let `source`, a worker or rank 0, send data to a worker that has made room for it."""

    worker: int
    token: bytes
    source: int


class Show(NamedTuple):
    """Let a worker open data where another process of its host has it."""

    worker: int
    token: bytes
    location: Location


class Refuse(NamedTuple):
    """Tell a worker why it cannot have data."""

    worker: int
    token: bytes
    why: str
    text: str


Decision: TypeAlias = Lead | Transfer | Show | Refuse


class _Place:
    """Some data on one host."""

    def __init__(self) -> None:
        self.holders: dict[int, Location] = {}
        self.senders: dict[int, None] = {}
        self.leader: int | None = None
        self.waiting: list[int] = []
        self.failure: tuple[str, str] | None = None
        self.source: tuple[int, str] | None = None


class _Spread:
    """Some data on all hosts but rank 0's, and who sends it to whom.

    `of_worker` tells whether a worker has made the data, so that rank 0 does not have it.
    """

    def __init__(self, of_worker: bool = False) -> None:
        self.of_worker = of_worker
        self.places: dict[str, _Place] = {}
        self.ready: dict[str, None] = {}
        self.free: dict[str, None] = {}
        self.sending: set[str] = set()
        self.copies = 0

    def next_source(self) -> tuple[int, str] | None:
        """Who sends next, a worker and its host; None if there is nobody now."""
        if self.free:
            host = next(iter(self.free))
            return next(iter(self.places[host].senders)), host
        if self.of_worker or MASTER_HOST in self.sending:
            return None
        # With n hosts beside rank 0's, the logarithm of n + 1, rounded up.
        if self.copies < len(self.places).bit_length() or not self.sending:
            return MASTER, MASTER_HOST
        return None

    def begin(self, host: str, source: tuple[int, str]) -> None:
        """Note that a host gets the data from a source."""
        self.ready.pop(host, None)
        self.free.pop(source[1], None)
        self.sending.add(source[1])
        self.places[host].source = source
        self.copies += source[0] == MASTER

    def end(self, place: _Place) -> None:
        """Note that a host gets nothing from its source any more."""
        if place.source is not None:
            host = place.source[1]
            place.source = None
            self.sending.discard(host)
            self.update(host)

    def update(self, host: str) -> None:
        """Find out anew whether a host can send."""
        place = self.places.get(host)
        if place is None or host in self.sending or not place.senders:
            self.free.pop(host, None)
        else:
            self.free[host] = None


class SharedPlaces:
    """Follows where data is: shared data for each host but that of rank 0, what workers keep for all."""

    def __init__(self) -> None:
        self._spreads: dict[bytes, _Spread] = {}

    def keep(self, worker: int, token: bytes, host: str, location: Location) -> None:
        """A worker has made data, and keeps it."""
        spread = self._spreads[token] = _Spread(of_worker=True)
        place = spread.places[host] = _Place()
        place.holders[worker], place.senders[worker] = location, None
        spread.update(host)

    def holders(self, token: bytes) -> list[int]:
        """The workers that have data."""
        spread = self._spreads.get(token)
        return [] if spread is None else [one for place in spread.places.values() for one in place.holders]

    def forget(self, worker: int, token: bytes) -> list[Decision]:
        """A worker does not have data any more."""
        spread = self._spreads.get(token)
        if spread is None:
            return []
        for host, place in spread.places.items():
            self._drop_holder(worker, spread, place, host)
        return self._transfers(token, spread)

    def request(self, worker: int, token: bytes, host: str) -> list[Decision]:
        """A worker needs data."""
        place = self._spreads.setdefault(token, _Spread()).places.setdefault(host, _Place())
        if place.failure is not None:
            return [Refuse(worker, token, *place.failure)]
        if place.holders:
            return [Show(worker, token, next(iter(place.holders.values())))]
        if place.leader is None:
            place.leader = worker
            return [Lead(worker, token)]
        place.waiting.append(worker)
        return []

    def leads(self, worker: int, token: bytes, host: str) -> bool:
        """Whether a worker is the one of its host for which the others wait."""
        _, place = self._find(token, host)
        return place is not None and place.leader == worker

    def reserved(self, worker: int, token: bytes, host: str, again: bool = False) -> list[Decision]:
        """The leader of a host has made room for data.

        If `again`, its source has sent nothing for some time: rank 0 sends the data itself, and nobody
        waits for that source any more. If rank 0 does not have it, another worker that can sends it; if
        there is none, the source may still do.
        """
        spread, place = self._find(token, host)
        if spread is None or place is None or place.leader != worker:
            return []
        if not again:
            spread.ready[host] = None
            return self._transfers(token, spread)
        late, chosen = place.source, spread.next_source() if spread.of_worker else (MASTER, MASTER_HOST)
        if chosen is None or (spread.of_worker and late is None):
            return self._transfers(token, spread)
        if late is not None:
            if not spread.of_worker and late[1] in spread.places:
                spread.places[late[1]].senders.pop(late[0], None)
            spread.end(place)
        spread.begin(host, chosen)
        return [Transfer(worker, token, chosen[0]), *self._transfers(token, spread)]

    def has(
        self, worker: int, token: bytes, host: str, location: Location, sends: bool = False
    ) -> list[Decision]:
        """A worker has data; `sends` tells whether it can send it to another host while it runs tasks."""
        spread, place = self._find(token, host)
        if spread is None or place is None:
            # It was freed meanwhile.
            return []
        place.holders[worker] = location
        if sends:
            place.senders[worker] = None
        if place.leader == worker:
            place.leader = None
            spread.end(place)
        spread.update(host)
        waiting, place.waiting = place.waiting, []
        shown = [Show(other, token, location) for other in waiting]
        return [*shown, *self._transfers(token, spread)]

    def failed(
        self, worker: int, token: bytes, host: str, why: str, text: str, final: bool
    ) -> list[Decision]:
        """A worker could not get data; if `final`, nobody on its host ever will."""
        spread, place = self._find(token, host)
        if spread is None or place is None or place.leader != worker:
            return []
        self._end_leading(spread, place, host)
        if final:
            place.failure = (why, text)
        waiting, place.waiting = place.waiting, []
        refused = [Refuse(other, token, why, text) for other in waiting]
        return [*refused, *self._transfers(token, spread)]

    def remove(self, worker: int) -> list[Decision]:
        """A worker is lost."""
        decisions: list[Decision] = []
        for token, spread in self._spreads.items():
            for host, place in spread.places.items():
                self._drop_holder(worker, spread, place, host)
                place.waiting = [other for other in place.waiting if other != worker]
                if place.leader != worker:
                    continue
                self._end_leading(spread, place, host)
                if place.waiting:
                    place.leader = place.waiting.pop(0)
                    decisions.append(Lead(place.leader, token))
            decisions += self._transfers(token, spread)
        return decisions

    def drop(self, token: bytes, why: str, text: str) -> list[Decision]:
        """Data was freed: refuse those who wait for it. What is on its way arrives."""
        spread = self._spreads.pop(token, None)
        if spread is None:
            return []
        refused = [worker for place in spread.places.values() for worker in place.waiting]
        for host in spread.ready:
            leader = spread.places[host].leader
            assert leader is not None
            refused.append(leader)
        return [Refuse(worker, token, why, text) for worker in refused]

    def _find(self, token: bytes, host: str) -> tuple[_Spread | None, _Place | None]:
        spread = self._spreads.get(token)
        return spread, None if spread is None else spread.places.get(host)

    @staticmethod
    def _drop_holder(worker: int, spread: _Spread, place: _Place, host: str) -> None:
        """Note that a worker does not have data any more, and sends it to nobody."""
        place.holders.pop(worker, None)
        place.senders.pop(worker, None)
        spread.update(host)
        if place.source is not None and place.source[0] == worker:
            spread.end(place)
            spread.ready[host] = None

    @staticmethod
    def _end_leading(spread: _Spread, place: _Place, host: str) -> None:
        place.leader = None
        spread.ready.pop(host, None)
        spread.end(place)

    @staticmethod
    def _transfers(token: bytes, spread: _Spread) -> list[Decision]:
        """Let those who have data and send it to nobody send it to the hosts that are ready."""
        decisions: list[Decision] = []
        for host in list(spread.ready):
            source = spread.next_source()
            if source is None:
                break
            spread.begin(host, source)
            leader = spread.places[host].leader
            assert leader is not None
            decisions.append(Transfer(leader, token, source[0]))
        return decisions
