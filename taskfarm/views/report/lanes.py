"""The figure with a lane for each worker."""

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

from taskfarm.views.report.charts import COLOURS, FAILED, LEVELS, OTHER, Drawn, bare, short
from taskfarm.views.report.timeline import EXACT, Part

HOSTS, RANKS = 40, 26
"""Hosts and ranks that are named beside the lanes, at most."""

LANE = """
const lane = lanes[tick]
return lane === undefined ? "" : String(lane * together)
"""


def lanes(drawn: Drawn) -> Any:
    """Who ran what when: a heat map if there is more than can be drawn exactly, and the longest parts."""
    count = len(drawn.lanes)
    made = bare(
        drawn,
        "lanes",
        round(min(620, max(110, 24 * count + 40))),
        y_range=Range1d(-0.5, count - 0.5, bounds=(-0.5, count - 0.5)),
    )
    made.ygrid.visible = False
    if drawn.timeline.parts > EXACT:
        _heat(made, drawn)
    _bars(made, drawn)
    _lane_labels(made, drawn)
    return made


def _heat(made: Any, drawn: Drawn) -> None:
    timeline = drawn.timeline
    rows = drawn.lanes[::-1]
    busy, leaders = timeline.busy()[rows], timeline.leaders()[rows]
    share = np.minimum(1.0, busy / (timeline.width * timeline.together))
    level = np.minimum(LEVELS - 1, share * LEVELS).astype(np.uint8)
    colour = np.array(drawn.palette or [0], np.uint8)[leaders]
    codes = np.where(busy > 0, 1 + colour * LEVELS + level, 0).astype(np.uint8)
    strengths = [round(40 + 215 * number / (LEVELS - 1)) for number in range(LEVELS)]
    shades = [f"{colour}{strength:02x}" for colour in (*COLOURS, OTHER) for strength in strengths]
    nothing = ["#00000000"]
    fill = nothing * (256 - 1 - len(shades))
    source = ColumnDataSource({"image": [codes]})
    heat = made.image(
        image="image", source=source, x=0, y=-0.5, dw=1e3 * timeline.width * codes.shape[1], dh=len(rows),
        color_mapper=LinearColorMapper(palette=nothing + shades + fill, low=0, high=256), level="glyph",
    )  # fmt: skip
    made.add_tools(HoverTool(name="cells", renderers=[heat], tooltips=None, show_arrow=False))


def columns(drawn: Drawn, parts: Sequence[Part]) -> dict[str, Any]:
    """Parts as columns, with their rows in the figure."""
    lanes = drawn.lanes
    row = {lane: len(lanes) - 1 - number for number, lane in enumerate(lanes)}
    colours = (*COLOURS, OTHER)
    table = np.array(parts, float).reshape(-1, len(Part._fields))
    found: dict[str, Any] = dict(zip(Part._fields, table.T, strict=True))
    at = np.array([row[drawn.timeline.lane(part.worker)] for part in parts], float)
    found["left"] = 1e3 * found["started"]
    found["right"] = found["left"] + 1e3 * found["seconds"]
    found["middle"] = at
    for name in ("worker", "name", "count", "attempt", "failed", "again"):
        found[name] = found[name].astype(np.int32)
    found["colour"] = [colours[drawn.palette[part.name]] for part in parts]
    del found["started"]
    return found


def _bars(made: Any, drawn: Drawn) -> None:
    timeline = drawn.timeline
    bars = made.hbar(
        "middle", 0.8, "right", "left", source=ColumnDataSource(columns(drawn, timeline.longest())),
        fill_color="colour", line_color=None, name="exact",
    )  # fmt: skip
    failed = made.scatter(
        "right", "middle", source=ColumnDataSource(columns(drawn, timeline.failures)),
        marker="circle_x", size=9, line_color=FAILED, line_width=1.5, name="failed",
    )  # fmt: skip
    row = {lane: len(drawn.lanes) - 1 - number for number, lane in enumerate(drawn.lanes)}
    known = [loss for loss in timeline.losses if timeline.lane(loss.worker) in row]
    lost = ColumnDataSource({
        "time": [1e3 * loss.time for loss in known],
        "middle": [row[timeline.lane(loss.worker)] for loss in known],
        "worker": [loss.worker for loss in known],
        "why": [loss.why[:200] for loss in known],
    })  # fmt: skip
    losses = made.scatter(
        "time", "middle", source=lost, marker="square_x", size=11, line_color=FAILED, line_width=1.5,
        name="lost",
    )  # fmt: skip
    for name, renderers in (("losses", [losses]), ("parts", [bars, failed])):
        made.add_tools(HoverTool(name=name, renderers=renderers, tooltips=None, show_arrow=False))


def _lane_labels(made: Any, drawn: Drawn) -> None:
    count = len(drawn.lanes)
    made.yaxis.ticker = AdaptiveTicker(min_interval=1, desired_num_ticks=20)
    if count <= RANKS:
        made.yaxis.ticker = FixedTicker(ticks=list(range(count)), minor_ticks=[])
    made.yaxis.axis_label = "rank"
    made.yaxis.formatter = CustomJSTickFormatter(
        args={"lanes": drawn.lanes[::-1], "together": drawn.timeline.together}, code=LANE
    )
    starts = [row for row in range(count) if row == 0 or drawn.hosts[row] != drawn.hosts[row - 1]]
    if not 1 < len(starts) <= HOSTS:
        return
    ends = [*starts[1:], count]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if number % 2:
            made.add_layout(
                BoxAnnotation(
                    bottom=count - end - 0.5, top=count - start - 0.5, name="band", level="underlay"
                )
            )
    middles = [count - (start + end + 1) / 2 for start, end in zip(starts, ends, strict=True)]
    names = [PlainText(text=short(drawn.hosts[start], 16)) for start in starts]
    axis = LinearAxis(
        ticker=FixedTicker(ticks=middles, minor_ticks=[]), name="hosts", axis_line_color=None,
        major_label_overrides=dict(zip(middles, names, strict=True)), major_tick_line_color=None,
        major_label_text_font="system-ui, sans-serif", major_label_text_font_size="12px",
    )  # fmt: skip
    made.add_layout(axis, "right")
