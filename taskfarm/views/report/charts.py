"""The figures of the report. Times are in milliseconds, so that ticks fall on seconds and minutes."""

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

from taskfarm.master.farm_time import FarmTime
from taskfarm.views.durations import BINS_PER_OCTAVE
from taskfarm.views.report.timeline import Timeline
from taskfarm.views.summary import Row

COLOURS = ("#0077bb", "#d9661f", "#009988", "#b0569b", "#a38600", "#5a6fc4")
"""Colours of the functions with the most time, for colour-blind readers, on white and on black."""

OTHER, FAILED = "#858b94", "#e03131"
"""Colours of the other functions, and of failures."""

RANK_0 = (COLOURS[1], COLOURS[2])
"""Colours of what rank 0 does: the job's own code, and work for the farm."""

LEVELS = 36
"""Opacities of each colour in the heat map; all shades, and 0 for idle, fit in a byte."""

BINS, FUNCTIONS = 600, 12
"""Bins of the figures without lanes, and functions of the histograms, at most."""

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


class ChartContext(NamedTuple):
    """What the figures of one report have in common.

    Attributes
    ----------
    timeline : Timeline
        The data.
    end : float
        Duration of the run, in milliseconds.
    time : Range1d
        The time axis, which all figures over time share.
    lanes : list of int
        Lanes from top to bottom: by host, then by rank.
    hosts : list of str
        The host of each of these lanes.
    palette : list of int
        Index of each function's colour in `COLOURS`; its length stands for `OTHER`.
    """

    timeline: Timeline
    end: float
    time: Range1d
    lanes: list[int]
    hosts: list[str]
    palette: list[int]


def chart_context(timeline: Timeline, workers: int, seconds: float) -> ChartContext:
    """Order the lanes, and assign colours to the functions with the most time."""
    busy, leaders = timeline.busy(), timeline.leaders()
    names = timeline.names
    hosts = {timeline.lane(worker): host for worker, host in timeline.hosts.items()}
    marked = {timeline.lane(part.worker) for part in (*timeline.longest(), *timeline.failures)}
    used = {*hosts, *marked, *np.flatnonzero(busy.any(axis=1)).tolist()} or {timeline.lane(workers)}
    order = {host: number for number, host in enumerate(dict.fromkeys(hosts.values()))}
    lanes = sorted(used, key=lambda lane: (order.get(hosts.get(lane, ""), len(order)), lane))
    times = np.bincount(leaders.ravel(), weights=busy.ravel(), minlength=len(names))
    ranks = np.argsort(np.argsort(-times[: len(names)], kind="stable"))
    palette = np.minimum(ranks, len(COLOURS)).tolist()
    end = max(1e-3, 1e3 * seconds)
    time = Range1d(0, end, bounds=(0, end), min_interval=min(end, 1e-3), name="time")
    return ChartContext(timeline, end, time, lanes, [hosts.get(lane, "") for lane in lanes], palette)


def empty_figure(context: ChartContext | None, name: str, height: int, **options: Any) -> Any:
    """Create an empty figure, with a time axis if there is a context; the page sets its colours."""
    tools = [] if context is None else [WheelZoomTool(dimensions="width"), BoxZoomTool(dimensions="auto")]
    chart = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools=[],
        min_border=4,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **options,
    )
    if context is not None:
        chart.add_tools(*tools, ResetTool())
        chart.toolbar.active_scroll, chart.toolbar.active_drag = tools
        chart.x_range = context.time
        chart.xaxis.ticker = DatetimeTicker(desired_num_ticks=6)
        chart.xaxis.formatter = CustomJSTickFormatter(code=TICKS)
        chart.min_border_left = 56
    chart.xaxis.minor_tick_line_color = chart.yaxis.minor_tick_line_color = None
    chart.axis.axis_line_color = chart.axis.major_tick_line_color = None
    chart.axis.axis_label_text_font = chart.axis.major_label_text_font = "system-ui, sans-serif"
    chart.axis.axis_label_text_font_size = chart.axis.major_label_text_font_size = "12px"
    chart.axis.axis_label_text_font_style = "normal"
    return chart


def short(text: str, most: int) -> str:
    """Shorten a long text to its beginning and end."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def _merged(values: Any, most: int = BINS) -> tuple[Any, int]:
    """Sum up neighbouring bins to at most `most`; returns the sums and the number of bins in each."""
    group = -(-values.size // most)
    return np.pad(values, (0, -values.size % group)).reshape(-1, group).sum(axis=1), group


def _area(
    context: ChartContext, name: str, values: Any, group: int, top: float, more: Mapping[str, Any]
) -> Any:
    """Create a step plot over time, whose tooltips cover the whole height."""
    chart = empty_figure(context, name, 150, y_range=Range1d(0, top))
    edges = 1e3 * context.timeline.width * group * np.arange(values.size + 1)
    edges[-1] = max(edges[-2], min(edges[-1], context.end))
    chart.varea(
        np.repeat(edges, 2)[1:-1],
        np.zeros(2 * values.size),
        np.repeat(values, 2),
        fill_color=COLOURS[0],
        fill_alpha=0.35,
    )
    chart.line(np.repeat(edges, 2)[1:-1], np.repeat(values, 2), line_color=COLOURS[0], line_width=1.5)
    source = ColumnDataSource({"left": edges[:-1], "right": edges[1:], "value": values, **more})
    steps = chart.quad(
        "left", "right", top, 0, source=source, fill_color=None, line_color=None, name="steps"
    )
    chart.add_tools(HoverTool(name=f"{name} steps", renderers=[steps], tooltips=None, show_arrow=False))
    return chart


def rank_0(context: ChartContext, farm_time: FarmTime) -> Any:
    """Plot what rank 0 did over time: the job's own code, and work for the farm; else it waited."""
    width, shares = farm_time.shares(BINS)
    working = np.array([share.working for share in shares])
    job = np.maximum(0.0, 1.0 - working - np.array([share.waiting for share in shares]))
    chart = empty_figure(context, "rank0", 90, y_range=Range1d(0, 1.05))
    edges = np.minimum(1e3 * width * np.arange(len(shares) + 1), context.end)
    times, low, high = np.repeat(edges, 2)[1:-1], np.repeat(job, 2), np.repeat(job + working, 2)
    chart.varea(times, np.zeros(times.size), low, fill_color=RANK_0[0])
    chart.varea(times, low, high, fill_color=RANK_0[1])
    chart.yaxis.ticker = FixedTicker(ticks=[0, 0.5, 1], minor_ticks=[])
    chart.yaxis.formatter = NumeralTickFormatter(format="0%")
    return chart


