"""The digest of code: what changes it, what does not, and that other processes find the same."""

import functools
import math
import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

from taskfarm.job.decorator import task
from taskfarm.journal.code_digest import digest

PLAIN = """
    def f(x, y=1, *, z=2):
        "What it does."
        def inner(a):
            return a in {"one", "two", "three"}
        return [inner(v) for v in x] + [y, z, FACTOR, helper(x), Thing.size]
    def helper(x):
        return x + 1
    class Thing:
        size = 3
        def area(self):
            return self.size ** 2
    FACTOR = 2
"""


def made(source: str, name: str = "f", file: str = "job.py", **given: Any) -> Any:
    namespace: dict[str, Any] = {"__name__": "__main__", **given}
    exec(compile(textwrap.dedent(source), file, "exec"), namespace)
    return namespace[name]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + 1", "return x + 2"),
        ("return x + 1", "return x - 1"),
        ('"two"', '"TWO"'),
        ("y=1", "y=3"),
        ("z=2", "z=3"),
        ("FACTOR = 2", "FACTOR = 2.0"),
        ("size = 3", "size = 4"),
        ("** 2", "** 3"),
        ("Thing.size]", "Thing.weight]"),
        ("FACTOR = 2", "FACTOR = [1, {2: 3}]"),
    ],
)
def test_what_matters(old: str, new: str) -> None:
    assert old in PLAIN
    assert digest(made(PLAIN)) != digest(made(PLAIN.replace(old, new)))


def test_what_does_not_matter() -> None:
    moved = "\n\n\n" + textwrap.dedent(PLAIN).replace("return x + 1", "return x + 1  # one more")
    moved = moved.replace("What it does.", "What else it does.")
    assert digest(made(moved, file="other.py")) == digest(made(PLAIN))
    unused = textwrap.dedent(PLAIN) + "UNUSED = 5\nsize = 7\n"
    assert digest(made(unused)) == digest(made(PLAIN))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0.0, -0.0),
        ("1", b"1"),
        ([1, 2], [2, 1]),
        ([1], (1,)),
        ({1: 2}, {1: 3}),
        ({1}, {2}),
        (np.arange(3), np.arange(4)),
        (np.arange(4), np.arange(4.0)),
        (np.arange(4), np.arange(4).reshape(2, 2)),
        (np.float32(1), np.float64(1)),
        (range(3), range(4)),
        (math.sin, math.cos),
        (functools.partial(pow, 2), functools.partial(pow, 3)),
        (np.array([1, "a"], object), np.array([1, "b"], object)),
    ],
)
def test_values_that_differ(one: Any, other: Any) -> None:
    def closed(value: Any) -> Any:
        return lambda: value

    assert digest(closed(one)) != digest(closed(other))
    assert digest(made("def f(): return V", V=one)) != digest(made("def f(): return V", V=other))


def test_what_is_shared_does_not_matter() -> None:
    shared = [1]
    assert digest(made("def f(): return V", V=[shared, shared])) == digest(
        made("def f(): return V", V=[[1], [1]])
    )


def test_cycles_and_what_cannot_be_told() -> None:
    even = "def f(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and f(n - 1)"
    assert digest(made(even)) == digest(made(even))
    assert digest(made(even)) != digest(made(even.replace("n != 0", "n > 0")))
    loop: list[Any] = []
    loop.append(loop)
    assert digest(made("def f(): return V", V=loop)) == digest(made("def f(): return V", V=loop))
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert len(digest(made("def f(): return V", V=deep))) == 16

    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __call__(self) -> None: ...

    assert len(digest(Odd())) == 16
    assert digest(made("def f(): return V", V=object())) == digest(made("def f(): return V", V=object()))


def test_objects_and_wrappers() -> None:
    source = """
        class Model:
            def __init__(self, a): self.a = a
            def run(self, x): return self.a * x
            def __call__(self, x): return self.a + x
            @staticmethod
            def still(): return 1
    """
    model, changed = made(source, "Model"), made(source.replace("return 1", "return 2"), "Model")
    assert digest(model(1).run) == digest(made(source, "Model")(1).run)
    assert digest(model(1)) != digest(model(2)) != digest(model(2).run)
    assert digest(model(1).run) != digest(model(2).run)
    assert digest(model(1)) != digest(changed(1))
    plain = made(PLAIN)
    assert digest(task(plain)) == digest(plain) == digest(task(name="other")(plain))
    one, two = made("def f(): return 1"), made("def f(): return 2")
    assert digest(functools.lru_cache(one)) != digest(functools.lru_cache(two))
    assert digest(functools.singledispatch(one)) != digest(functools.singledispatch(two))
    assert digest(functools.partial(one)) != digest(functools.partial(two))


def test_libraries_count_by_name() -> None:
    assert digest(np.linspace) != digest(np.logspace)
    assert digest(made("def f(): return V", V=np)) != digest(made("def f(): return V", V=math))


JOB = (
    textwrap.dedent(PLAIN)
    + """
class Model:
    table = {"a", "b", "c", "d"}
    def __init__(self): self.names = {str(i): {str(i)} for i in range(9)}
    def __call__(self): return f([1]), self.table, NAMES
NAMES = {f: 1, helper: 2, "x": frozenset("abcdefg")}
from taskfarm.journal.code_digest import digest
print(digest(f).hex(), digest(Model()).hex())
"""
)


def test_other_processes_find_the_same() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", JOB],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "77")
    }
    assert len(found) == 1
