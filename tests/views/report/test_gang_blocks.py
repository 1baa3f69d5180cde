"""A task on several ranks is one block over their lanes."""

from taskfarm.schedule.policy import Policy
from taskfarm.views.report.charts import chart_context
from taskfarm.views.report.lanes import columns
from taskfarm.views.report.timeline import Timeline
from tests.views.recorded import ran, registered


def test_neighbouring_lanes_of_a_task_are_one_block() -> None:
    timeline = Timeline(6, 100.0)
    solve = registered("solve")
    solve.policy = Policy(ranks=3)
    for number, (workers, attempt) in enumerate(
        [((1, 2, 3), 1), ((1, 3, 4), 1), ((4, 5, 6), 1), ((4, 5, 6), 2)]
    ):
        first = min(number, 2)
        for worker in workers:
            calls = ran(
                102.0 + 2 * number + worker / 8, seconds=1.0, worker=worker, first=first, attempt=attempt
            )
            share = timeline.calls_finished if worker == workers[0] else timeline.member_finished
            share(calls._replace(function=solve))
    timeline.calls_finished(ran(103.0, seconds=1.0, worker=5, first=9))
    timeline.add_up()
    found = columns(chart_context(timeline, 6, 10.0), timeline.longest())
    blocks = zip(
        *(found[name].tolist() for name in ("first", "worker", "middle", "height", "attempt")), strict=True
    )
    # The lane of rank 1 is at the top, in row 5.
    assert sorted(blocks) == [
        (0, 1, 4.0, 2.8, 1),
        (1, 1, 5.0, 0.8, 1),
        (1, 3, 2.5, 1.8, 1),
        (2, 4, 1.0, 2.8, 1),
        (2, 4, 1.0, 2.8, 2),
        (9, 5, 1.0, 0.8, 1),
    ]
    whole = found["first"].tolist().index(0)
    assert (found["left"][whole], found["right"][whole]) == (1125.0, 2375.0)
    assert timeline.ends()[0].sum() == 5
