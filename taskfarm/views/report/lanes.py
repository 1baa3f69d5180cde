"""The figure with a lane for each worker."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    BoxAnnotation,
    ColumnDataSource,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    LinearAxis,
    LinearColorMapper,
    PlainText,
    Range1d,
)

from taskfarm.views.report.charts import COLOURS, FAILED, LEVELS, OTHER, ChartContext, empty_figure, short
from taskfarm.views.report.timeline import EXACT, Part

HOSTS, RANKS = 40, 26
"""Hosts and ranks that have labels beside the lanes, at most."""

LANE = """
const lane = lanes[tick]
return lane === undefined ? "" : String(lane * ranks_per_lane)
"""


def lanes(context: ChartContext) -> Any:
    """Plot what each worker ran and when: the longest parts, over a heat map if there are more parts."""
    count = len(context.lanes)
    chart = empty_figure(
        context,
        "lanes",
        round(min(620, max(110, 24 * count + 40))),
        y_range=Range1d(-0.5, count - 0.5, bounds=(-0.5, count - 0.5)),
    )
    chart.ygrid.visible = False
    if context.timeline.parts > EXACT:
        _heat(chart, context)
    _bars(chart, context)
    _lane_labels(chart, context)
    return chart


def _heat(chart: Any, context: ChartContext) -> None:
    """Add the heat map."""
    timeline = context.timeline
    rows = context.lanes[::-1]
    busy, leaders = timeline.busy()[rows], timeline.leaders()[rows]
    share = np.minimum(1.0, busy / (timeline.width * timeline.ranks_per_lane))
    level = np.minimum(LEVELS - 1, share * LEVELS).astype(np.uint8)
    colour = np.array(context.palette or [0], np.uint8)[leaders]
    codes = np.where(busy > 0, 1 + colour * LEVELS + level, 0).astype(np.uint8)
    strengths = [round(40 + 215 * number / (LEVELS - 1)) for number in range(LEVELS)]
    shades = [f"{colour}{strength:02x}" for colour in (*COLOURS, OTHER) for strength in strengths]
    transparent = ["#00000000"]
    padding = transparent * (256 - 1 - len(shades))
    source = ColumnDataSource({"image": [codes]})
    heat = chart.image(
        image="image",
        source=source,
        x=0,
        y=-0.5,
        dw=1e3 * timeline.width * codes.shape[1],
        dh=len(rows),
        color_mapper=LinearColorMapper(palette=transparent + shades + padding, low=0, high=256),
        level="glyph",
    )
    chart.add_tools(HoverTool(name="cells", renderers=[heat], tooltips=None, show_arrow=False))


def rows_of(context: ChartContext) -> dict[int, int]:
    """The row of each lane; the first lane is at the top."""
    return {lane: len(context.lanes) - 1 - number for number, lane in enumerate(context.lanes)}


def blocks(context: ChartContext, parts: Sequence[Part]) -> tuple[list[Part], list[int]]:
    """Join what neighbouring lanes show of a task on several ranks.

    Returns
    -------
    parts : list of Part
        The parts; of a task on several ranks, one for each group of lanes without a gap: that of the
        highest of them, from the start on the first rank to the end on the last one.
    heights : list of int
        How many lanes each one fills, from its own downwards.
    """
    row = rows_of(context)
    found = [part for part in parts if part.ranks == 1]
    shares: defaultdict[tuple[int, int, int], dict[int, Part]] = defaultdict(dict)
    for part in parts:
        if part.ranks > 1:
            shares[part.first, part.attempt, part.name][row[context.timeline.lane(part.worker)]] = part
    heights = [1] * len(found)
    for share in shares.values():
        rows = sorted(share)
        starts = [at for at, one in enumerate(rows) if at == 0 or rows[at - 1] != one - 1]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            group = [share[one] for one in rows[start:end]]
            began = min(part.started for part in group)
            ended = max(part.started + part.seconds for part in group)
            found.append(group[-1]._replace(started=began, seconds=ended - began))
            heights.append(end - start)
    return found, heights


def columns(context: ChartContext, parts: Sequence[Part]) -> dict[str, Any]:
    """Convert parts to columns, with their rows in the figure."""
    row = rows_of(context)
    parts, heights = blocks(context, parts)
    colours = (*COLOURS, OTHER)
    table = np.array(parts, float).reshape(-1, len(Part._fields))
    found: dict[str, Any] = dict(zip(Part._fields, table.T, strict=True))
    found["left"] = 1e3 * found["started"]
    found["right"] = found["left"] + 1e3 * found["seconds"]
    highest = np.array([row[context.timeline.lane(part.worker)] for part in parts], float)
    found["middle"] = highest - (np.array(heights, float) - 1) / 2
    found["height"] = np.array(heights, float) - 0.2
    for name in ("worker", "name", "count", "attempt", "failed", "retried", "ranks"):
        found[name] = found[name].astype(np.int32)
    found["colour"] = [colours[context.palette[part.name]] for part in parts]
    del found["started"]
    return found


def _bars(chart: Any, context: ChartContext) -> None:
    """Add the parts that are drawn exactly, and marks for failures and lost workers."""
    timeline = context.timeline
    bars = chart.hbar(
        "middle",
        "height",
        "right",
        "left",
        source=ColumnDataSource(columns(context, timeline.longest())),
        fill_color="colour",
        line_color=None,
        name="exact",
    )
    failed = chart.scatter(
        "right",
        "middle",
        source=ColumnDataSource(columns(context, timeline.failures)),
        marker="circle_x",
        size=9,
        line_color=FAILED,
        line_width=1.5,
        name="failed",
    )
    row = rows_of(context)
    shown = [loss for loss in timeline.losses if timeline.lane(loss.worker) in row]
    lost = {
        "time": [1e3 * loss.time for loss in shown],
        "middle": [row[timeline.lane(loss.worker)] for loss in shown],
        "worker": [loss.worker for loss in shown],
        "why": [loss.why[:200] for loss in shown],
    }
    losses = chart.scatter(
        "time",
        "middle",
        source=ColumnDataSource(lost),
        marker="square_x",
        size=11,
        line_color=FAILED,
        line_width=1.5,
        name="lost",
    )
    for name, renderers in (("losses", [losses]), ("parts", [bars, failed])):
        chart.add_tools(HoverTool(name=name, renderers=renderers, tooltips=None, show_arrow=False))


def _lane_labels(chart: Any, context: ChartContext) -> None:
    """Label the lanes with their ranks, and groups of lanes with their hosts."""
    count = len(context.lanes)
    chart.yaxis.ticker = AdaptiveTicker(min_interval=1, desired_num_ticks=20)
    if count <= RANKS:
        chart.yaxis.ticker = FixedTicker(ticks=list(range(count)), minor_ticks=[])
    chart.yaxis.axis_label = "rank"
    chart.yaxis.formatter = CustomJSTickFormatter(
        args={"lanes": context.lanes[::-1], "ranks_per_lane": context.timeline.ranks_per_lane}, code=LANE
    )
    starts = [row for row in range(count) if row == 0 or context.hosts[row] != context.hosts[row - 1]]
    if not 1 < len(starts) <= HOSTS:
        return
    ends = [*starts[1:], count]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if number % 2:
            chart.add_layout(
                BoxAnnotation(
                    bottom=count - end - 0.5, top=count - start - 0.5, name="band", level="underlay"
                )
            )
    middles = [count - (start + end + 1) / 2 for start, end in zip(starts, ends, strict=True)]
    names = [PlainText(text=short(context.hosts[start], 16)) for start in starts]
    axis = LinearAxis(
        ticker=FixedTicker(ticks=middles, minor_ticks=[]),
        name="hosts",
        axis_line_color=None,
        major_label_overrides=dict(zip(middles, names, strict=True)),
        major_tick_line_color=None,
        major_label_text_font="system-ui, sans-serif",
        major_label_text_font_size="12px",
    )
    chart.add_layout(axis, "right")
