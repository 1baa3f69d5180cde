"""The figures of the report. Times are in milliseconds here, so that ticks fall on seconds and minutes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJSTickFormatter,
    DatetimeTicker,
    FixedTicker,
    HoverTool,
    Label,
    NumeralTickFormatter,
    PlainText,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from taskfarm.views.durations import FINENESS
from taskfarm.views.report.timeline import Timeline
from taskfarm.views.summary import Row

COLOURS = ("#0077bb", "#d9661f", "#009988", "#b0569b", "#a38600", "#5a6fc4")
"""For the functions with most of the time: the colour-blind can tell them apart, on white and on black."""

OTHER, FAILED = "#858b94", "#e03131"
"""For the other functions, and for what failed."""

LEVELS = 36
"""Strengths of each colour in the heat map; with the colours and 0 for idle they fit a byte."""

BINS, FUNCTIONS = 600, 12
"""Bins of the figures without lanes, and functions that are shown, at most."""

TICKS = """
const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : tick || 1
const digits = (unit) => Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9))
if (step < 0.1) return (tick * 1000).toFixed(digits(0.001)) + " \\u00b5s"
if (step < 100) return tick.toFixed(digits(1)) + " ms"
if (step < 60000 && ticks[ticks.length - 1] < 300000) return (tick / 1000).toFixed(digits(1000)) + " s"
const minutes = Math.floor(tick / 60000 + 1e-9), rest = (tick - minutes * 60000) / 1000
const two = (value) => String(value).padStart(2, "0")
const seconds = rest.toFixed(digits(1000)).padStart(step < 1000 ? 3 + digits(1000) : 2, "0")
if (minutes < 60) return minutes + ":" + seconds
return Math.floor(minutes / 60) + ":" + two(minutes % 60) + ":" + seconds
"""

DURATION = """
const units = [[1, "s"], [1e-3, "ms"], [1e-6, "\\u00b5s"], [1e-9, "ns"]]
const [scale, unit] = tick >= 1000 ? [1, "s"] : units.find(([scale]) => tick >= scale * 0.999) || units[3]
return Number((tick / scale).toPrecision(3)) + " " + unit
"""


class Drawn(NamedTuple):
    """What the figures of one report share.

    Attributes
    ----------
    timeline : Timeline
        What is drawn.
    end : float
        Milliseconds that are drawn.
    time : Range1d
        The time that is in view.
    lanes : list of int
        Lanes from top to bottom: by host, then by rank.
    hosts : list of str
        Their hosts.
    palette : list of int
        The place of each function's colour in `COLOURS`; behind the last: `OTHER`.
    """

    timeline: Timeline
    end: float
    time: Range1d
    lanes: list[int]
    hosts: list[str]
    palette: list[int]


def drawn(timeline: Timeline, workers: int, seconds: float) -> Drawn:
    """Order lanes, and give colours to the functions with most of the time."""
    busy, leaders = timeline.busy(), timeline.leaders()
    names = timeline.names
    of = {timeline.lane(worker): host for worker, host in timeline.hosts.items()}
    told = {timeline.lane(part.worker) for part in (*timeline.longest(), *timeline.failures)}
    used = {*of, *told, *np.flatnonzero(busy.any(axis=1)).tolist()} or {timeline.lane(workers)}
    order = {host: number for number, host in enumerate(dict.fromkeys(of.values()))}
    lanes = sorted(used, key=lambda lane: (order.get(of.get(lane, ""), len(order)), lane))
    times = np.bincount(leaders.ravel(), weights=busy.ravel(), minlength=len(names))
    ranks = np.argsort(np.argsort(-times[: len(names)], kind="stable"))
    palette = np.minimum(ranks, len(COLOURS)).tolist()
    end = max(1e-3, 1e3 * seconds)
    time = Range1d(0, end, bounds=(0, end), min_interval=min(end, 1e-3), name="time")
    return Drawn(timeline, end, time, lanes, [of.get(lane, "") for lane in lanes], palette)


def bare(drawn: Drawn | None, name: str, height: int, **options: Any) -> Any:
    """A bare figure; the page gives it colours."""
    tools = [] if drawn is None else [WheelZoomTool(dimensions="width"), BoxZoomTool(dimensions="auto")]
    made = figure(
        name=name, height=height, sizing_mode="stretch_width", toolbar_location=None, tools=[],
        min_border=4, background_fill_color=None, border_fill_color=None, outline_line_color=None,
        **options,
    )  # fmt: skip
    if drawn is not None:
        made.add_tools(*tools, ResetTool())
        made.toolbar.active_scroll, made.toolbar.active_drag = tools
        made.x_range = drawn.time
        made.xaxis.ticker = DatetimeTicker(desired_num_ticks=6)
        made.xaxis.formatter = CustomJSTickFormatter(code=TICKS)
        made.min_border_left = 56
    made.xaxis.minor_tick_line_color = made.yaxis.minor_tick_line_color = None
    made.axis.axis_line_color = made.axis.major_tick_line_color = None
    made.axis.axis_label_text_font = made.axis.major_label_text_font = "system-ui, sans-serif"
    made.axis.axis_label_text_font_size = made.axis.major_label_text_font_size = "12px"
    made.axis.axis_label_text_font_style = "normal"
    return made


def short(text: str, most: int) -> str:
    """A text, or its begin and end."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def _merged(values: Any, most: int = BINS) -> tuple[Any, int]:
    """Sums over neighbouring bins, so that there are not too many, and how many were merged into one."""
    group = -(-values.size // most)
    return np.pad(values, (0, -values.size % group)).reshape(-1, group).sum(axis=1), group


def _area(drawn: Drawn, name: str, values: Any, group: int, top: float, more: Mapping[str, Any]) -> Any:
    """Steps over time, with a hover over the whole height."""
    made = bare(drawn, name, 150, y_range=Range1d(0, top))
    edges = 1e3 * drawn.timeline.width * group * np.arange(values.size + 1)
    edges[-1] = max(edges[-2], min(edges[-1], drawn.end))
    made.varea(
        np.repeat(edges, 2)[1:-1], np.zeros(2 * values.size), np.repeat(values, 2),
        fill_color=COLOURS[0], fill_alpha=0.35,
    )  # fmt: skip
    made.line(np.repeat(edges, 2)[1:-1], np.repeat(values, 2), line_color=COLOURS[0], line_width=1.5)
    source = ColumnDataSource({"left": edges[:-1], "right": edges[1:], "value": values, **more})
    steps = made.quad(
        "left", "right", top, 0, source=source, fill_color=None, line_color=None, name="steps"
    )
    made.add_tools(HoverTool(name=f"{name} steps", renderers=[steps], tooltips=None, show_arrow=False))
    return made


def utilisation(drawn: Drawn, workers: int) -> Any:
    """The share of the workers that were busy, over time."""
    seconds, group = _merged(drawn.timeline.busy().sum(axis=0, dtype=np.float64))
    whole = np.full(seconds.size, group * drawn.timeline.width)
    whole[-1] = max(1e-9, min(whole[-1], drawn.end / 1e3 - whole[0] * (seconds.size - 1)))
    share = np.minimum(1.0, seconds / (whole * max(1, workers)))
    made = _area(drawn, "busy", share, group, 1.05, {})
    made.yaxis.ticker = FixedTicker(ticks=[0, 0.25, 0.5, 0.75, 1], minor_ticks=[])
    made.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return made


def ends(drawn: Drawn) -> Any:
    """Tasks that ended each second, over time, and where some of them failed."""
    ended, failed = drawn.timeline.ends()
    # Few tasks would be single peaks in short bins.
    most = min(BINS, max(30, int(ended.sum()) // 8))
    total, group = _merged(ended, most)
    bad, _ = _merged(failed, most)
    length = group * drawn.timeline.width
    rate = total / length
    top = 1.1 * max(1e-9, float(rate.max()))
    made = _area(
        drawn, "ends", rate, group, top, {"tasks": total.astype(float), "failed": bad.astype(float)}
    )
    made.yaxis.ticker.desired_num_ticks = 4
    made.yaxis.formatter = CustomJSTickFormatter(
        code='return tick.toLocaleString("en", {notation: "compact"})'
    )
    at = np.flatnonzero(bad)
    made.scatter(
        1e3 * length * (at + 0.5),
        np.full(at.size, 0.05 * top),
        marker="circle_x",
        size=9,
        line_color=FAILED,
        line_width=1.5,
    )
    return made


def durations(drawn: Drawn, rows: Mapping[str, Row]) -> Any:
    """How long the calls of each function took."""
    shown = sorted(rows.items(), key=lambda item: -item[1].seconds)[:FUNCTIONS]
    made = bare(None, "durations", 46 * len(shown) + 44, x_axis_type="log")
    made.y_range = Range1d(0, max(1, len(shown)))
    made.yaxis.visible = made.ygrid.visible = False
    made.min_border_left, made.min_border_right = 8, 28
    made.xaxis.formatter = CustomJSTickFormatter(code=DURATION)
    found: dict[str, list[Any]] = {
        key: [] for key in ("left", "right", "bottom", "top", "colour", "row", "count")
    }
    names = {name: number for number, name in enumerate(drawn.timeline.names)}
    for number, (name, row) in enumerate(shown):
        bottom = len(shown) - 1 - number
        colour = (*COLOURS, OTHER)[drawn.palette[names[name]] if name in names else len(COLOURS)]
        most = max(row.durations.classes.values(), default=1)
        for place, count in sorted(row.durations.classes.items()):
            edges = (2.0 ** ((place + side) / FINENESS) for side in (-0.5, 0.5))
            values = (*edges, bottom, bottom + 0.06 + 0.56 * count / most, colour, number, count)
            for key, value in zip(found, values, strict=True):
                found[key].append(value)
        made.add_layout(
            Label(
                x=4, y=bottom + 0.66, x_units="screen", text=PlainText(text=short(name, 44)), name="label",
                text_font="system-ui, sans-serif", text_font_size="12px",
            )
        )  # fmt: skip
    low, high = min(found["left"], default=0.1), max(found["right"], default=10.0)
    middle, reach = (low * high) ** 0.5, max(4.0, 1.3 * (high / low) ** 0.5)
    made.x_range = Range1d(middle / reach, middle * reach)
    steps = (1, 2, 5) if reach < 7 else (1,)
    powers = range(math.floor(math.log10(middle / reach)), math.ceil(math.log10(middle * reach)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    made.xaxis.ticker = made.xgrid.ticker = FixedTicker(ticks=ticks, minor_ticks=[])
    quads = made.quad(
        "left",
        "right",
        "top",
        "bottom",
        source=ColumnDataSource(found),
        fill_color="colour",
        line_color=None,
    )
    made.add_tools(HoverTool(name="classes", renderers=[quads], tooltips=None, show_arrow=False))
    return made
