"""Maps with constant keywords, and results with their arguments."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm import Farm, task, testing


@task
def power(base: float, exponent: float = 2, *, factor: float = 1) -> float:
    if base < 0:
        raise ValueError(base)
    return float(factor * base**exponent)


@task
def keywords(x: int, **given: int) -> dict[str, int]:
    return {"x": x, **given}


class Model:
    @task
    def times(self, x: float, by: float = 1) -> float:
        return x * by


def test_constant_keywords(farm: Farm) -> None:
    assert list(power.map([1, 2], factor=10)) == [10, 40]
    assert list(power.map([1, 2], exponent=3, factor=2, chunksize=1, unordered=False)) == [2, 16]
    assert list(power.map([1, 2], [3, 4], factor=10)) == [10, 160]
    assert list(power.starmap([(2,), (2, 3)], factor=10)) == [40, 80]
    assert list(power.options(retries=1).map([2], factor=3)) == [12]
    assert list(keywords.map([1], any=2)) == [{"x": 1, "any": 2}]
    assert list(Model().times.map([1, 2], by=5)) == [5, 10]
    returned = list(power.options(on_error="return").map([-1, 1], factor=2))
    assert isinstance(returned[0], ValueError)
    assert "power(-1)" in returned[0].__notes__[0]
    assert returned[1] == 2


def test_names_of_options_stay_options(farm: Farm) -> None:
    # The function would take it, too.
    assert list(keywords.map([1, 2], chunksize=2)) == [{"x": 1}, {"x": 2}]
    assert list(keywords.options(unordered=True).map([1])) == [{"x": 1}]


@pytest.mark.parametrize("call", ["power.map([1], factr=2)", "power.starmap([(1,)], chunksiz=2)"])
def test_a_misspelt_option_is_an_error_at_once(farm: Farm, call: str) -> None:
    with pytest.raises(
        TypeError, match=r"power: got an unexpected keyword argument '(factr|chunksiz)'; the options"
    ):
        eval(call)


def test_a_constant_that_is_an_iterable_too(farm: Farm) -> None:
    with pytest.raises(TypeError, match="power: multiple values for argument 'base'"):
        power.map([1], base=2)


@given(
    values=st.lists(st.integers(0, 50), max_size=60),
    chunksize=st.sampled_from([None, 1, 7]),
    buffersize=st.sampled_from([None, 1, 10]),
    unordered=st.booleans(),
    seed=st.integers(0, 5),
)
@settings(deadline=None, max_examples=30)
def test_results_with_their_arguments(
    values: list[int], chunksize: int | None, buffersize: int | None, unordered: bool, seed: int
) -> None:
    how = {"chunksize": chunksize, "buffersize": buffersize, "unordered": unordered, "with_arguments": True}
    with testing.farm(workers=3, seed=seed) as farm:
        singles = list(power.map(values, **how))  # type: ignore[call-overload]
        pairs = list(farm.map(power, values, values, **how))  # type: ignore[call-overload]
        tuples = list(power.starmap(zip(values, values, strict=True), **how))  # type: ignore[call-overload]
    wanted = [(x, float(x**2)) for x in values]
    assert sorted(singles) == sorted(wanted)
    assert sorted(pairs) == sorted(((x, x), float(x**x)) for x in values)
    assert sorted(tuples) == sorted(pairs)
    if not unordered:
        assert singles == wanted
        assert pairs == tuples


def test_an_exception_ends_a_map_with_arguments(farm: Farm) -> None:
    results = power.map([1, 2, -3, 4], with_arguments=True)
    assert [next(results), next(results)] == [(1, 1), (2, 4)]
    with pytest.raises(ValueError, match="-3"):
        next(results)


JOB = """
import sys
from taskfarm import task

@task
def f(x, by=1):
    return x * by

@task(key=lambda x, by=1: (x, by))
def g(x, by=1):
    return x * by

by = int(sys.argv[1])
print(list(f.map([1, 2], by=by)), list(g.map([1, 2], by=by)))
"""


def test_constants_are_part_of_what_a_journal_knows(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    for by, restored in ((3, 0), (4, 0), (3, 4)):
        words = ["-m", "taskfarm", "run", "--journal", "run.db", "--resume", "job.py", str(by)]
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert done.stdout == f"[{by}, {2 * by}] [{by}, {2 * by}]\n", done.stderr
        assert (f"{restored} results came from run.db" in done.stderr) == (restored > 0), done.stderr


def test_what_objects_show_of_themselves(farm: Farm) -> None:
    assert repr(power.options(retries=2)) == "<Task power retries=2>"
    assert repr(farm) == f"<Farm of {farm.num_workers} workers: 0 tasks unfinished>"
    results = power.map([1, 2, 3])
    assert len(list(results)) == 3
    assert repr(results) == "<results of power: 3 of 3 tasks have ended>"
    future = power.submit(3)
    future.result()
    assert repr(future).endswith(f" state=finished returned float task={future.task_id}>")
    failed = power.submit(-1)
    failed.exception()
    assert repr(failed).endswith(f" state=finished raised ValueError task={failed.task_id}>")
    farm.shutdown()
    assert repr(farm) == f"<Farm of {farm.num_workers} workers: closed>"
