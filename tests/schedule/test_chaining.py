"""Waiting tasks that are sent together with those whose results they need: when, and how they end."""

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.schedule.batching import BATCH_SECONDS, RECALL_AFTER, RECALL_CHAIN
from taskfarm.schedule.lanes import Demand
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.schedule.states import TaskState

PLAIN, RETRIED, ALONE, OTHER = range(4)

Node = tuple[int, int, list[int]]
"""The function of a task, how often it fails, and what it needs."""


def with_workers(count: int, *functions: int) -> Scheduler:
    """A scheduler with workers, which has measured tasks of 10 us of some functions."""
    scheduler = Scheduler()
    for worker in range(1, count + 1):
        scheduler.add_worker(worker)
    for function in functions:
        scheduler.estimate(function).update(100, 1e-3, 0)
    return scheduler


def submit(scheduler: Scheduler, task: int, *needs: int, function: int = PLAIN) -> None:
    if needs:
        scheduler.submit_waiting(Span(SINGLES, task, 1, function), needs)
    else:
        scheduler.submit_single(task, function)


def sent(scheduler: Scheduler, now: float = 0.0) -> list[tuple[int, list[int]]]:
    """Each worker and the tasks that it is sent, in order."""
    found = []
    for worker, spans in scheduler.assign(now):
        found.append((worker, [task for span in spans for task in range(span.first, span.end)]))
    scheduler.check()
    return found


def test_a_chain_is_sent_with_its_first_task() -> None:
    scheduler = with_workers(2, PLAIN, OTHER)
    submit(scheduler, 0)
    for task in range(1, 6):
        submit(scheduler, task, task - 1, function=OTHER if task in (2, 3) else PLAIN)
    ((worker, tasks),) = sent(scheduler)
    assert tasks == [0, 1, 2, 3, 4, 5]
    counts = scheduler.counts()
    assert (counts.assigned, counts.waiting, counts.queued) == (6, 0, 0)
    for first, count in ((0, 1), (1, 1), (2, 2), (4, 2)):
        assert scheduler.finish(worker, first, count, [], 1e-5, 0, 1.0) == []
        scheduler.check()
    assert scheduler.unfinished == 0
    assert not scheduler.chained


def test_a_chain_is_no_longer_than_a_batch() -> None:
    scheduler = with_workers(1, PLAIN)
    submit(scheduler, 0)
    for task in range(1, 5000):
        submit(scheduler, task, task - 1)
    ((_, tasks),) = sent(scheduler)
    assert tasks == list(range(800)), "8 times as many as were measured together"
    for seconds, most in ((BATCH_SECONDS / 8, 8), (1.0, 1)):
        scheduler = with_workers(1)
        scheduler.estimate(PLAIN).update(100, 100 * seconds, 0)
        submit(scheduler, 0)
        for task in range(1, 50):
            submit(scheduler, task, task - 1)
        assert sent(scheduler) == [(1, list(range(most)))]


def test_trees_are_sent_with_their_leaves_and_wide_graphs_are_not_held_up() -> None:
    scheduler = with_workers(1, PLAIN)
    for task in range(4):
        submit(scheduler, task)
    submit(scheduler, 4, 0, 1)
    submit(scheduler, 5, 2, 3)
    submit(scheduler, 6, 4, 5)
    submit(scheduler, 7, 6, 100)
    ((_, tasks),) = sent(scheduler)
    assert tasks == list(range(len(tasks))), "what they need comes first"
    assert 7 not in tasks, "it needs what is not there"
    scheduler = with_workers(3, PLAIN)
    submit(scheduler, 0)
    for task in range(1, 10):
        submit(scheduler, task, 0)
    assert [tasks for _, tasks in sent(scheduler)] == [[0]], "other workers can run these"
    scheduler.finish(1, 0, 1, [], 1e-5, 0, 1.0)
    scheduler.resolve(0, 0)
    assert scheduler.counts().queued == 9