def utilisation(context: ChartContext, workers: int) -> Any:
    """Plot the share of busy workers over time."""
    seconds, group = _merged(context.timeline.busy().sum(axis=0, dtype=np.float64))
    whole = np.full(seconds.size, group * context.timeline.width)
    whole[-1] = max(1e-9, min(whole[-1], context.end / 1e3 - whole[0] * (seconds.size - 1)))
    share = np.minimum(1.0, seconds / (whole * max(1, workers)))
    chart = _area(context, "busy", share, group, 1.05, {})
    chart.yaxis.ticker = FixedTicker(ticks=[0, 0.25, 0.5, 0.75, 1], minor_ticks=[])
    chart.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return chart


def ends(context: ChartContext) -> Any:
    """Plot the tasks that ended per second over time, and mark the bins with failures."""
    ended, failed = context.timeline.ends()
    # With short bins, a few tasks would look like single peaks.
    most = min(BINS, max(30, int(ended.sum()) // 8))
    total, group = _merged(ended, most)
    failures, _ = _merged(failed, most)
    length = group * context.timeline.width
    rate = total / length
    top = 1.1 * max(1e-9, float(rate.max()))
    chart = _area(
        context, "ends", rate, group, top, {"tasks": total.astype(float), "failed": failures.astype(float)}
    )
    chart.yaxis.ticker.desired_num_ticks = 4
    chart.yaxis.formatter = CustomJSTickFormatter(
        code='return tick.toLocaleString("en", {notation: "compact"})'
    )
    marked = np.flatnonzero(failures)
    chart.scatter(
        1e3 * length * (marked + 0.5),
        np.full(marked.size, 0.05 * top),
        marker="circle_x",
        size=9,
        line_color=FAILED,
        line_width=1.5,
    )
    return chart


def durations(context: ChartContext, rows: Mapping[str, Row]) -> Any:
    """Plot a histogram of the durations of each function's calls."""
    shown = sorted(rows.items(), key=lambda item: -item[1].seconds)[:FUNCTIONS]
    chart = empty_figure(None, "durations", 46 * len(shown) + 44, x_axis_type="log")
    chart.y_range = Range1d(0, max(1, len(shown)))
    chart.yaxis.visible = chart.ygrid.visible = False
    chart.min_border_left, chart.min_border_right = 8, 28
    chart.xaxis.formatter = CustomJSTickFormatter(code=DURATION)
    bars: dict[str, list[Any]] = {
        key: [] for key in ("left", "right", "bottom", "top", "colour", "row", "count")
    }
    names = {name: number for number, name in enumerate(context.timeline.names)}
    for number, (name, row) in enumerate(shown):
        bottom = len(shown) - 1 - number
        colour = (*COLOURS, OTHER)[context.palette[names[name]] if name in names else len(COLOURS)]
        most = max(row.durations.bins.values(), default=1)
        for index, count in sorted(row.durations.bins.items()):
            bars["left"].append(2.0 ** ((index - 0.5) / BINS_PER_OCTAVE))
            bars["right"].append(2.0 ** ((index + 0.5) / BINS_PER_OCTAVE))
            bars["bottom"].append(bottom)
            bars["top"].append(bottom + 0.06 + 0.56 * count / most)
            bars["colour"].append(colour)
            bars["row"].append(number)
            bars["count"].append(count)
        chart.add_layout(
            Label(
                x=4,
                y=bottom + 0.66,
                x_units="screen",
                text=PlainText(text=short(name, 44)),
                name="label",
                text_font="system-ui, sans-serif",
                text_font_size="12px",
            )
        )
    low, high = min(bars["left"], default=0.1), max(bars["right"], default=10.0)
    middle, reach = (low * high) ** 0.5, max(4.0, 1.3 * (high / low) ** 0.5)
    chart.x_range = Range1d(middle / reach, middle * reach)
    steps = (1, 2, 5) if reach < 7 else (1,)
    powers = range(math.floor(math.log10(middle / reach)), math.ceil(math.log10(middle * reach)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    chart.xaxis.ticker = chart.xgrid.ticker = FixedTicker(ticks=ticks, minor_ticks=[])
    quads = chart.quad(
        "left",
        "right",
        "top",
        "bottom",
        source=ColumnDataSource(bars),
        fill_color="colour",
        line_color=None,
    )
    chart.add_tools(HoverTool(name="classes", renderers=[quads], tooltips=None, show_arrow=False))
    return chart
