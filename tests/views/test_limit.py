"""Runs whose bottleneck is known: the budget adds up, and the sentence names the bottleneck."""

from collections.abc import Callable

import pytest

from tests.views.virtual_run import VirtualRun

Run = Callable[[], VirtualRun]


def made(run: VirtualRun, *steps: Callable[[VirtualRun], None]) -> VirtualRun:
    """A run after some steps."""
    for step in steps:
        step(run)
    return run


def barriers(run: VirtualRun) -> None:
    for _ in range(40):
        run.map([0.02, 0.02, 0.02, 0.08])


def serial(run: VirtualRun) -> None:
    for _ in range(100):
        run.map([0.02], submits=True)


def plots_after(run: VirtualRun) -> None:
    run.map([0.1] * 100)
    run.job(10.0)


def reads_before(run: VirtualRun) -> None:
    run.job(10.0)
    run.map([0.1] * 100)


def hangs(run: VirtualRun) -> None:
    run.map([0.1] * 50, hangs=True)
    run.wait(55.0)


KINDS: dict[str, tuple[Run, str]] = {
    "plots after": (lambda: made(VirtualRun(), plots_after), "after the last task"),
    "reads before": (lambda: made(VirtualRun(), reads_before), "before the first task"),
    "slow initializer": (
        lambda: made(VirtualRun(initializer=30.0), lambda run: run.map([0.1] * 100)),
        "the initializer took 9",
    ),
    "rank 0 produces": (
        lambda: made(VirtualRun(), lambda run: run.map([0.01] * 300, draw=0.02)),
        "while rank 0 made the arguments",
    ),
    "rank 0 consumes": (
        lambda: made(VirtualRun(), lambda run: run.map([0.01] * 300, consume=0.03, buffersize=8)),
        "outside the farm, between tasks",
    ),
    "more ranks than cores": (
        lambda: made(VirtualRun(cores=2), lambda run: run.map([0.1] * 200, cpu=0.31, core_wait=0.69)),
        "4 workers shared 2 cores: their tasks got 31% of a core each",
    ),
    "other processes": (
        lambda: made(VirtualRun(), lambda run: run.map([0.1] * 200, cpu=0.5, core_wait=0.5)),
        "tasks got 50% of a core each: other processes",
    ),
    "memory bandwidth": (
        lambda: made(VirtualRun(), lambda run: run.map([0.1] * 200)),
        "if tasks do not compete for memory",
    ),
    "pickling of lists": (
        lambda: made(VirtualRun(), lambda run: run.map([0.001] * 300, pickle=0.01, nbytes=10**6)),
        "moving 300 MB of arguments and results",
    ),
    "large captured global": (
        lambda: made(
            VirtualRun(), lambda run: run.map([0.01] * 4, pickle=0.2, carries=64_000_000, transfer=0.5)
        ),
        "moving the function work, which carries 64 MB",
    ),
    "straggler last": (
        lambda: made(VirtualRun(), lambda run: run.map([0.01] * 200 + [6.0])),
        "one task (200, work) took 6 s",
    ),
    "straggler first": (
        lambda: made(VirtualRun(), lambda run: run.map([6.0] + [0.01] * 200)),
        "one task (0, work) took 6 s",
    ),
    "too few tasks": (
        lambda: made(VirtualRun(), lambda run: run.map([2.0] * 3)),
        "too few tasks (3) for 4 workers",
    ),
    "barriers": (lambda: made(VirtualRun(), barriers), "at the ends of 40 maps"),
    "payload": (
        lambda: made(VirtualRun(), lambda run: run.map([0.002] * 300, nbytes=8 * 10**6, transfer=0.01)),
        "moving 2.4 GB of arguments and results",
    ),
    "short tasks": (
        lambda: made(VirtualRun(), lambda run: run.map([1e-5] * 20_000, master=1e-4)),
        "tasks of 10 us are too short for one master",
    ),
    "hung task": (
        lambda: made(VirtualRun(), hangs),
        "one task (49, work) ran for 55.1 s and did not end",
    ),
    "load in the first call": (
        lambda: made(VirtualRun(), lambda run: run.map([0.05] * 100, first=3.0)),
        "first calls took 3 s longer than later ones",
    ),
    "balanced": (
        lambda: made(VirtualRun(), lambda run: run.map([0.1] * 400)),
        "the workers were in tasks for 98% of the time: more cores",
    ),
    "waits for files": (
        lambda: made(VirtualRun(), lambda run: run.map([0.1] * 400, cpu=0.1)),
        "more workers than cores help",
    ),
    "serial dependency": (
        lambda: made(VirtualRun(), serial),
        "on average 1.0 tasks were running",
    ),
    "many retries": (
        lambda: made(VirtualRun(), lambda run: run.map([0.1] * 100, fails=True)),
        "calls that failed, were retried",
    ),
    "one rank": (
        lambda: made(VirtualRun(1), lambda run: run.map([0.1] * 100)),
        "the workers were in tasks for 98% of the time",
    ),
    "no tasks": (lambda: made(VirtualRun(), lambda run: run.job(5.0)), "no task ran"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bottleneck_is_named_and_the_budget_adds_up(kind: str) -> None:
    make, sentence = KINDS[kind]
    run = make()
    figures = run.figures()
    assert sentence in figures["limit"], figures
    total = figures["workers"] * figures["wall_seconds"]
    assert sum(figures["budget_seconds"].values()) == pytest.approx(total, rel=0.03)
    assert min(figures["budget_seconds"].values()) >= 0.0


def test_nothing_is_said_of_a_short_run() -> None:
    run = made(VirtualRun(), lambda run: run.map([0.01] * 10))
    assert run.figures()["limit"] == ""


def test_an_interrupted_run_adds_up() -> None:
    run = made(VirtualRun(), lambda run: run.map([0.5] * 100, hangs=True), lambda run: run.wait(0.3))
    figures = run.figures()
    assert figures["unfinished"] == 1
    assert sum(figures["budget_seconds"].values()) == pytest.approx(4 * figures["wall_seconds"], rel=0.03)
