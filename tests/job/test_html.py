"""What a notebook shows of farms, futures and maps."""

import re
from collections.abc import Callable

import pytest

from taskfarm import Farm
from taskfarm.job.html import table


def cells(shown: str) -> dict[str, str]:
    """The text of the second column by that of the first."""
    return dict(re.findall(r"<th[^>]*>([^<]*)</th><td[^>]*>([^<]*)</td>", shown))


def test_a_table_is_escaped() -> None:
    shown = table("<lambda>", {"a&b": "<script>", "n": 12345})
    assert "<caption>&lt;lambda&gt;</caption>" in shown
    assert cells(shown) == {"a&amp;b": "&lt;script&gt;", "n": "12,345"}


def test_a_farm_shows_its_workers_and_tasks(open_farm: Callable[[], Farm]) -> None:
    with open_farm() as farm:
        assert list(farm.map(abs, range(5))) == [0, 1, 2, 3, 4]
        shown = cells(farm._repr_html_())
        assert (shown["state"], shown["workers"]) == ("open", str(farm.num_workers))
        assert (shown["tasks queued"], shown["running"]) == ("0", "0")
        assert int(shown["done"].replace(",", "")) >= 5
    assert cells(farm._repr_html_())["state"] == "closed"


def test_a_future_shows_its_state_and_result(farm: Farm) -> None:
    future = farm.submit(list, range(100))
    future.result()
    shown = cells(future._repr_html_())
    assert shown == {
        "task": f"{future.task_id:,}",
        "state": "finished",
        "result": "[0, 1, 2, 3, 4, 5, ...]",
    }
    failed = farm.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()
    assert "invalid literal" in cells(failed._repr_html_())["exception"]


def test_results_show_how_far_the_map_is(farm: Farm) -> None:
    results = farm.map(abs, range(3))
    assert sum(results) == 3
    shown = results._repr_html_()  # type: ignore[attr-defined]
    assert "<caption>Results of abs</caption>" in shown
    assert cells(shown) == {"tasks": "3", "drawn": "3", "ended": "3", "failed": "0"}
