"""Kept results over the fake transport: any graph, with workers that die, gives what a loop gives."""

import gc
import pickle
import random
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, rng, task, testing, wait
from taskfarm.errors import DependencyFailed, ResultLost
from taskfarm.protocol.messages import Location
from taskfarm.worker import kept_results


@pytest.fixture(autouse=True)
def every_result_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "KEEP_BYTES", 1)


def combine(number: int, *parts: Any) -> tuple[int, Any]:
    if number % 11 == 10:
        raise ValueError(number)
    return number, sum(total for _, total in parts) + number


def drawn(number: int, *parts: Any) -> tuple[int, float]:
    return number, rng().random() + sum(total for _, total in parts)


keeping = task(keep=True)(combine)
drawing = task(keep=True)(drawn)


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    tasks = draw(st.integers(1, 25))
    return [draw(st.lists(st.integers(0, one - 1), max_size=3)) if one else [] for one in range(tasks)]


def run(farm: Farm, graph: list[list[int]], kinds: list[Any], look: set[int]) -> list[Any]:
    """The outcome of each task; some are looked at as soon as they are submitted."""
    futures: list[Any] = []
    for number, on in enumerate(graph):
        futures.append(farm.submit(kinds[number], number, *(futures[one] for one in on)))
        if number in look:
            futures[-1].exception()
    return [outcome(future) for future in futures]


def outcome(future: Any) -> Any:
    try:
        return future.result()
    except Exception as error:
        return type(error)


class DiesWhenTold(testing.Fault):
    """The worker dies when `told` is set."""

    told = False

    def dies(self, handled: int) -> bool:
        """Whether it was told to."""
        return self.told


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_graph_gives_what_a_loop_gives(
    graph: list[list[int]], workers: int, chance: random.Random
) -> None:
    kinds = [chance.choice([keeping, task(combine), keeping]) for _ in graph]
    look = {number for number in range(len(graph)) if chance.random() < 0.3}
    faults = [testing.Dies(one, after=chance.randrange(3, 40)) for one in range(2, workers + 1)]
    expected: list[Any] = []
    for number, on in enumerate(graph):
        parts = [expected[one] for one in on]
        failed = any(isinstance(part, type) for part in parts)
        if failed or number % 11 == 10:
            expected.append(DependencyFailed if failed else ValueError)
        else:
            expected.append(combine(number, *parts))
    with testing.farm(workers=workers, seed=chance.randrange(99), faults=faults) as farm:
        farm._master.scheduler.attempts.max_kills = 99
        assert run(farm, graph, kinds, look) == expected
        # All over again, now that workers may have died: what is lost is made again only if it must be.
        tasks = farm._master.scheduler.counts().total
        assert run(farm, graph, kinds, look) == expected
        assert not faults or farm._master.scheduler.counts().total >= tasks + len(graph)
        farm._master.scheduler.check()
    gc.collect()
    farm._master.keeping.release_dropped()
    assert not farm._master.keeping._results


def test_what_is_made_again_draws_the_same_random_numbers() -> None:
    graph = [[], [0], [1], [0, 2], [3]]
    outcomes = []
    for deaths in (0, 2):
        faults = [DiesWhenTold(2), DiesWhenTold(3)]
        with testing.farm(workers=3, seed=1, faults=faults) as farm:
            farm._farm.seed = 7
            futures: list[Any] = []
            for number, on in enumerate(graph):
                futures.append(farm.submit(drawing, number, *(futures[one] for one in on)))
            wait(futures)
            for fault in faults[:deaths]:
                fault.told = True
            assert farm.submit(abs, -1).result() == 1
            outcomes.append([future.result() for future in futures])
            made_again = [future.kept.times_made for future in futures]
            assert any(made_again) == bool(deaths)
    assert outcomes[0] == outcomes[1]


def test_after_the_end_of_the_workers_there_is_a_clear_error() -> None:
    with testing.farm(workers=2) as farm:
        future = farm.submit(keeping, 1)
        future.exception()
    with pytest.raises(ResultLost, match=r"^the workers have ended that kept the result of task 0 combine"):
        future.result()


def test_a_callback_and_a_cancelled_dependency() -> None:
    seen: list[Any] = []
    with testing.farm(workers=1) as farm:
        first = farm.submit(keeping, 1)
        first.add_done_callback(lambda future: seen.append(future.result()))
        second = farm.submit(keeping, 2, first)
        assert second.cancel()
        third = farm.submit(keeping, 3, second)
        with pytest.raises(CancelledError):
            third.result()
    assert seen == [(1, 1)]


def test_a_map_takes_kept_results_and_gives_its_own_to_the_job() -> None:
    with testing.farm(workers=2) as farm:
        kept = [farm.submit(keeping, number) for number in range(4)]
        assert list(farm.map(keeping, range(4), kept)) == [(n, 2 * n) for n in range(4)]


def test_a_location_that_is_another_file_by_now_is_not_read() -> None:
    with testing.farm(workers=1) as farm:
        future = farm.submit(keeping, 1)
        future.exception()
        kept = future.kept.at
        wrong = Location(*kept.location[:3], kept.location.inode + 1, kept.location.size)
        future.kept.holders = {1: kept._replace(location=wrong)}
        assert farm._master.keeping.fetch(future.kept) is None


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_a_wrong_option_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^keep must be True or False, not "):
        task(keep=value)(combine)


def test_a_kept_future_does_not_leave_the_farm() -> None:
    with testing.farm(workers=1) as farm:
        future = farm.submit(keeping, 1)
        future.exception()
        with pytest.raises(TypeError):
            pickle.dumps(future)


def test_a_function_may_refer_to_what_is_kept_and_lost() -> None:
    faults = [DiesWhenTold(2), DiesWhenTold(3)]
    with testing.farm(workers=3, faults=faults) as farm:
        first, other = farm.submit(keeping, 1), farm.submit(keeping, 2)
        calls = [farm.submit(partial(combine, 3), first) for _ in range(3)]
        assert [call.result() for call in calls] == [(3, 4)] * 3
        faults[0].told = faults[1].told = True
        assert farm.submit(abs, -1).result() == 1
        refers = partial(combine, 3, first, other)
        assert list(farm.map(lambda _, refers=refers: refers(), range(4))) == [(3, 6)] * 4
        assert first.kept.times_made + other.kept.times_made > 0
