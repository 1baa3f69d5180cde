"""A resumed run takes a result from the journal only if a new run would compute the same."""

import os
import sys
import textwrap
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import taskfarm
from taskfarm.errors import JournalError
from taskfarm.job.farm import Farm, open_on
from taskfarm.journal import safety, value_digest
from taskfarm.journal.journal import Journal
from taskfarm.master.master import Master
from taskfarm.worker.local import LocalTransport


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run.db")


def run(
    path: str,
    function: Callable[..., Any],
    items: Sequence[Any] = (1, 2),
    use: Callable[[Farm, Callable[..., Any], Sequence[Any]], list[Any]] | None = None,
    seed: int | None = None,
    **options: Any,
) -> list[Any]:
    """The results of a map, or of what `use` does, in a run that resumes from a journal."""
    value_digest._OF_THIS_PROCESS = os.urandom(16)
    master = Master(LocalTransport())
    journal = Journal(path, resume=True)
    master.outstanding.journal = journal
    master.functions.code_digest = journal.code_digest
    if seed is not None:
        master.choose_seed(seed)
    try:
        with open_on(Farm, master, **options) as farm:
            return list(farm.map(function, items)) if use is None else use(farm, function, items)
    finally:
        journal.close()


def program(code: str, **given: Any) -> Any:
    """The namespace of a program, which is ``__main__`` until another one is made."""
    main = types.ModuleType("__main__")
    vars(main).update(given)
    sys.modules["__main__"] = main
    exec(compile(textwrap.dedent(code), "job.py", "exec"), vars(main))
    return main


@pytest.fixture(autouse=True)
def _main() -> Iterator[None]:
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


def token(x: Any) -> tuple[str, str]:
    """A result that no other call has: equal ones in two runs come from the file."""
    return repr(x), uuid.uuid4().hex


def random_token(x: Any) -> tuple[float, str]:
    return float(taskfarm.rng().random()), uuid.uuid4().hex


def set_up(*args: Any) -> None: ...


def set_up_otherwise(*args: Any) -> None:
    sys.getswitchinterval()


# What a farm begins with.


def test_the_initializer_and_its_arguments_count(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"initializer": set_up},
        {"initializer": set_up_otherwise},
        {"initializer": set_up, "initargs": (1,)},
        {"initializer": set_up, "initargs": ({"a": {1, 2}},)},
    ]
    found = [run(path, token, **way) for way in ways]
    assert len({result for results in found for _, result in results}) == 2 * len(ways)
    assert "what 'token' uses (the initializer) has changed" in capsys.readouterr().err
    assert [run(path, token, **way) for way in ways] == found
    assert capsys.readouterr().err == ""


