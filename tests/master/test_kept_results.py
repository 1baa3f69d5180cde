"""What rank 0 tells workers about kept results, message by message."""

import gc
from typing import Any, cast

import pytest

from taskfarm.master.kept_results import KeptResult, KeptResults
from taskfarm.master.lineage import MAX_DEPTH, Lineage, lineage_of
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.kept import MARK, Kept, reference
from taskfarm.protocol.messages import (
    LOST,
    Attach,
    Failed,
    Fetch,
    Have,
    Location,
    Release,
    Reserve,
    Unavailable,
)
from tests.views.recorded import registered

PLACE = Location(1, 2, 3, 4, 100_000)


class Workers:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.connected = {1, 2, 3, 4}
        self.sent: list[tuple[int, Any]] = []

    def send(self, worker: int, message: Any) -> None:
        self.sent.append((worker, message))

    def pass_on(self, token: bytes, sender: int, worker: int, needs: tuple[Any, ...]) -> None:
        self.sent += [(worker, ("from", sender, token))]

    def taken(self) -> list[tuple[int, Any]]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def server(workers: Workers) -> KeptResults:
    return KeptResults(cast("Any", workers))


def kept(number: int, worker: int, host: str = "h1") -> Kept:
    return Kept(MARK + bytes([number]), worker, 100_000, host, PLACE)


def entered(server: KeptResults, number: int = 1, worker: int = 1, host: str = "h1") -> KeptResult:
    """A result that a worker keeps."""
    arguments = Arguments.from_call((number,), {})
    lineage = Lineage(7, registered(), arguments, (), 0, 7)
    result = KeptResult(cast("Any", None), reference(kept(0, 0)), lineage, 0)
    server.add(kept(number, worker, host), result, reference(kept(number, worker, host)))
    return result


def test_another_host_gets_it_once_and_from_its_worker(server: KeptResults, workers: Workers) -> None:
    result = entered(server)
    token = result.token
    server.handle(2, Fetch(token, "h2"))
    server.handle(3, Fetch(token, "h2"))
    assert workers.taken() == [(2, Reserve(token, 100_000))]
    server.handle(2, Fetch(token, "h2", reserved=True))
    assert workers.taken() == [(2, ("from", 1, token))]
    server.handle(2, Have(token, "h2", PLACE))
    assert workers.taken() == [(3, Attach(token, PLACE))]
    # Its worker dies: the copy takes its place.
    server.remove(1)
    assert not result.is_lost
    server.handle(4, Fetch(token, "h4"))
    server.handle(4, Fetch(token, "h4", reserved=True))
    assert workers.taken() == [
        (4, Reserve(token, 100_000)),
        (4, ("from", 2, token)),
    ]
    server.handle(4, Have(token, "h4", PLACE))
    del result
    gc.collect()
    server.release_dropped()
    assert workers.taken() == [(2, Release([token])), (4, Release([token]))]


def test_whoever_waits_is_told_when_it_is_lost(server: KeptResults, workers: Workers) -> None:
    result = entered(server)
    token = result.token
    server.handle(2, Fetch(token, "h2"))
    server.handle(3, Fetch(token, "h2"))
    server.handle(2, Fetch(token, "h2", reserved=True))
    server.handle(4, Fetch(token, "h4"))
    workers.taken()
    server.remove(1)
    told = workers.taken()
    assert {worker for worker, message in told if isinstance(message, Unavailable)} >= {2, 3}
    assert all(message.why == LOST for _, message in told)
    assert result.is_lost
    # Who had made room for it is told when it asks.
    server.handle(4, Fetch(token, "h4", reserved=True))
    assert [(worker, message.why) for worker, message in workers.taken()] == [(4, LOST)]


def test_what_is_made_again_is_not_mixed_up_with_what_was_lost(
    server: KeptResults, workers: Workers
) -> None:
    result = entered(server, 1, 1)
    old = result.token
    server.remove(1)
    made = entered(server, 2, 3, "h3")
    server.take_over(result, made)
    new = made.token
    del made
    gc.collect()
    server.release_dropped()
    workers.taken()
    server.handle(2, Fetch(old, "h2"))
    server.handle(2, Fetch(old, "h2", reserved=True))
    server.handle(2, Fetch(new, "h2"))
    assert [(worker, type(message)) for worker, message in workers.taken()] == [
        (2, Unavailable),
        (2, Unavailable),
        (2, Reserve),
    ]
    server.remove(3)
    assert result.is_lost


def test_a_worker_that_has_it_no_more_says_so(server: KeptResults, workers: Workers) -> None:
    result = entered(server)
    token = result.token
    server.handle(2, Fetch(token, "h2"))
    server.handle(2, Fetch(token, "h2", reserved=True))
    workers.taken()
    server.handle(1, Failed(token, "", LOST, "", final=False))
    assert [(worker, message.why) for worker, message in workers.taken()] == [(2, LOST)]
    assert result.is_lost


def test_the_memory_of_a_chain_without_end_is_bounded() -> None:
    before: tuple[Lineage, ...] = ()
    for task in range(3 * MAX_DEPTH):
        before = (lineage_of(task, registered(), Arguments.from_call((), {}), before, (0, task)),)
        if not before[0].complete:
            assert before[0].needs == ()
    depth, one = 0, before[0]
    while one.needs:
        depth, one = depth + 1, cast("Lineage", one.needs[0])
    assert depth <= MAX_DEPTH
