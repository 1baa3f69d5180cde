"""A rank says that it sleeps, and is rung; whoever may not ring it or has ended does no harm."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from taskfarm.transport.doorbell import Contact, Doorbell, crowded


def connected(size: int, elsewhere: tuple[int, ...] = ()) -> list[Doorbell]:
    """The doorbells of some ranks; those of other hosts get nothing."""
    bells = [Doorbell(rank, size) for rank in range(size)]
    contacts = [bell.contact for bell in bells]
    for rank in elsewhere:
        contacts[rank] = contacts[rank]._replace(host="another host")
    bells[0].hand_out(contacts)
    taken = [bell.take() for bell in bells[1:]]
    assert taken == [rank not in elsewhere for rank in range(1, size)]
    bells[0].rung_by_all = all(taken)
    return bells


@pytest.fixture
def two() -> Iterator[list[Doorbell]]:
    bells = connected(2)
    yield bells
    for bell in bells:
        bell.close()


def test_a_ring_ends_a_sleep(two: list[Doorbell]) -> None:
    for sleeper, ringer in ((0, 1), (1, 0)):
        assert two[sleeper].announce_sleep()
        assert [two[ringer].asleep[rank] for rank in range(2)] == [sleeper == 0, sleeper == 1]
        thread = threading.Thread(target=two[ringer].ring, args=[sleeper])
        thread.start()
        while not two[sleeper].wait(60.0):  # between the two steps of a ring
            two[sleeper].announce_sleep()
        thread.join()
        assert list(two[ringer].asleep) == [0, 0], "awake, whoever looks"
        assert two[sleeper].announce_sleep()
        assert not two[sleeper].wait(0.001), "nobody rings"
        assert list(two[ringer].asleep) == [0, 0]


def test_a_ring_between_announcing_and_sleeping_is_not_lost(two: list[Doorbell]) -> None:
    assert two[1].announce_sleep()
    assert not two[1].announce_sleep(), "announced already, so the next step is to sleep"
    two[0].ring(1)
    assert two[1].announce_sleep(), "rung meanwhile: announced anew, and then one more look for messages"
    assert two[1].wait(60.0), "which the first ring ends"


def test_only_one_thread_sleeps_until_it_is_rung(two: list[Doorbell]) -> None:
    """Of two, a ring would wake only the one that does not need the message."""
    assert two[1].announce_sleep()
    woken: list[bool | None] = []
    sleeper = threading.Thread(target=lambda: woken.append(two[1].wait(60.0)))
    sleeper.start()
    while two[1].wait(0.001) is not None:
        two[1].announce_sleep()
    assert list(two[0].asleep) == [0, 1], "the other one still sleeps"
    two[0].ring(1)
    sleeper.join()
    assert woken == [True]
    assert two[1].wait(60.0) is False, "not announced, so it does not sleep"


def test_rings_for_one_that_is_awake_or_gone_do_no_harm(two: list[Doorbell]) -> None:
    for _ in range(1000):
        two[0].ring(1)
    for woken in (True, False):
        assert two[1].announce_sleep()
        assert two[1].wait(60.0 if woken else 0.001) == woken, "many rings count once"
    assert two[1].announce_sleep()
    two[1].close()
    assert not two[1].wait(60.0), "closed by the thread that ends the farm"
    two[0].ring(1)


def test_ranks_of_other_hosts_are_neither_rung_nor_ring() -> None:
    bells = connected(3, elsewhere=(2,))
    assert not bells[0].rung_by_all, "rank 2 sends to rank 0 and cannot ring"
    assert [bell.rung_by_all for bell in bells[1:]] == [True, False]
    bells[0].ring(2)
    assert list(bells[0].asleep) == [0, 0, 0]
    for bell in bells:
        bell.close()


def test_nothing_is_left_open_and_what_strangers_send_is_not_taken() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    bells = [Doorbell(rank, 2) for rank in range(2)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, open(os.devnull) as file:
        for content in (b"", b"short", bytes(16), bytes(1000)):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, file.fileno().to_bytes(4, "little") * 3)]
            stranger.sendmsg([content], rights, 0, bells[1].contact.address)
            stranger.sendmsg([content], [], 0, bells[1].contact.address)
    bells[0].hand_out([bell.contact for bell in bells])
    assert bells[1].take()
    assert bells[1].announce_sleep()
    bells[0].ring(1)
    assert bells[1].wait(60.0)
    for bell in bells:
        bell.close()
    del bell, bells
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_forked_process_neither_rings_nor_says_that_its_parent_sleeps(two: list[Doorbell]) -> None:
    two[1].announce_sleep()
    child = os.fork()
    if not child:
        two[0].ring(1)
        quiet = two[0].announce_sleep() and not two[0].rung_by_all and not two[1].rung_by_all
        os._exit(0 if quiet else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert list(two[0].asleep) == [0, 1]
    assert not two[1].wait(0.001)


def contact(host: str, *cores: int) -> Contact:
    """The contact of a rank that is bound to some cores."""
    return Contact(host, "", b"", sum(1 << core for core in cores))


@pytest.mark.parametrize(
    ("contacts", "expected"),
    [
        ([contact("a", 0, 1)] * 2, [False] * 2),
        ([contact("a", 0, 1)] * 3, [True] * 3),
        ([contact("a", 0, 1)] * 2 + [contact("b", 0, 1)] * 3, [False] * 2 + [True] * 3),
        ([contact("a", core) for core in range(128)], [False] * 128),
        ([contact("a", core) for core in (0, 0, 1)], [True, True, False]),
        ([contact("a", 0, 1), contact("a", 1, 2), contact("a", 7)], [False] * 3),
        ([contact("", 0, 1)], [True]),
    ],
)
def test_whether_ranks_outnumber_the_cores_that_they_may_use(
    contacts: list[Contact], expected: list[bool]
) -> None:
    assert crowded(contacts) == expected
