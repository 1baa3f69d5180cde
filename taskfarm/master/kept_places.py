"""Which workers have kept results, and who gets them from whom: decisions only, without sending anything.

The first worker of a host that needs some data leads: it gets it, or builds it, while the others of the
host wait. Then these open it where the leader has it. If the leader is lost, one that waits takes its
place.
"""

from typing import NamedTuple, TypeAlias

from taskfarm.protocol.messages import Location


class Lead(NamedTuple):
    """Let a worker be the first of its host to have some data."""

    worker: int
    token: bytes


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


Decision: TypeAlias = Lead | Show | Refuse


class _Place:
    """Some data on one host."""

    def __init__(self) -> None:
        self.holders: dict[int, Location] = {}
        self.leader: int | None = None
        self.waiting: list[int] = []
        self.failure: tuple[str, str] | None = None


class KeptPlaces:
    """Follows where shared data is, for each host."""

    def __init__(self) -> None:
        self._places: dict[bytes, dict[str, _Place]] = {}

    def keep(self, worker: int, token: bytes, host: str, location: Location) -> None:
        """A worker has made data."""
        self._places.setdefault(token, {}).setdefault(host, _Place()).holders[worker] = location

    def holders(self, token: bytes) -> list[int]:
        """The workers that have data."""
        return [worker for place in self._places.get(token, {}).values() for worker in place.holders]

    def forget(self, worker: int, token: bytes) -> None:
        """A worker has data no more."""
        for place in self._places.get(token, {}).values():
            place.holders.pop(worker, None)

    def host_led_by(self, worker: int, token: bytes) -> str:
        """The host that waits for a worker to have data; empty if none does."""
        hosts = self._places.get(token, {})
        return next((host for host, place in hosts.items() if place.leader == worker), "")

    def _at(self, token: bytes, host: str) -> _Place | None:
        return self._places.get(token, {}).get(host)

    def request(self, worker: int, token: bytes, host: str) -> list[Decision]:
        """A worker needs data."""
        place = self._places.setdefault(token, {}).setdefault(host, _Place())
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
        place = self._at(token, host)
        return place is not None and place.leader == worker

    def has(self, worker: int, token: bytes, host: str, location: Location) -> list[Decision]:
        """A worker has data."""
        place = self._at(token, host)
        if place is None:
            # It was freed meanwhile.
            return []
        place.holders[worker] = location
        if place.leader == worker:
            place.leader = None
        waiting, place.waiting = place.waiting, []
        return [Show(other, token, location) for other in waiting]

    def failed(
        self, worker: int, token: bytes, host: str, why: str, text: str, final: bool
    ) -> list[Decision]:
        """A worker could not get data; if `final`, nobody on its host ever will."""
        place = self._at(token, host)
        if place is None or place.leader != worker:
            return []
        place.leader = None
        if final:
            place.failure = (why, text)
        waiting, place.waiting = place.waiting, []
        return [Refuse(other, token, why, text) for other in waiting]

    def remove(self, worker: int) -> list[Decision]:
        """A worker is lost."""
        decisions: list[Decision] = []
        places = [(token, place) for token, hosts in self._places.items() for place in hosts.values()]
        for token, place in places:
            place.holders.pop(worker, None)
            place.waiting = [other for other in place.waiting if other != worker]
            if place.leader != worker:
                continue
            place.leader = None
            if place.waiting:
                place.leader = place.waiting.pop(0)
                decisions.append(Lead(place.leader, token))
        return decisions

    def drop(self, token: bytes, why: str, text: str) -> list[Decision]:
        """Data was freed: refuse those who wait for it."""
        places = self._places.pop(token, {})
        return [Refuse(worker, token, why, text) for place in places.values() for worker in place.waiting]
