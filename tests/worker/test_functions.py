"""A callable with a state is copied for each call; its large buffers only where a call changes them."""

import numpy as np
import pytest

from taskfarm import task
from taskfarm.protocol.functions import FunctionTable
from taskfarm.protocol.messages import Define
from taskfarm.protocol.serialize import dumps
from taskfarm.worker.functions import MAPPED_BYTES, LoadedFunction
from taskfarm.worker.namespace import Namespace


class Adds:
    def __init__(self, size: int) -> None:
        self.values = np.zeros(size)
        self.calls = 0

    def __call__(self, x: float) -> tuple[float, int]:
        self.values += x
        self.calls += 1
        return float(self.values[-1]), self.calls


@task
def appends(x: int, seen: list[int] = []) -> int:  # noqa: B006
    seen.append(x)
    return len(seen)


@pytest.mark.parametrize("size", [1, 5000, MAPPED_BYTES])
def test_each_call_gets_a_copy(size: int) -> None:
    function = LoadedFunction(Define(1, "adds", dumps(Adds(size)), fresh=True), Namespace())
    function.load()
    assert [function.called(x) for x in (1.0, 2.0, 3.0)] == [(1.0, 1), (2.0, 1), (3.0, 1)]


def test_what_has_no_state_is_loaded_once() -> None:
    table, two = FunctionTable(), 2
    values = [1]
    assert not table.register(abs).fresh
    assert not table.register(appends).fresh
    assert not table.register(lambda x: x + two).fresh
    assert table.register(lambda x: x + values[0]).fresh
    assert table.register(Adds(1)).fresh
    assert table.register(Adds(1).__call__).fresh
