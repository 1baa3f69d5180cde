"""How a process asks for shared data, whatever it is answered."""

from collections import deque
from typing import Any

import pytest

from taskfarm.errors import BuildFailed, HostMemoryError, SharedDataError
from taskfarm.protocol import messages
from taskfarm.protocol.messages import (
    NO_BLOB,
    NO_BUILD,
    Attach,
    Build,
    Expect,
    Failed,
    Fetch,
    Give,
    Have,
    Location,
    Passed,
    Reserve,
    Unavailable,
)
from taskfarm.transport import segments
from taskfarm.transport.segments import Reservation, Segment
from taskfarm.worker.shared_data import Found, ToBuild
from taskfarm.worker.shared_fetch import Fetcher

GONE = Location(1, 99999, 0, 0, 5)


class Conversation:
    """A fetcher whose questions are kept, and answered in turn."""

    def __init__(self, *answers: Any) -> None:
        self.sent: list[Any] = []
        self.answers = deque(answers)
        self.fetcher = Fetcher(3, self.sent.append, self.answers.popleft)


def hello() -> Segment:
    reservation = Reservation(5)
    reservation.write([(0, memoryview(b"hello"))])
    return reservation.complete()


def test_it_opens_what_another_process_has() -> None:
    segment = hello()
    talk = Conversation(Attach(b"t", segment.location, (4,)))
    found = talk.fetcher.fetch(b"t")
    assert isinstance(found, Found)
    assert (bytes(found.segment.view), found.needs) == (b"hello", (4,))
    asked, have = talk.sent
    assert asked == Fetch(b"t", segments.host_key())
    assert have == Have(b"t", segments.host_key(), found.segment.location)
    assert talk.fetcher.held(b"t") is found.segment


@pytest.mark.parametrize("in_place", [True, False])
def test_it_makes_room_first_and_tells_the_others_of_its_host(in_place: bool) -> None:
    talk = Conversation(Reserve(b"t", 5), Give(b"t", b"hello"))
    if in_place:
        # As a transport does.
        give = talk.answers.pop()
        talk.fetcher._receive = lambda: (  # type: ignore[method-assign]
            talk.answers.popleft() if talk.answers else give._replace(data=received(talk.fetcher))
        )
    found = talk.fetcher.fetch(b"t")
    assert isinstance(found, Found)
    assert bytes(found.segment.view) == b"hello"
    assert talk.sent[1] == Fetch(b"t", segments.host_key(), reserved=True)
    assert isinstance(talk.sent[2], Have)


def received(fetcher: Fetcher) -> memoryview:
    (memory,) = fetcher.memory(bytearray(), [5])
    memory[:] = b"hello"
    return memoryview(memory).toreadonly()


def test_if_the_owner_is_gone_it_gets_a_copy_of_its_own() -> None:
    talk = Conversation(Attach(b"t", GONE), Reserve(b"t", 5), Give(b"t", b"hello"))
    found = talk.fetcher.fetch(b"t")
    assert isinstance(found, Found)
    assert bytes(found.segment.view) == b"hello"
    hosts = [message.host for message in talk.sent]
    assert hosts[0] != hosts[1] == hosts[2]
    talk.answers.append(Build(b"u", NO_BLOB, False))
    assert talk.fetcher.fetch(b"u") == ToBuild(NO_BLOB, False, ())
    assert talk.sent[-1].host == hosts[0]


def test_without_room_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "free_memory", lambda: 1)
    talk = Conversation(Reserve(b"t", 5_000_000))
    with pytest.raises(HostMemoryError, match="needs 5 MB"):
        talk.fetcher.fetch(b"t")
    assert isinstance(talk.sent[-1], Failed)
    assert not talk.sent[-1].final


def test_a_refusal_is_an_error_of_its_kind_and_old_answers_are_passed_over() -> None:
    talk = Conversation(Unavailable(b"other", "freed", ""), Unavailable(b"t", NO_BUILD, "it failed"))
    with pytest.raises(BuildFailed, match="it failed"):
        talk.fetcher.fetch(b"t")
    talk.answers.append(Unavailable(b"t", "freed", ""))
    with pytest.raises(SharedDataError, match="was freed"):
        talk.fetcher.fetch(b"t")


class FromWorkers(Conversation):
    """The same, where other workers send what is expected into its place."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(*answers)
        self.expected: list[tuple[int, int]] = []
        self.fetcher = Fetcher(3, self.sent.append, self.answers.popleft, self.expect, sends=True)

    def expect(self, source: int, number: int, memory: memoryview, complete: Any, overdue: Any) -> None:
        self.expected.append((source, number))
        memory[:] = b"hello"
        assert messages.decode(complete) == Passed(b"t", number, True)
        assert messages.decode(overdue) == Passed(b"t", number, False)


def test_it_gets_data_from_another_worker_and_can_send_it_on() -> None:
    definition = (4, ("name",), NO_BLOB)
    talk = FromWorkers(Reserve(b"t", 5), Expect(b"t", 9, 2, (4,), [definition]), Passed(b"t", 2, True))
    found = talk.fetcher.fetch(b"t")
    assert isinstance(found, Found)
    assert (bytes(found.segment.view), found.needs, found.definitions) == (b"hello", (4,), [definition])
    assert talk.expected == [(9, 2)]
    assert talk.sent[-1] == Have(b"t", segments.host_key(), found.segment.location, True)


def test_if_the_other_worker_does_not_send_rank_0_does_and_late_data_changes_nothing() -> None:
    definition = (4, ("name",), NO_BLOB)
    talk = FromWorkers(
        *(Reserve(b"t", 5), Expect(b"t", 9, 2, (4,), [definition]), Passed(b"t", 1, True)),
        *(Passed(b"t", 2, False), Give(b"t", b"hello", (4,)), Passed(b"t", 2, True)),
    )
    found = talk.fetcher.fetch(b"t")
    assert isinstance(found, Found)
    assert (bytes(found.segment.view), found.definitions) == (b"hello", [definition])
    assert Fetch(b"t", segments.host_key(), reserved=True, again=True) in talk.sent
    talk.answers.extend([Reserve(b"t", 5), Expect(b"t", 8, 3), Passed(b"t", 3, True)])
    # The rest of the first time is passed over.
    again = talk.fetcher.fetch(b"t")
    assert isinstance(again, Found)
    assert talk.expected == [(9, 2), (8, 3)]