def test_what_must_travel_by_itself_does() -> None:
    for case in ("alone", "needed", "chunk", "unmeasured", "priority", "spawning", "retried"):
        scheduler = with_workers(1, PLAIN, OTHER)
        first, second = PLAIN, OTHER
        match case:
            case "alone":
                scheduler.sent_alone.add(OTHER)
            case "needed":
                first, second = OTHER, PLAIN
                scheduler.sent_alone.add(OTHER)
            case "unmeasured":
                second = ALONE
            case "priority":
                scheduler.set_demand(7, Demand(1.0))
            case "spawning":
                scheduler.note_spawning(OTHER)
            case "retried":
                scheduler.attempts.retries[second] = 1
                scheduler.attempts.may_retry(second, 1)
        scheduler.submit(Span(SINGLES, 0, 1, first, 1 if case == "chunk" else 0))
        submit(scheduler, 1, 0, function=second)
        assert sent(scheduler) == [(1, [0])], case


def test_a_line_is_recalled_later_than_what_others_could_run() -> None:
    for line, patience in ((True, RECALL_CHAIN), (False, 1)):
        scheduler = with_workers(2, PLAIN)
        submit(scheduler, 0)
        submit(scheduler, 1, *([0] if line else []))
        submit(scheduler, 2, 1)
        sent(scheduler)
        if not line:
            scheduler = with_workers(1, PLAIN)
            scheduler.submit(Span(SINGLES, 0, 3, PLAIN, 3))
            sent(scheduler)
            scheduler.add_worker(2)
        assert scheduler.recall(0.9 * patience * RECALL_AFTER) == []
        assert len(scheduler.recall(9 * patience * RECALL_AFTER)) == 1


def test_a_lost_worker_lets_its_chain_wait_again() -> None:
    scheduler = with_workers(1, PLAIN)
    submit(scheduler, 0)
    for task in range(1, 5):
        submit(scheduler, task, task - 1)
    sent(scheduler)
    scheduler.finish(1, 0, 1, [], 1e-5, 0, 0.0)
    scheduler.remove_worker(1)
    scheduler.check()
    counts = scheduler.counts()
    assert (counts.done, counts.waiting, counts.queued) == (1, 4, 0)
    assert {span.first for span in scheduler.chained.returned} == {1, 2, 3, 4}
    scheduler.add_worker(2)
    for task in range(1, 5):
        # One by one: any of them may have ended the worker.
        scheduler.resolve(task - 1, 0)
        assert sent(scheduler) == [(2, [task])]
        scheduler.finish(2, task, 1, [], 1e-5, 0, 0.0)


def test_a_chained_task_is_retried_alone_and_elsewhere() -> None:
    scheduler = with_workers(1, PLAIN, RETRIED)
    scheduler.attempts.retries[RETRIED] = 1
    for task in (0, 1):
        submit(scheduler, task)
    for task in (2, 3):
        submit(scheduler, task, task - 2, function=RETRIED)
    assert sent(scheduler) == [(1, [0, 1, 2, 3])]
    scheduler.finish(1, 0, 2, [], 1e-5, 0, 0.0)
    assert scheduler.finish(1, 2, 1, [0], 1e-5, 0, 0.0) == [0]
    scheduler.finish_recall(1, [(3, 1)], None)
    scheduler.check()
    assert (scheduler.counts().waiting, scheduler.counts().retried) == (2, 1)
    scheduler.add_worker(2)
    scheduler.resolve(0, 0)
    scheduler.resolve(1, 0)
    where = {tuple(tasks): worker for worker, tasks in sent(scheduler)}
    assert where[2,] == 2
    assert (3,) in where
    assert scheduler.attempts.attempt(2) == 2


