"""Views learn what the calls of tasks need of each other, as they learn it of the job's."""

import taskfarm
from taskfarm import testing
from taskfarm.master.recorders import Recorder


@taskfarm.task
def number(value: int, *_: int) -> int:
    """A value."""
    return value


@taskfarm.task
def chain(length: int) -> int:
    """Submits calls of which each needs the one before it."""
    last = number.submit(0)
    for value in range(1, length):
        last = number.submit(value, last)
    return last.result()


class Needs(Recorder):
    """Keeps which task needs which."""

    def __init__(self) -> None:
        self.needs: dict[int, int] = {}

    def task_depends(self, task: int, on: int) -> None:
        self.needs[task] = on


def test_calls_of_tasks_are_told_with_what_they_need() -> None:
    needs = Needs()
    farm = testing.farm(workers=2)
    farm._master.outstanding.events.add(needs)
    with farm:
        assert farm.submit(chain, 5).result() == 4
    farm._master.outstanding.events.flush()
    assert needs.needs == {task + 1: task for task in range(1, 5)}
