"""What recorders are told: phases in order whatever the workers' clocks, and attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm import testing
from taskfarm.master.clock_offset import ClockOffset
from taskfarm.master.recorders import EventLog, FinishedCalls, PartTiming, Recorder
from taskfarm.transport.waiting import CLOCK
from tests.views.recorded import registered, span


class Keeps(Recorder):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.runs: list[FinishedCalls] = []

    def worker_joined(self, now: float, worker: int, host: str) -> None:
        self.told.append(("joined", worker))

    def worker_lost(self, now: float, worker: int, why: str) -> None:
        self.told.append(("left", worker))

    def calls_finished(self, ran: FinishedCalls) -> None:
        self.told.append(("ended", ran.first))
        self.runs.append(ran)

    def tasks_failed(
        self, now: float, function: object, first: int, count: int, error: BaseException
    ) -> None:
        self.told.append(("failed", first, count))


@given(
    st.floats(-1e5, 1e5),
    st.lists(st.tuples(*[st.floats(1e-5, 10.0)] * 4), min_size=1, max_size=30),
)
def test_a_clock_is_placed_between_what_was_sent_and_received(
    ahead: float, batches: list[tuple[float, float, float, float]]
) -> None:
    offset, now, slack = ClockOffset(), 0.0, float("inf")
    for pause, there, run, back in batches:
        sent = now + pause
        started, ended = sent + there, sent + there + run
        now = ended + back
        offset.update(sent, started + ahead, ended + ahead, now)
        slack = min(slack, there + back)
    assert offset.seconds == pytest.approx(-ahead, abs=slack + 1e-6)


def test_a_clock_that_drifts_is_followed() -> None:
    offset = ClockOffset()
    for drift in (0.0, 5.0, 10.0):
        offset.update(100.0 + drift, 1.0, 2.0, 101.2 + drift)
    assert offset.seconds == pytest.approx(109.1, abs=0.2)


def test_the_clock_of_the_same_host_is_the_same() -> None:
    offset = ClockOffset()
    offset.update(100.0, 101.0, 102.0, 104.0)
    assert offset.seconds == 0.0


def test_events_are_told_in_their_order() -> None:
    events, keeps = EventLog(), Keeps()
    assert not events
    events.add(keeps)
    events.worker_joined(0.0, 1, "here")
    events.batch_sent(1.0, 1, [span(0, 10)], 1)
    events.calls_finished(2.0, 1, registered(), 0.5, PartTiming(0, 10, 1.1, 0.8), {}, [], 0)
    events.worker_lost(3.0, 1, "it died")
    events.tasks_failed(4.0, registered(), 10, 5, ValueError())
    assert not keeps.told
    events.flush()
    assert keeps.told == [("joined", 1), ("ended", 0), ("left", 1), ("failed", 10, 5)]


def test_returned_tasks_that_were_sent_again_count_from_their_last_sending() -> None:
    events, keeps = EventLog(), Keeps()
    events.add(keeps)
    events.batch_sent(1.0, 1, [span(0, 100)], 1)
    events.batch_sent(2.0, 1, [span(60, 40)], 1)
    events.calls_finished(3.0, 1, registered(), 0.0, PartTiming(60, 40, 2.5, 0.2), {}, [], 0)
    events.flush()
    assert (keeps.runs[0].sent, keeps.runs[0].batch) == (2.0, 2)


def test_a_farm_tells_phases_in_order_and_attempts() -> None:
    keeps = Keeps()
    farm = testing.farm(workers=3, seed=1, clock=CLOCK)
    farm._master.outstanding.events.add(keeps)
    with farm:
        assert list(farm.map(abs, range(500))) == list(range(500))
        fails = farm.submit(int, "no number")
        assert isinstance(fails.exception(), ValueError)
    farm._master.outstanding.events.flush()
    assert sum(ran.count for ran in keeps.runs) == 501
    for ran in keeps.runs:
        assert ran.sent <= ran.started + 1e-9
        assert ran.started + ran.seconds <= ran.received + 1e-9
    assert [task for ran in keeps.runs for task in ran.failures] == [0]
    assert [told[1] for told in keeps.told if told[0] == "joined"] == [1, 2, 3]
