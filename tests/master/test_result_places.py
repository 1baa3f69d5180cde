"""An array in which results are received is not given back while a message may still come to be in it."""

import pickle
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from taskfarm import Farm, testing
from taskfarm.errors import WorkerLost
from taskfarm.job.arrays import BlocksRun
from taskfarm.master.result_places import ARRIVING_SECONDS, ResultPlaces
from taskfarm.protocol import messages
from taskfarm.protocol.messages import Blob, Outcomes, Results


class Receiving:
    """The master over a transport that receives something for some turns of its loop."""

    def __init__(self, turns: float) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self.transport = self.waiter = self.clock = self
        self.turns = turns
        self.time = 0.0
        self.allocate: Any = None

    def now(self) -> float:
        return self.time

    def pause(self, waited: float) -> None:
        self.time += 0.01

    def run_once(self, deliver: bool) -> bool:
        assert not deliver
        self.turns -= 1
        return False

    def receive_into(self, tag: int, allocate: Any) -> None:
        assert tag == messages.TAGS[Results]
        self.allocate = allocate

    def receives_into(self, memory: Any) -> bool:
        return self.turns > 0


class Sink:
    """Wants the results of some tasks in an array of its own, if they are pickled as expected."""

    def __init__(self, tasks: range) -> None:
        self.tasks = tasks
        self.memory = np.zeros((len(tasks), 40_000), np.uint8)

    def place_of(self, task: int, data: bytes) -> Any:
        return self.memory[task - self.tasks.start] if data == b"fits" else None


def result(data: bytes, nbytes: int = 40_000) -> Blob:
    return Blob(data, [pickle.PickleBuffer(np.zeros(nbytes, np.uint8))])


@pytest.mark.parametrize(("turns", "ended"), [(0, True), (20, True), (float("inf"), False)])
def test_the_end_waits_but_not_for_ever(turns: float, ended: bool) -> None:
    master: Any = Receiving(turns)
    places = ResultPlaces(master, SimpleNamespace())  # type: ignore[arg-type]
    sink: Any = Sink(range(1))
    places.open(sink)
    assert master.allocate is not None
    assert places.close(sink, np.zeros(3)) is ended
    assert master.allocate is None
    assert master.time < ARRIVING_SECONDS + 0.1


def test_only_what_fits_goes_there() -> None:
    sink, ended = Sink(range(5, 9)), Sink(range(20, 21))
    sinks = {5: sink, 20: ended, 30: None}
    pending: Any = SimpleNamespace(sink_of=lambda source, first: sinks[source])
    master: Any = Receiving(0)
    places = ResultPlaces(master, pending)
    places.open(sink)  # type: ignore[arg-type]
    blobs = [result(b"fits"), result(b"other"), result(b"fits"), result(b"fits", 33_000)]
    parts = [
        Outcomes(30, 30, 1, [result(b"fits")], {}, 0.0),
        Outcomes(5, 5, 4, blobs, {}, 0.0),
        Outcomes(20, 20, 1, [result(b"fits")], {}, 0.0),
        Outcomes(5, 5, 2, b"plain", {}, 0.0),
    ]
    parcel = messages.encode(Results(parts))
    sizes = [memoryview(buffer).nbytes for buffer in parcel.buffers]
    found = master.allocate(bytearray(parcel.head), sizes)
    assert [memory.nbytes for memory in found] == sizes
    placed = [np.shares_memory(memory, sink.memory) for memory in found]
    assert placed == [False, True, False, True, False, False]
    assert np.shares_memory(found[3], sink.memory[2])
    # A head that is a frame itself says nothing beforehand.
    assert not np.shares_memory(master.allocate(bytearray(), [40_000])[0], sink.memory)


def test_an_array_that_may_still_change_is_not_given_back(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays: list[Any] = []

    def never(run: BlocksRun) -> bool:
        arrays.append(run._out)
        return False

    monkeypatch.setattr(BlocksRun, "_end_receiving", never)
    image = np.arange(12.0)
    with pytest.raises(WorkerLost, match="may still arrive in the array: do not use that array"):
        farm.map_array(np.negative, image, out=np.empty(12))
    found = farm.map_array(np.negative, image)
    assert np.array_equal(found, -image)
    assert not np.shares_memory(found, arrays[-1])
    with pytest.raises(ValueError, match="came back with the shape") as raised:
        farm.map_array(lambda block: np.ones((len(block), 2)), image, out=np.empty(12))
    assert "may still arrive" in raised.value.__notes__[-1]


@pytest.fixture
def farm() -> Any:
    with testing.farm(2, seed=1) as farm:
        yield farm
