"""The scheduler: any order of events, and every task ends exactly once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskfarm.schedule.attempts import MAX_KILLS
from taskfarm.schedule.batching import RECALL_AFTER, RECALL_INTERVAL, recall_after
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span
from taskfarm.schedule.states import END_STATES, TRANSITIONS


def single(first: int, chunk: int = 0) -> Span:
    return Span(first, first, 1, 0, chunk)


def test_end_states_end() -> None:
    assert all(not TRANSITIONS[state] for state in END_STATES)


def test_first_come_first_served() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    for first in range(3):
        scheduler.submit(single(first))
    assert scheduler.assign(0.0) == [(1, [single(0)])]
    assert scheduler.finish(1, 0, 1, (), 10.0, 8, 0.0) == []
    assert scheduler.assign(0.0) == [(1, [single(1)])]


def test_chunk_is_obeyed() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 10, 0, 4))
    assert scheduler.assign(0.0) == [(1, [Span(0, 0, 4, 0, 4)])]


def test_tasks_of_a_lost_worker_go_to_the_head_of_the_queue() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(single(0))
    scheduler.submit(single(1))
    scheduler.assign(0.0)
    assert scheduler.remove_worker(1).spans == []
    assert scheduler.finish(1, 0, 1, (), 0.1, 0, 0.0) is None
    scheduler.add_worker(2)
    assert scheduler.assign(0.0)[0] == (2, [single(0, chunk=1)])


def test_retry_goes_to_another_worker() -> None:
    scheduler = Scheduler()
    scheduler.attempts.retries[0] = 1
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 3, 0, 3))
    scheduler.assign(0.0)
    assert scheduler.finish(1, 0, 3, [1], 0.1, 0, 0.0) == [1]
    assert scheduler.counts().done == 2
    scheduler.add_worker(2)
    scheduler.submit(single(3))
    assert {a.worker: a.spans[0].first for a in scheduler.assign(0.0)} == {2: 1, 1: 3}
    assert scheduler.finish(2, 1, 1, [0], 0.1, 0, 0.0) == []
    assert scheduler.counts().failed == 1


def test_retry_waits_for_another_worker_and_runs_on_the_same_if_there_is_none() -> None:
    scheduler = Scheduler()
    scheduler.attempts.retries[0] = 1
    scheduler.add_worker(1)
    scheduler.add_worker(2)
    scheduler.submit(single(0))
    scheduler.submit(single(1))
    first = {action.spans[0].first: action.worker for action in scheduler.assign(0.0)}
    assert scheduler.finish(first[0], 0, 1, [0], 0.1, 0, 0.0) == [0]
    scheduler.estimate(0).seconds = 1.0
    assert scheduler.assign(0.0) == [], "the other one is busy for long"
    scheduler.remove_worker(first[1])
    tasks = {span.first for action in scheduler.assign(0.0) for span in action.spans}
    assert 0 in tasks


def test_task_that_kills_workers_fails_and_its_neighbours_do_not() -> None:
    scheduler = Scheduler()
    scheduler.submit(Span(0, 0, 5, 0, 5))
    over: list[Span] = []
    deaths = 0
    for worker in range(1, 9):
        scheduler.add_worker(worker)
        for action in scheduler.assign(0.0):
            for span in action.spans:
                if span.first <= 3 < span.end:
                    over += scheduler.remove_worker(worker).spans
                    deaths += 1
                    break
                scheduler.finish(worker, span.first, span.count, (), 1.0, 0, 0.0)
        while worker in scheduler._workers and (actions := scheduler.assign(0.0)):
            for action in actions:
                for span in action.spans:
                    if span.first == 3 and worker in scheduler._workers:
                        over += scheduler.remove_worker(worker).spans
                        deaths += 1
                    elif worker in scheduler._workers:
                        scheduler.finish(worker, span.first, span.count, (), 1.0, 0, 0.0)
    assert [span.first for span in over] == [3]
    assert deaths == MAX_KILLS
    assert scheduler.counts().done == 4


def test_drained_scheduler_hands_out_nothing() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 10, 0, 4))
    scheduler.assign(0.0)
    assert scheduler.drain() == [1]
    assert scheduler.requeue(1, 1, 3)
    assert scheduler.finish(1, 0, 1, (), 1.0, 0, 0.0) == []
    assert scheduler.assign(0.0) == []
    assert scheduler.counts().queued == 9


def test_cancel_takes_only_what_is_queued() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 10, 0, 2))
    scheduler.assign(0.0)
    assert scheduler.cancel(0, 5) == [Span(0, 2, 3, 0, 2)]
    assert scheduler.counts().cancelled == 3
    assert scheduler.counts().queued == 5


def test_long_tasks_travel_alone_and_short_ones_together() -> None:
    for seconds, most in ((1.0, 1), (1e-5, 10_000)):
        scheduler = Scheduler()
        scheduler.add_worker(1)
        scheduler.submit(Span(0, 0, 100_000, 0))
        sizes = []
        for _ in range(8):
            for _, spans in scheduler.assign(0.0):
                sizes.append(sum(span.count for span in spans))
                for span in spans:
                    scheduler.finish(1, span.first, span.count, (), seconds * span.count, 0, 0.0)
        assert sizes[0] == 1
        assert max(sizes) <= most
        assert (max(sizes) > 100) == (seconds < 1.0)


def test_unstarted_work_of_a_slow_worker_goes_to_an_idle_one() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 4, 0, 4))
    scheduler.assign(0.0)
    scheduler.add_worker(2)
    assert scheduler.recall(0.5 * RECALL_AFTER) == []
    assert scheduler.recall(9 * RECALL_AFTER) == [1]
    assert scheduler.recall(99 * RECALL_AFTER) == [], "once is enough"
    assert scheduler.requeue(1, 2, 2)
    assert [(worker, spans[0].first) for worker, spans in scheduler.assign(0.0)] == [(2, 2)]
    assert scheduler.finish(1, 0, 2, (), 1.0, 8, 0.0) == []


def test_a_worker_that_returned_everything_can_be_recalled_again_but_later_each_time() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 4, 0, 4))
    scheduler.assign(0.0)
    scheduler.add_worker(2)
    now = 0.0
    for patience in (1, 2, 4, 8):
        assert scheduler.recall(now + 0.9 * patience * recall_after(2)) == []
        now += 1.1 * patience * recall_after(2) + RECALL_INTERVAL
        assert scheduler.recall(now) == [1]
        assert scheduler.finish_recall(1, [(0, 4)], None)
        ((worker, _),) = scheduler.assign(now)
        assert worker == 1, "who became idle last"
    assert scheduler.finish(1, 0, 1, (), 1.0, 8, now) == []
    now += 1.1 * recall_after(2) + RECALL_INTERVAL
    assert scheduler.recall(now) == [1], "it has started"


def test_nothing_is_recalled_while_nobody_is_idle() -> None:
    scheduler = Scheduler()
    scheduler.add_worker(1)
    scheduler.submit(Span(0, 0, 4, 0, 4))
    scheduler.assign(0.0)
    assert scheduler.recall(9 * RECALL_AFTER) == []


class Events(RuleBasedStateMachine):
    """Any events, beside a plain set of what each task may still do."""

    @initialize()
    def begin(self) -> None:
        self.scheduler = Scheduler()
        self.scheduler.attempts.retries[1] = 1
        self.scheduler.attempts.retries[2] = 2
        self.failures: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self.drained = False
        self.now = 0.0
        self.next_id = 0
        self.next_worker = 1
        self.queued: set[int] = set()
        self.held: dict[int, list[Span]] = {}
        self.ended: set[int] = set()

    def end(self, span: Span) -> None:
        ids = set(range(span.first, span.first + span.count))
        assert not ids & self.ended, "a task ended twice"
        self.ended |= ids

    @rule(count=st.integers(1, 60), function=st.integers(0, 2), chunk=st.sampled_from([0, 0, 3]))
    def submit(self, count: int, function: int, chunk: int) -> None:
        self.scheduler.submit(Span(self.next_id, self.next_id, count, function, chunk), argument_bytes=8)
        self.queued |= set(range(self.next_id, self.next_id + count))
        self.next_id += count

    @rule()
    def reject(self) -> None:
        self.scheduler.reject(1)
        self.end(single(self.next_id))
        self.next_id += 1

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, self.next_id))
        for span in self.scheduler.cancel(first, data.draw(st.integers(1, 40))):
            self.queued -= set(range(span.first, span.first + span.count))
            self.end(span)

    @rule(kind=st.sampled_from(["cancel", "fail"]))
    def clear(self, kind: str) -> None:
        scheduler = self.scheduler
        spans = scheduler.cancel_queued() if kind == "cancel" else scheduler.fail_queued().spans
        for span in spans:
            self.end(span)
        assert {i for s in spans for i in range(s.first, s.first + s.count)} == self.queued
        self.queued.clear()

    @rule()
    def add_worker(self) -> None:
        self.scheduler.add_worker(self.next_worker)
        self.held[self.next_worker] = []
        self.next_worker += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lose_worker(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        spans = self.held.pop(worker)
        ids = {i for span in spans for i in range(span.first, span.end)}
        over = [span.first for span in self.scheduler.remove_worker(worker).spans]
        for task in ids:
            self.deaths[task] = self.deaths.get(task, 0) + 1
        assert set(over) <= ids
        assert all(self.deaths[task] >= MAX_KILLS for task in over)
        for task in over:
            self.end(single(task))
        self.queued |= ids - set(over)

    @precondition(lambda self: not self.drained)
    @rule(really=st.integers(0, 9))
    def drain(self, really: int) -> None:
        if really:
            return
        asked = self.scheduler.drain()
        self.drained = True
        assert all(self.held[worker] for worker in asked)
        assert self.scheduler.assign(self.now) == []
        assert not self.scheduler.can_assign

    @rule()
    def assign(self) -> None:
        for worker, spans in self.scheduler.assign(self.now):
            for span in spans:
                ids = set(range(span.first, span.first + span.count))
                assert ids <= self.queued, "a task was assigned that is not queued"
                self.queued -= ids
                self.held[worker].append(span)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), seconds=st.floats(1e-9, 10.0), nbytes=st.integers(0, 10**7))
    def finish(self, data: st.DataObject, seconds: float, nbytes: int) -> None:
        worker = data.draw(st.sampled_from([w for w, spans in sorted(self.held.items()) if spans]))
        span = self.held[worker][0]
        count = data.draw(st.integers(1, span.count))
        failed = sorted(data.draw(st.sets(st.integers(0, count - 1))))
        del self.held[worker][0]
        ended = (worker, span.first, count, failed, seconds, nbytes, self.now)
        again = self.scheduler.finish(*ended)
        assert self.scheduler.finish(*ended) is None, "a late word counted"
        _, rest = span.split(count)
        for offset in failed:
            task = span.first + offset
            self.failures[task] = self.failures.get(task, 0) + 1
        assert again == [o for o in failed if self.failures[span.first + o] <= span.function]
        for offset in range(count):
            if offset in again:
                self.queued.add(span.first + offset)
            else:
                self.end(single(span.first + offset))
        if rest.count:
            self.held[worker].insert(0, rest)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def return_unstarted(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([w for w, spans in sorted(self.held.items()) if spans]))
        at = data.draw(st.integers(0, len(self.held[worker]) - 1))
        span = self.held[worker][at]
        kept, given = span.split(data.draw(st.integers(0, span.count - 1)))
        # After the last draw: one that Hypothesis breaks off must leave these books in order.
        del self.held[worker][at]
        assert self.scheduler.requeue(worker, given.first, given.count)
        assert not self.scheduler.requeue(worker, given.first, given.count)
        self.queued |= set(range(given.first, given.end))
        if kept.count:
            self.held[worker].insert(at, kept)

    @rule(seconds=st.floats(0, 1.0))
    def recall(self, seconds: float) -> None:
        self.now += seconds
        asked = self.scheduler.recall(self.now)
        assert all(self.held[worker] for worker in asked)
        assert not asked or len(asked) < len(self.held)

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check()
            counts = self.scheduler.counts()
            assert counts.total == self.next_id
            assert counts.ended == len(self.ended)
            assert counts.queued == len(self.queued)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        if self.drained:
            for span in self.scheduler.fail_queued().spans:
                self.end(span)
        self.add_worker()
        while self.scheduler.unfinished:
            self.assign()
            for worker, spans in self.held.items():
                for span in spans:
                    ended = (span.first, span.count, (), 1e-3, 8, self.now)
                    assert self.scheduler.finish(worker, *ended) == []
                    self.end(span)
                spans.clear()
        assert self.ended == set(range(self.next_id))


TestEvents = Events.TestCase
TestEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
