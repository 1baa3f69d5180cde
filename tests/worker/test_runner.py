"""What a worker does with calls: one failure never costs another task its result."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.errors import CallNotLoadable, ResultNotPicklable, TaskExited, UsageError
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.messages import Blob, Define, Forget, Initialize, Part
from taskfarm.protocol.outcomes import Completed, load_outcomes
from taskfarm.protocol.serialize import dumps
from taskfarm.worker.context import IN_TASK, Place, current
from taskfarm.worker.runner import Runner


def run(function: Any, columns: list[Any], propagate: Any = ()) -> Completed:
    runner = Runner(Place(1, "node"), propagate)
    runner.prepare(Define(7, "f", dumps(function)))
    arguments = Arguments.from_columns(columns)
    (outcomes,) = runner.run([Part(7, 100, 100, arguments.count, arguments.slice(0, arguments.count))])
    assert (outcomes.first, outcomes.count) == (100, arguments.count)
    assert outcomes.seconds >= 0
    assert runner.num_tasks == arguments.count
    return load_outcomes(outcomes)


def behave(what: str) -> Any:
    actions: dict[str, Any] = {
        "exit": lambda: exit(3),
        "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
        "stop": lambda: next(iter(())),
        "error": lambda: 1 / 0,
        "generator": lambda: (i for i in ()),
    }
    return actions[what]() if what in actions else what.upper()


ENDS = {
    "exit": TaskExited,
    "interrupt": TaskExited,
    "stop": TaskExited,
    "error": ZeroDivisionError,
    "generator": ResultNotPicklable,
}


@given(st.lists(st.sampled_from([*ENDS, "fine", "well"]), min_size=1, max_size=12))
def test_each_call_ends_in_its_own_way(whats: list[str]) -> None:
    completed = run(behave, [whats])
    for offset, what in enumerate(whats):
        if what in ENDS:
            assert isinstance(completed.failures[offset], ENDS[what])
            call = "f" if what == "generator" else f"f({what!r})"
            assert f"task {100 + offset} {call} on rank 1 (node)" in str(
                completed.failures[offset].__cause__
            )
        else:
            assert completed.values[offset] == what.upper()
    assert len(completed.values) == len(whats)


def test_function_that_cannot_be_loaded_fails_each_of_its_tasks() -> None:
    runner = Runner(Place(1, "node"), ())
    runner.prepare(Define(1, "gone", Blob(b"cno_such_module\nf\n.", [])))
    arguments = Arguments.from_columns([[1, 2]])
    completed = load_outcomes(runner.run([Part(1, 0, 0, 2, arguments.slice(0, 2))])[0])
    assert all(isinstance(completed.failures[offset], CallNotLoadable) for offset in (0, 1))
    assert "Install the module 'no_such_module'" in str(completed.failures[0])


def test_what_passes_ends_the_batch_and_gives_back_what_has_not_started() -> None:
    runner = Runner(Place(1, "node"), (KeyboardInterrupt,))
    runner.prepare(Define(1, "behave", dumps(behave)))
    arguments = Arguments.from_columns([["fine", "interrupt", "well"]])
    completed = load_outcomes(runner.run([Part(1, 0, 0, 3, arguments.slice(0, 3))])[0])
    assert completed.values == ["FINE", None]
    assert set(completed.failures) == {1}
    assert runner.release_left() == [(2, 1)]


def in_task(x: int) -> bool:
    return IN_TASK.get() is not None


def test_task_knows_that_it_is_one() -> None:
    assert run(in_task, [[1]]).values == [True]
    assert not IN_TASK.get()


def test_task_may_not_open_a_farm() -> None:
    def opens(x: int) -> None:
        from taskfarm import Farm

        Farm()

    assert isinstance(run(opens, [[1]]).failures[0], UsageError)


def test_initializer_that_fails_is_told() -> None:
    runner = Runner(Place(1, "node"), ())
    assert runner.initialize(Initialize(1, [], dumps((abs, (1,))))) is None
    failure = runner.initialize(Initialize(1, [], dumps((int, ("x",)))))
    assert failure is not None
    assert "initializer on rank 1 (node)" in failure.trace


def test_forgotten_functions_are_dropped() -> None:
    runner = Runner(Place(1, "node"), ())
    runner.prepare(Define(1, "f", dumps(abs)))
    runner.prepare(Forget([1], []))
    with pytest.raises(KeyError):
        runner.run([Part(1, 0, 0, 1, Arguments.from_columns([[1]]).slice(0, 1))])


def who(x: int) -> tuple[int, str, int, int, str]:
    return current()


def test_task_can_ask_who_it_is() -> None:
    completed = run(who, [list(range(50))])
    assert completed.values == [(100 + x, "f", 1, 1, "node", None, math.inf, {}) for x in range(50)]
    with pytest.raises(UsageError, match="works only inside a task"):
        current()
