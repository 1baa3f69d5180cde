"""Large arrays are combined from left to right, and rank 0 takes them in one at a time."""

import functools
import itertools
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taskfarm.job.reducing
import taskfarm.protocol.reduction
import taskfarm.worker.worker
from taskfarm import current, task, testing
from taskfarm.master.master import Master
from taskfarm.protocol import messages
from taskfarm.protocol.messages import Deliver, Held, Results
from taskfarm.protocol.reduction import Reduction
from taskfarm.transport.interface import Received

SMALL, LARGE = 100, 1000
"""Numbers in an array that is not large, and in one that is, as long as the fixture lasts."""


@pytest.fixture(autouse=True)
def _low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (taskfarm.job.reducing, "LARGE"),
        (taskfarm.protocol.reduction, "LARGE"),
        (taskfarm.worker.worker, "HELD_BYTES"),
    ):
        monkeypatch.setattr(module, name, 8 * LARGE)


def wild(n: int, size: int = LARGE) -> Any:
    random = Random(n)
    return np.full(size, random.uniform(-1, 1) * 10.0 ** random.randint(-12, 12))


def mixed(n: int) -> Any:
    return wild(n, 1) if n % 5 == 2 else wild(n)


def grown(n: int) -> Any:
    return wild(n, SMALL if n % 3 else LARGE)[: SMALL if n % 3 else LARGE].sum() * np.ones(LARGE)


class Watched(testing.FakeTransport):
    """Counts the large results that rank 0 has been asked for and has not got."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = self.most = self.held = 0

    def send(self, dest: int, parcel: messages.Parcel) -> None:
        if parcel.tag == messages.TAGS[Deliver]:
            self.asked += 1
            self.most = max(self.most, self.asked)
        super().send(dest, parcel)

    def poll(self) -> Received | None:
        received = super().poll()
        if received is not None and received.parcel.tag == messages.TAGS[Held]:
            self.held += 1
        elif received is not None and received.parcel.tag == messages.TAGS[Results] and self.asked:
            self.asked -= 1
        return received


def watched(workers: int, seed: int = 0, faults: Any = ()) -> tuple[Any, Watched]:
    from taskfarm import Farm
    from taskfarm.job.farm import open_on

    transport = Watched(workers, seed, faults)
    return open_on(Farm, Master(transport, testing.VirtualClock())), transport


def test_from_left_to_right_and_not_in_a_tree() -> None:
    leaves = [wild(n) for n in range(20)]
    expected = functools.reduce(np.add, leaves)
    for order in (range(20), reversed(range(20))):
        reduction = Reduction(np.add)
        for position in order:
            reduction.add(position, 1, leaves[position])
            reduction.combine_large()
        assert reduction.result().tobytes() == expected.tobytes()
    assert leaves[0].tobytes() == wild(0).tobytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, LARGE]), min_size=1, max_size=40), st.data())
def test_the_brackets_do_not_depend_on_batches_or_order(sizes: list[int], data: st.DataObject) -> None:
    leaves = [wild(n, size) for n, size in enumerate(sizes)]
    found = set()
    for _ in range(3):
        cuts = sorted(data.draw(st.sets(st.integers(0, len(sizes)))) | {0, len(sizes)})
        batches = list(itertools.pairwise(cuts))
        together = Reduction(np.add)
        for start, stop in data.draw(st.permutations(batches)):
            batch = Reduction(np.add)
            batch.extend(start, leaves[start:stop])
            for first, size, value in batch.nodes():
                together.add(first, size, value.copy(), owned=True)
            together.combine_large()
        value = together.result()
        found.add((value.shape, value.tobytes()))
    assert len(found) == 1


def test_rank_0_is_sent_one_at_a_time_and_the_bits_do_not_depend_on_workers() -> None:
    found = set()
    for workers in (1, 2, 7):
        farm, transport = watched(workers, seed=workers)
        with farm:
            found.add(farm.reduce(wild, np.add, range(50), chunksize=1).tobytes())
        assert (transport.most, transport.held) == (1, 50)
    assert found == {functools.reduce(np.add, map(wild, range(50))).tobytes()}


@pytest.mark.parametrize("function", [mixed, grown])
def test_large_and_small_ones(function: Any) -> None:
    found = set()
    for workers in (1, 3, 8):
        farm, transport = watched(workers, seed=workers)
        with farm:
            found.add(farm.reduce(function, np.add, range(60), chunksize=1, initial=np.ones(1)).tobytes())
        assert transport.most == 1
    assert len(found) == 1


def test_lost_workers_lose_what_they_hold_back_and_nothing_else() -> None:
    expected = functools.reduce(np.add, map(wild, range(40))).tobytes()
    for seed in range(6):
        faults = [testing.Dies(rank, after=4 + 3 * rank + seed) for rank in (1, 2, 3)]
        farm, _ = watched(4, seed, faults)
        with farm:
            assert farm.reduce(wild, np.add, range(40), chunksize=1).tobytes() == expected
        farm._master.scheduler.check()


def test_a_lost_first_task_is_run_although_all_workers_hold_something_back() -> None:
    dies = testing.Dies(1, after=5)
    farm, _ = watched(3, 0, [dies, testing.Slow(1)])
    with farm:
        assert farm.reduce(wild, np.add, range(30))[0] == functools.reduce(np.add, map(wild, range(30)))[0]


def test_a_straggler_lets_the_others_go_on_if_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free in (1 << 40, 0):
        monkeypatch.setattr(taskfarm.job.reducing, "free_memory", lambda free=free: free)
        silent = testing.Silent(1)
        silent.silent = True
        farm, transport = watched(3, 0, [silent])
        with farm:
            with pytest.raises(TimeoutError):
                farm.reduce(wild, np.add, range(40), chunksize=1, timeout=30)
            # Two workers hold back two results each, unless they may be sent before their turn.
            assert (transport.held > 30) is bool(free)
            silent.silent = False
            assert farm.submit(abs, -3).result() == 3
        farm._master.scheduler.check()


def test_failures_and_retries() -> None:
    @task(retries=1)
    def flaky(n: int) -> Any:
        if n % 7 == 3 and current().attempt == 1:
            raise ValueError(n)
        return wild(n)

    def fails(n: int) -> Any:
        if n in (20, 31):
            raise ValueError(n)
        return wild(n)

    for workers in (1, 4):
        farm, _ = watched(workers, 1)
        with farm:
            total = farm.reduce(flaky, np.add, range(50), chunksize=1)
            assert total.tobytes() == functools.reduce(np.add, map(wild, range(50))).tobytes()
            with pytest.raises(ValueError, match="20"):
                farm.reduce(fails, np.add, range(50), chunksize=1)
            # What was held back for the failed one keeps no worker.
            assert list(farm.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        farm._master.scheduler.check()


def test_an_operation_that_is_no_ufunc_makes_a_tree() -> None:
    joined = task(lambda n: np.full(LARGE // 4, float(n)))
    farm, _ = watched(3)
    with farm:
        whole = farm.reduce(
            joined, lambda left, right: np.concatenate([left, right]), range(33), chunksize=1
        )
    assert whole[:: LARGE // 4].tolist() == list(range(33))