class Run:
    """A run of a random graph: workers that run batches in order, are lost or recalled, and futures.

    It does what the master and the workers do.
    """

    def __init__(
        self, graph: list[tuple[int, int, list[int]]], workers: int, chance: random.Random
    ) -> None:
        self.chance = chance
        self.scheduler = with_workers(workers, PLAIN, RETRIED, OTHER)
        self.scheduler.attempts.retries[RETRIED] = 1
        self.scheduler.attempts.max_kills = 1000
        self.scheduler.sent_alone.add(ALONE)
        self.functions = [function for function, _, _ in graph]
        self.failing = {task: times for task, (_, times, _) in enumerate(graph)}
        self.needs = [
            sorted({need % task for need in needs}) if task else []
            for task, (*_, needs) in enumerate(graph)
        ]
        self.batches: dict[int, deque[list[Span]]] = {rank: deque() for rank in range(1, workers + 1)}
        self.had: dict[int, set[int]] = {rank: set() for rank in self.batches}
        self.next_worker = workers + 1
        self.submitted = 0
        self.outcomes: deque[tuple[int, str]] = deque()
        self.ended: dict[int, str] = {}
        self.delivered: set[int] = set()
        self.chained, self.eager = 0, chance.randint(1, 20)
        self.now = 0.0
        self.rarity = chance.choice([0.005, 0.02, 0.08])

    def submit(self) -> None:
        if self.submitted < len(self.needs):
            task, self.submitted = self.submitted, self.submitted + 1
            submit(self.scheduler, task, *self.needs[task], function=self.functions[task])
            self.ask(task)

    def ask(self, task: int) -> None:
        """Let the futures that a task needs report again if they have ended."""
        for need in self.needs[task]:
            if need in self.delivered:
                self.report(need)

    def report(self, task: int) -> None:
        if self.ended[task] == "done":
            self.scheduler.resolve(task, 0)
            return
        cancelled = self.ended[task] == "cancelled"
        for span in self.scheduler.drop_dependents(task, 0, cancelled):
            self.end(span.first, "cancelled" if cancelled else "failed")

    def end(self, task: int, outcome: str) -> None:
        assert task not in self.ended, "it ended twice"
        self.ended[task] = outcome
        self.outcomes.append((task, outcome))

    def deliver(self) -> None:
        if self.outcomes:
            task, _ = self.outcomes.popleft()
            self.delivered.add(task)
            self.report(task)

    def assign(self) -> None:
        for worker, spans in self.scheduler.assign(self.now):
            self.batches[worker].append(spans)
            before: set[int] = set()
            for span in spans:
                for task in range(span.first, span.end):
                    if task in self.scheduler.chained:
                        self.chained += 1
                        missing = set(self.needs[task]) - self.delivered
                        assert self.scheduler.chained.needs(task) == missing
                        assert missing <= before
                    else:
                        assert all(self.ended.get(need) == "done" for need in self.needs[task])
                    before.add(task)

    def work(self) -> None:
        """Let a worker run some calls of its oldest span."""
        busy = [worker for worker, batches in self.batches.items() if batches]
        if not busy:
            return
        worker = self.chance.choice(busy)
        spans = self.batches[worker][0]
        span = spans.pop(0)
        asked = self.chance.randint(1, span.count)
        failed: list[int] = []
        count = 0
        for task in range(span.first, span.first + asked):
            if (
                task in self.scheduler.chained
                and not self.scheduler.chained.needs(task) <= self.had[worker]
            ):
                break
            if self.failing[task] > 0:
                self.failing[task] -= 1
                failed.append(count)
            else:
                self.had[worker].add(task)
            count += 1
        if count:
            seconds = self.chance.choice([1e-6, 1e-5, 3e-3]) * count
            retried = self.scheduler.finish(worker, span.first, count, failed, seconds, 0, self.now)
            assert retried is not None
            for offset in range(count):
                if offset not in retried:
                    self.end(span.first + offset, "failed" if offset in failed else "done")
        rest = [span.split(count)[1]] if count < span.count else []
        if count < asked:
            self.give_back(worker, rest + spans)
            rest, spans[:] = [], []
        spans[:0] = rest
        if not spans:
            self.batches[worker].popleft()
            self.had[worker].clear()

    def give_back(self, worker: int, spans: list[Span]) -> None:
        tasks = [(span.first, span.count) for span in spans]
        assert self.scheduler.finish_recall(worker, tasks, None)

    def recall(self) -> None:
        """Let a worker return what it has not started."""
        busy = [worker for worker, batches in self.batches.items() if batches]
        if busy:
            worker = self.chance.choice(busy)
            (first, *rest), *others = self.batches[worker]
            kept, returned = first.split(self.chance.randint(1, first.count))
            spans = [*rest, *(span for batch in others for span in batch)]
            self.give_back(worker, ([returned] if returned.count else []) + spans)
            self.batches[worker] = deque([[kept]])

    def lose(self) -> None:
        worker = self.chance.choice(list(self.batches))
        assert self.scheduler.remove_worker(worker).spans == []
        del self.batches[worker], self.had[worker]
        self.scheduler.add_worker(self.next_worker)
        self.batches[self.next_worker], self.had[self.next_worker] = deque(), set()
        self.next_worker += 1

    def cancel(self) -> None:
        task = self.chance.randrange(self.submitted) if self.submitted else 0
        for span in self.scheduler.cancel(task, 1):
            self.end(span.first, "cancelled")

    def step(self, rare: bool) -> None:
        self.now += self.chance.choice([1e-4, 1e-3])
        usual = [*[self.submit] * self.eager, self.assign, self.work, self.work, self.deliver, self.deliver]
        seldom = [self.recall, self.recall, self.recall, self.lose, self.cancel]
        self.chance.choice(seldom if rare and self.chance.random() < self.rarity else usual)()
        returned, self.scheduler.chained.returned = self.scheduler.chained.returned, []
        for span in returned:
            self.ask(span.first)
        self.scheduler.check()

    def play(self) -> None:
        for _ in range(30 * len(self.needs)):
            self.step(rare=True)
        for _ in range(200 * len(self.needs) + 200):
            if self.submitted == len(self.needs) and not self.scheduler.unfinished and not self.outcomes:
                break
            self.step(rare=False)
        assert self.scheduler.unfinished == 0
        assert not self.scheduler.chained


