"""An idle worker is woken before its message is made, so that it wakes up meanwhile."""

import operator
from typing import Any

from taskfarm import Farm, testing
from taskfarm.job.farm import open_on
from taskfarm.master.master import Master
from taskfarm.protocol.messages import TAGS, Parcel, Work


class Watched(testing.FakeTransport):
    """Notes which workers are woken, and which get work."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.seen: list[tuple[str, int]] = []

    def rouse(self, rank: int) -> None:
        self.seen.append(("woken", rank))

    def send(self, dest: int, parcel: Parcel) -> None:
        if parcel.tag == TAGS[Work]:
            self.seen.append(("work", dest))
        super().send(dest, parcel)


class Argument:
    """Tells what was seen when it was pickled."""

    seen: Any = None
    at: Any = ()

    def __reduce__(self) -> Any:
        Argument.at = list(self.seen)
        return int, (7,)


def test_the_worker_that_gets_the_call_is_woken_first() -> None:
    transport = Watched(workers=3)
    with open_on(Farm, Master(transport, testing.VirtualClock())) as farm:
        assert farm.submit(operator.neg, 1).result() == -1
        Argument.seen = transport.seen
        for _ in range(3):
            transport.seen.clear()
            assert farm.submit(operator.neg, Argument()).result() == -7
            (_, woken), (_, worked) = transport.seen
            assert woken == worked
            assert Argument.at == [("woken", woken)]
        transport.seen.clear()
        futures = [farm.submit(operator.neg, n) for n in range(10)]
        assert [kind for kind, _ in transport.seen] == ["woken", "work"] * 3, "nobody else is idle"
        assert [future.result() for future in futures] == [-n for n in range(10)]
