"""Who gets shared data from whom, whatever is lost, fails or is freed meanwhile."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.master.shared_places import Decision, Lead, Refuse, SharedPlaces, Show
from taskfarm.protocol.messages import Location

TOKEN = b"token"
WORKERS = range(1, 9)


def location(worker: int) -> Location:
    return Location(worker, 3, 1, worker, 100)


def host(worker: int) -> str:
    return f"h{worker % 2}"


def test_one_worker_of_each_host_leads_and_shows_it_to_the_others() -> None:
    places = SharedPlaces()
    first = [places.request(worker, TOKEN, host(worker)) for worker in WORKERS]
    assert [decision for found in first for decision in found] == [Lead(1, TOKEN), Lead(2, TOKEN)]
    assert places.leads(1, TOKEN, host(1))
    assert not places.leads(3, TOKEN, host(3))
    assert places.has(1, TOKEN, host(1), location(1)) == [Show(n, TOKEN, location(1)) for n in (3, 5, 7)]
    assert places.request(9, TOKEN, host(9)) == [Show(9, TOKEN, location(1))]


def test_a_failure_is_for_all_who_wait_and_only_a_final_one_for_later() -> None:
    places = SharedPlaces()
    for worker in (1, 3):
        places.request(worker, TOKEN, "h")
    refused = [Refuse(3, TOKEN, "memory", "none")]
    assert places.failed(1, TOKEN, "h", "memory", "none", final=False) == refused
    assert places.request(3, TOKEN, "h") == [Lead(3, TOKEN)]
    assert places.failed(3, TOKEN, "h", "build", "bad", final=True) == []
    assert places.request(5, TOKEN, "h") == [Refuse(5, TOKEN, "build", "bad")]


def test_who_waits_for_a_lost_leader_takes_its_place_and_a_lost_holder_is_not_shown() -> None:
    places = SharedPlaces()
    for worker in (1, 3, 5):
        places.request(worker, TOKEN, "h")
    assert places.remove(3) == []
    assert places.remove(1) == [Lead(5, TOKEN)]
    places.has(5, TOKEN, "h", location(5))
    assert places.remove(5) == []
    assert places.request(7, TOKEN, "h") == [Lead(7, TOKEN)]


def test_freed_data_is_refused_to_those_who_wait() -> None:
    places = SharedPlaces()
    for worker in (1, 3):
        places.request(worker, TOKEN, "h")
    assert places.drop(TOKEN, "freed", "") == [Refuse(3, TOKEN, "freed", "")]
    assert places.has(1, TOKEN, "h", location(1)) == []


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_every_worker_gets_an_answer_and_each_host_has_one_copy(chance: random.Random) -> None:
    places = SharedPlaces()
    unasked, alive = list(WORKERS), set(WORKERS)
    waiting: set[int] = set()
    leading: set[int] = set()
    answered: set[int] = set()
    copies = {"h0": 0, "h1": 0}

    def follow(decisions: list[Decision]) -> None:
        for decision in decisions:
            assert decision.worker in alive
            waiting.discard(decision.worker)
            if isinstance(decision, Lead):
                assert not any(host(other) == host(decision.worker) for other in leading)
                leading.add(decision.worker)
                copies[host(decision.worker)] += 1
            else:
                answered.add(decision.worker)

    lost = failed = 0
    while unasked or leading:
        choice = chance.random()
        if unasked and choice < 0.5:
            worker = unasked.pop(chance.randrange(len(unasked)))
            waiting.add(worker)
            follow(places.request(worker, TOKEN, host(worker)))
        elif choice < 0.6 and lost < 3:
            worker = chance.choice(sorted(alive))
            lost += 1
            alive.discard(worker)
            leading.discard(worker)
            waiting.discard(worker)
            if worker in unasked:
                unasked.remove(worker)
            follow(places.remove(worker))
        elif leading:
            worker = chance.choice(sorted(leading))
            leading.discard(worker)
            answered.add(worker)
            if choice > 0.9:
                failed += 1
                follow(places.failed(worker, TOKEN, host(worker), "memory", "", final=False))
            else:
                follow(places.has(worker, TOKEN, host(worker), location(worker)))
    assert not waiting
    assert alive <= answered
    assert sum(copies.values()) <= 2 + lost + failed
