"""Shared data spreads over hosts as a tree: rank 0 sends few copies, whatever is lost or does not send."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.master.shared_places import Decision, Lead, Refuse, SharedPlaces, Show, Transfer
from taskfarm.protocol.messages import Location

TOKEN = b"token"


def location(worker: int) -> Location:
    return Location(worker, 3, 1, worker, 100)


class Cluster:
    """Workers that do what they are told, in any order; those in `mute` send nothing when asked to.

    Parameters
    ----------
    hosts, each : int
        Number of hosts beside rank 0's, and of workers on each.
    """

    def __init__(self, hosts: int, each: int, chance: random.Random) -> None:
        self.places = SharedPlaces()
        self.host = {1 + n: f"h{n % hosts}" for n in range(hosts * each)}
        self.alive, self.asked = set(self.host), set[int]()
        self.has: set[int] = set()
        self.mute: set[int] = set()
        self.sends = True
        self.reserving: set[int] = set()
        self.transfers: dict[int, int] = {}
        self.copies = self.failures = 0
        self._chance = chance

    def ask(self, worker: int) -> None:
        self.asked.add(worker)
        self.follow(self.places.request(worker, TOKEN, self.host[worker]))

    def follow(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            worker = decision.worker
            assert worker in self.alive
            match decision:
                case Lead():
                    self.reserving.add(worker)
                case Transfer(source=source):
                    assert source == 0 or source in self.has & self.alive
                    assert self.host.get(source) != self.host[worker]
                    # Nobody sends to two at a time, unless the receiver of one waits no more.
                    if source not in self.mute:
                        assert source == 0 or source not in self.transfers.values()
                    self.copies += source == 0
                    self.transfers[worker] = source
                case Show(location=shown):
                    assert shown.pid in self.has
                    self._has(worker)
                case Refuse():
                    raise AssertionError("nothing was freed")

    def _has(self, worker: int) -> None:
        self.has.add(worker)
        host = self.host[worker]
        self.follow(self.places.has(worker, TOKEN, host, location(worker), self.sends))

    def step(self) -> bool:
        """Let one worker go on; False if none can."""
        able = sorted(self.reserving) + sorted(self.transfers)
        if not able:
            return False
        worker = self._chance.choice(able)
        host = self.host[worker]
        if worker in self.reserving:
            self.reserving.discard(worker)
            self.follow(self.places.reserved(worker, TOKEN, host))
        elif self.transfers[worker] in self.mute:
            self.failures += 1
            del self.transfers[worker]
            self.follow(self.places.reserved(worker, TOKEN, host, again=True))
        else:
            del self.transfers[worker]
            self._has(worker)
        return True

    def lose(self, worker: int) -> None:
        self.failures += 1
        self.alive.discard(worker)
        self.has.discard(worker)
        self.reserving.discard(worker)
        self.transfers.pop(worker, None)
        for dest in [dest for dest, source in self.transfers.items() if source == worker]:
            del self.transfers[dest]
        self.follow(self.places.remove(worker))

    def play(self, unasked: list[int], losses: int, mute: int) -> None:
        """Let workers ask, be lost, and be mute, by chance, until all have asked."""
        chance = self._chance
        self.mute = set(chance.sample(sorted(self.host), min(mute, len(self.host))))
        while unasked:
            choice = chance.random()
            if choice < 0.4:
                worker = unasked.pop(chance.randrange(len(unasked)))
                if worker in self.alive:
                    self.ask(worker)
            elif choice < 0.5 and losses and self.alive:
                losses -= 1
                self.lose(chance.choice(sorted(self.alive)))
            else:
                self.step()

    def end(self) -> None:
        while self.step():
            pass
        assert self.asked & self.alive <= self.has


@pytest.mark.parametrize("hosts", [1, 2, 3, 7, 8, 31, 100])
def test_rank_0_sends_the_logarithm_of_the_number_of_hosts(hosts: int) -> None:
    for seed in range(5):
        cluster = Cluster(hosts, 2, random.Random(seed))
        for worker in cluster.host:
            cluster.ask(worker)
        cluster.end()
        assert cluster.copies <= math.ceil(math.log2(hosts + 1))


def test_a_worker_that_comes_late_costs_rank_0_nothing() -> None:
    cluster = Cluster(8, 1, random.Random(0))
    for worker in range(1, 5):
        cluster.ask(worker)
    cluster.end()
    before = cluster.copies
    for worker in range(5, 9):
        cluster.ask(worker)
        cluster.end()
    assert cluster.copies == before


def test_where_no_worker_can_send_rank_0_sends_to_all() -> None:
    cluster = Cluster(5, 2, random.Random(0))
    cluster.sends = False
    for worker in cluster.host:
        cluster.ask(worker)
    cluster.end()
    assert cluster.copies == 5


def test_freed_data_is_refused_to_a_leader_that_waits_for_its_turn() -> None:
    places = SharedPlaces()
    for worker in (1, 2):
        places.request(worker, TOKEN, f"h{worker}")
    assert places.reserved(1, TOKEN, "h1") == [Transfer(1, TOKEN, 0)]
    assert places.reserved(2, TOKEN, "h2") == []
    assert places.drop(TOKEN, "freed", "") == [Refuse(2, TOKEN, "freed", "")]
    assert places.reserved(1, TOKEN, "h1", again=True) == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
def test_all_get_it_whoever_is_lost_or_mute(
    hosts: int, each: int, losses: int, mute: int, chance: random.Random
) -> None:
    cluster = Cluster(hosts, each, chance)
    cluster.play(list(cluster.host), losses, mute)
    cluster.end()
    assert cluster.copies <= math.ceil(math.log2(hosts + 1)) + 2 * cluster.failures


class Keeping(Cluster):
    """Data that worker 1 has made: rank 0 never sends it. Those in `mute` are late, and send at last."""

    def __init__(self, hosts: int, each: int, chance: random.Random) -> None:
        super().__init__(hosts, each, chance)
        self.has = {1}
        self.refused: set[int] = set()
        self.late: dict[int, set[int]] = {}
        self.places.keep(1, TOKEN, self.host[1], location(1))

    def ask(self, worker: int) -> None:
        if not self.has:
            self.refused.add(worker)
        elif worker not in self.has:
            super().ask(worker)

    def follow(self, decisions: list[Decision]) -> None:
        self.refused |= {one.worker for one in decisions if isinstance(one, Refuse)}
        super().follow([one for one in decisions if not isinstance(one, Refuse)])
        assert not self.copies

    def lose(self, worker: int) -> None:
        super().lose(worker)
        if not self.has:
            self.follow(self.places.drop(TOKEN, "lost", ""))
            self.refused |= self.reserving
            self.reserving.clear()

    def step(self) -> bool:
        silent = [worker for worker, source in self.transfers.items() if source in self.mute]
        if silent and self._chance.random() < 0.5:
            worker = silent[0]
            source = self.transfers[worker]
            self.follow(self.places.reserved(worker, TOKEN, self.host[worker], again=True))
            if self.transfers[worker] == source:
                # There is no other: it is only late.
                self.mute.discard(source)
        return super().step() if not silent else True


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 10),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
def test_all_get_what_a_worker_keeps_as_long_as_anybody_has_it(
    hosts: int, each: int, losses: int, mute: int, chance: random.Random
) -> None:
    cluster = Keeping(hosts, each, chance)
    cluster.play([worker for worker in cluster.host if worker != 1], losses, mute)
    while cluster.step():
        pass
    waiting = (cluster.asked & cluster.alive) - cluster.has
    assert waiting <= cluster.refused
    assert not (waiting and cluster.has)
    assert cluster.places.holders(TOKEN) == [] or set(cluster.places.holders(TOKEN)) == cluster.has


def test_a_worker_that_is_late_and_the_only_one_still_sends() -> None:
    places = SharedPlaces()
    places.keep(1, TOKEN, "h1", location(1))
    places.request(2, TOKEN, "h2")
    assert places.reserved(2, TOKEN, "h2") == [Transfer(2, TOKEN, 1)]
    assert places.reserved(2, TOKEN, "h2", again=True) == []
    # A third one has to wait for its turn, and then gets it from whoever is free.
    assert places.request(3, TOKEN, "h3") == [Lead(3, TOKEN)]
    assert places.reserved(3, TOKEN, "h3") == []
    assert places.has(2, TOKEN, "h2", location(2), sends=True) == [Transfer(3, TOKEN, 1)]
    # This time there is another one.
    assert places.reserved(3, TOKEN, "h3", again=True) == [Transfer(3, TOKEN, 2)]
    assert places.forget(2, TOKEN) == [Transfer(3, TOKEN, 1)]
    assert places.drop(TOKEN, "lost", "") == []