@settings(deadline=None, max_examples=60)
@given(
    graph=st.lists(
        st.tuples(
            st.sampled_from([PLAIN, PLAIN, PLAIN, RETRIED, ALONE, OTHER]),
            st.sampled_from([0, 0, 0, 0, 0, 1, 2]),
            st.lists(st.integers(0, 30), max_size=2),
        ),
        min_size=1,
        max_size=40,
    ),
    chain=st.booleans(),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_any_order_of_events_gives_what_the_graph_says(
    graph: list[Node], chain: bool, workers: int, seed: int
) -> None:
    if chain:
        graph = [(one, times, [task - 1, *needs][:1]) for task, (one, times, needs) in enumerate(graph)]
    run = Run(graph, workers, random.Random(seed))
    run.play()
    for task, (function, times, _) in enumerate(graph):
        outcome, before = run.ended[task], {run.ended[need] for need in run.needs[task]}
        if outcome == "done":
            assert before <= {"done"}
            assert times <= (function == RETRIED)
        elif outcome == "failed":
            assert times > (function == RETRIED) or "failed" in before or "cancelled" in before
        assert run.scheduler._states.tasks[TaskState.DONE] == list(run.ended.values()).count("done")


def test_random_runs_do_chain() -> None:
    """So the test above says something."""
    chained = 0
    for seed in range(5):
        run = Run([(PLAIN, 0, [task - 1]) for task in range(60)], 2, random.Random(seed))
        run.play()
        chained += run.chained
    assert chained > 60