def test_what_the_initializer_sets_is_told_by_its_code(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
        import sqlite3, uuid
        def set_up(name):
            global CONNECTION
            CONNECTION = sqlite3.connect(name)
        def f(x): return CONNECTION is not None, uuid.uuid4().hex
    """
    main = program(code)
    first = run(path, main.f, initializer=main.set_up, initargs=(":memory:",))
    main = program(code, CONNECTION=3)  # as if it was set in this process, too
    assert run(path, main.f, initializer=main.set_up, initargs=(":memory:",)) == first
    assert capsys.readouterr().err == ""


def test_the_seed_counts_where_tasks_draw(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(path, random_token, seed=1)
    assert run(path, random_token, seed=1) == first
    assert capsys.readouterr().err == ""
    for other in ({"seed": 2}, {}):
        second = run(path, random_token, **other)
        assert {token for _, token in second}.isdisjoint(token for _, token in first)
        assert "are from random numbers of another seed" in capsys.readouterr().err
    plain = run(path, token, seed=1)
    assert run(path, token, seed=2) == plain


def test_any_random_numbers_will_do_without_a_seed(path: str) -> None:
    first = run(path, random_token, [1, 2, 3])
    assert run(path, random_token, [3, 1])[0] == first[2]


def in_two_maps(farm: Farm, function: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    return [*farm.map(function, items[:1]), *farm.map(function, items[1:])]


def in_submits(farm: Farm, function: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    return [farm.submit(function, item).result() for item in items]


@pytest.mark.parametrize(
    ("items", "use"),
    [([0, 1, 2, 3], None), ([1, 2, 3], in_two_maps), ([1, 2, 3], in_submits), ([3, 2, 1], None)],
)
def test_the_place_in_the_job_counts_where_tasks_draw(
    path: str, tmp_path: Path, items: list[int], use: Any
) -> None:
    run(path, random_token, [1, 2, 3], seed=1)
    resumed = run(path, random_token, items, use, seed=1)
    afresh = run(str(tmp_path / "other.db"), random_token, items, use, seed=1)
    assert [number for number, _ in resumed] == [number for number, _ in afresh]


def test_draws_in_a_helper_of_a_library_and_in_a_child_count(path: str) -> None:
    draw = taskfarm.task(isolate=True)(random_token)
    first = run(path, draw, seed=1)
    assert run(path, draw, seed=1) == first
    assert not set(run(path, draw, seed=2)) & set(first)


# Arguments.


CLASS = """
    import uuid
    class A:
        def __init__(self, v): self.v = v
        def double(self): return 2 * self.v
    class B(A):
        __slots__ = ("more",)
    def f(a): return uuid.uuid4().hex
"""


def test_the_code_of_arguments_counts(path: str) -> None:
    main = program(CLASS)
    first = run(path, main.f, [main.A(1), main.B(2), main.A, {"a": [main.A(1)]}])
    main = program("\n\n" + textwrap.dedent(CLASS).replace("import", "# A comment.\nimport"))
    assert run(path, main.f, [main.A(1), main.B(2), main.A, {"a": [main.A(1)]}]) == first
    assert not set(run(path, main.f, [main.A(2), main.B(1)])) & set(first)
    main = program(CLASS.replace("2 * self.v", "3 * self.v"))
    assert not set(run(path, main.f, [main.A(1), main.B(2), main.A])) & set(first)


def arguments() -> list[Any]:
    text = "".join(["a", "b"])
    array = np.arange(12.0).reshape(3, 4)
    return [
        ("ab", "ab"),
        {"ab": {"x", "y", text}, "y": frozenset({text, "z"})},
        array,
        array.astype("f4"),
        lambda x: x + 1,
        [text, text],
        np.float64(1),
        {1, 2, 3},
    ]


def test_equal_arguments_are_equal_however_they_are_in_memory(path: str) -> None:
    first = run(path, token, arguments())
    other = arguments()
    other[0] = ("ab", "".join(["a", "b"]))
    other[2] = np.asfortranarray(other[2])
    other[5] = ["ab", "".join(["a", "b"])]
    other[7] = {3, 2, 1}
    assert [token for _, token in run(path, token, other)] == [token for _, token in first]


class Odd:
    """An argument that pickles, and not in the same way twice."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Odd, (), {"when": uuid.uuid4().hex}


def test_arguments_that_vary_run_again(path: str) -> None:
    first = run(path, token, [Odd()])
    assert run(path, token, [Odd()]) != first


class Picky:
    """An argument that pickles once, and then no more."""

    def __init__(self) -> None:
        self.left = 1
        self.lock = threading.Lock()
        self.numbers = (n for n in range(3))

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("once only")
        return Odd, ()


def test_arguments_that_cannot_be_told_run_again_and_are_named(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(path, token, [Picky()])
    assert run(path, token, [Picky()]) != first
    err = capsys.readouterr().err
    assert "the arguments of 'token' hold what cannot be compared between runs (numbers (builtins" in err
    assert err.count("\n") == 2


# What is said.


def test_what_has_changed_is_named(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
        import uuid
        from types import SimpleNamespace
        LIMITS = SimpleNamespace(low=1, high=2)
        def helper(x): return x
        def f(x, scale=1): return helper(x) * scale, LIMITS, uuid.uuid4().hex
    """
    first = run(path, program(code).f)
    for old, new, line in [
        ("high=2", "high=3", "what 'f' uses (LIMITS) has changed since the journal was written: its 2"),
        ("return x\n", "return -x\n", "what 'f' uses (helper) has changed"),
        ("scale=1", "scale=2", "what 'f' uses (scale=) has changed"),
        ("* scale", "+ scale", "the code of 'f' has changed since the journal was written: its 2 finished"),
    ]:
        capsys.readouterr()
        other = str(Path(path).with_name("copy.db"))
        Path(other).unlink(missing_ok=True)
        run(other, program(code).f)
        run(other, program(code.replace(old, new)).f)
        assert line in capsys.readouterr().err
    assert run(path, program(code).f) == first
    assert capsys.readouterr().err == ""


def test_what_cannot_be_told_is_said_once(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    beside = types.ModuleType("beside")
    beside.__dict__["NUMBERS"] = (n for n in range(3))
    exec("import uuid\ndef f(x): return NUMBERS, uuid.uuid4().hex", beside.__dict__)
    sys.modules["beside"] = beside
    try:
        beside.f.__module__ = "beside"
        function = beside.f
        names = []
        for _ in range(2):
            names.append(run(path, taskfarm.task(name="f")(Caller(function)), [1, 1]))
    finally:
        del sys.modules["beside"]
    err = capsys.readouterr().err
    assert err.count("cannot be compared between runs (function.NUMBERS (builtins.generator))") == 2
    assert names[0] != names[1]


class Caller:
    """Calls a function, and pickles without it."""

    def __init__(self, function: Any = None) -> None:
        self.function = function
        self.__name__ = "caller"

    def __getstate__(self) -> Any:
        return {"function": self.function}

    def __call__(self, x: Any) -> str:
        return uuid.uuid4().hex


def test_a_journal_of_an_earlier_format_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "FORMAT", safety.FORMAT - 1)
    monkeypatch.setattr("taskfarm.journal.store.FORMAT", safety.FORMAT)
    run(path, token)
    monkeypatch.undo()
    with pytest.raises(JournalError, match=r"written by another version of taskfarm \(its format is 1"):
        run(path, token)
