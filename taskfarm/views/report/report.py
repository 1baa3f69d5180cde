"""Writes the report: one HTML file with the figures and tables of a run, which needs no network."""

import base64
import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskfarm.errors import LaunchError
from taskfarm.views.budget import Parts
from taskfarm.views.failure_causes import FailureCause
from taskfarm.views.own_files import beside, put
from taskfarm.views.report.timeline import Part, Timeline
from taskfarm.views.summary import NOTHING_RUNS, RunState, Summary, budget_lines

if TYPE_CHECKING:
    from taskfarm.views.report.charts import ChartContext

PAGE = Path(__file__).parent

LISTED, CAUSES, HOSTS = 100, 30, 50
"""Functions, lost workers or steps, causes of failures, and hosts that are listed, at most."""

TEXT, TRACE = 300, 8_000
"""Characters of a text, and of a traceback, that are shown, at most."""


_RANK_0 = ("the job's own code", "work for the farm")


def check() -> None:
    """Check that a report can be drawn.

    Raises
    ------
    LaunchError
        A package that draws it is not installed.
    """
    missing = [name for name in ("bokeh", "jinja2") if find_spec(name) is None]
    if missing:
        raise LaunchError(f"--report needs {' and '.join(missing)}: pip install 'mpi-taskfarm[report]'")


def write(
    path: str | os.PathLike[str],
    timeline: Timeline,
    summary: Summary,
    causes: Sequence[FailureCause],
    about: Mapping[str, str | Sequence[str]],
    now: float,
    state: RunState = NOTHING_RUNS,
) -> None:
    """Write the report of a run; the file appears only when it is complete.

    Parameters
    ----------
    path : str or path
        The file, which is replaced.
    timeline, summary : Timeline, Summary
        The data of the run.
    causes : sequence of FailureCause
        The causes of failures.
    about : mapping of str to str or sequence of str
        The environment of the run, by label, in the order of the table.
    now : float
        The time, in seconds of the master's clock.
    state : RunState
        What the master knows of the run.

    Raises
    ------
    FileExistsError
        A file of another kind has appeared there; the message names the file that has the report.
    OSError
        The file cannot be written.
    """
    text = page(timeline, summary, causes, about, now, state).encode("utf-8", "replace")
    new = Path(beside(os.fspath(path)))
    try:
        new.write_bytes(text)
        put(str(new), os.fspath(path), is_report)
    except FileExistsError as error:
        raise FileExistsError(error.errno, f"{error.strerror}, so the report is in {new}") from error
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def is_report(path: str) -> bool:
    """Whether a file is a report."""
    try:
        with open(path, "rb") as file:
            head = file.read(8192)
    except OSError:
        return False
    return head.startswith(b"<!DOCTYPE html>") and b"<title>taskfarm: " in head


def page(
    timeline: Timeline,
    summary: Summary,
    causes: Sequence[FailureCause],
    about: Mapping[str, str | Sequence[str]],
    now: float,
    state: RunState = NOTHING_RUNS,
) -> str:
    """Return the report as HTML; the parameters are those of `write`."""
    import jinja2
    from markupsafe import Markup

    timeline.add_up()
    figures = summary.figures(now, state)
    facts, document, scripts, legend = _draw(timeline, summary, figures)
    from taskfarm.views.report.charts import RANK_0

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(seconds=duration, number=number, cut=cut)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    html: str = environment.get_template("report.html.j2").render(
        style=Markup((PAGE / "report.css").read_text("utf-8")),
        scripts=[Markup(script) for script in scripts],
        hashes=hashes,
        facts=facts,
        document=Markup(document),
        figures=figures,
        title=cut(" ".join(_lines(about.get("command", "")))),
        began=time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() - now + timeline.began)),
        functions=sorted(figures["functions"].items(), key=lambda item: -item[1]["seconds"])[:LISTED],
        legend=legend,
        rank_0=list(zip(_RANK_0, RANK_0, strict=True)),
        budget=budget_lines(Parts(**figures["budget_seconds"])),
        slowest=[_slow_calls(timeline, part) for part in timeline.slowest()],
        path=timeline.path.steps()[-LISTED:],
        more_steps=max(0, getattr(timeline.path.longest, "depth", 0) - LISTED),
        path_seconds=(chain := getattr(timeline.path.longest, "total", 0.0)),
        path_share=chain / max(chain, figures["wall_seconds"], 1e-9),
        edges=timeline.path.edges,
        causes=causes[:CAUSES],
        more=max(0, len(causes) - CAUSES),
        trace=TRACE,
        losses=timeline.losses[:LISTED],
        hosts=timeline.hosts,
        about=list(_about(timeline, about)),
    )
    return html


def _draw(
    timeline: Timeline, summary: Summary, figures: Mapping[str, Any]
) -> tuple[dict[str, Any], str, list[str], list[tuple[str, str]]]:
    """Return the values for the page's script, the document of the figures, all scripts, and the legend."""
    from bokeh.core.json_encoder import serialize_json
    from bokeh.document import Document
    from bokeh.resources import Resources

    from taskfarm.views.report import charts, lanes

    workers = figures["workers"] or len(timeline.hosts)
    context = charts.chart_context(timeline, workers, figures["wall_seconds"])
    roots = [
        lanes.lanes(context),
        charts.utilisation(context, workers),
        charts.rank_0(context, summary.farm_time),
        charts.ends(context),
        charts.durations(context, summary.rows),
    ]
    legend = _legend(context)
    document = Document()
    for root in roots:
        document.add_root(root)
    facts = {
        "item": {
            "docid": "report",
            "roots": {root.id: root.name for root in roots},
            "root_ids": [root.id for root in roots],
        },
        "names": [cut(name) for name in timeline.names],
        "lanes": context.lanes[::-1],
        "hosts": [cut(host) for host in context.hosts[::-1]],
        "ranks_per_lane": timeline.ranks_per_lane,
        "last": max([*timeline.hosts, workers]),
        "width": 1e3 * timeline.width,
        "levels": charts.LEVELS,
        "legend": [{"name": cut(name), "colour": colour} for name, colour in legend],
        "colours": [(*charts.COLOURS, charts.OTHER)[index] for index in context.palette],
    }
    # Only these characters could end the script element that holds the text.
    text = serialize_json({"report": document.to_json(deferred=False)})
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    # The first script is the library; the second one would print to the console.
    library = Resources(mode="inline", components=["bokeh"]).js_raw[:1]
    own = (PAGE / "report.js").read_text("utf-8")
    scripts = [script.replace("</script", "<\\/script").replace("<!--", "<\\!--") for script in library]
    return facts, text, [*scripts, own], legend


def _legend(context: "ChartContext") -> list[tuple[str, str]]:
    """Return the names and colours of the functions with their own colour, and of the others."""
    from taskfarm.views.report.charts import COLOURS, OTHER

    names = context.timeline.names
    coloured = sorted(
        (index, name) for index, name in zip(context.palette, names, strict=True) if index < len(COLOURS)
    )
    legend = [(name, COLOURS[index]) for index, name in coloured]
    others = len(names) - len(legend)
    if others == 1:
        legend.append(("1 other function", OTHER))
    elif others > 1:
        legend.append((f"{others} other functions", OTHER))
    return legend


def _slow_calls(timeline: Timeline, part: Part) -> dict[str, Any]:
    """Return the row of a part in the table of the slowest tasks."""
    if part.failed:
        outcome = "failed"
    elif part.retried:
        outcome = "retried"
    else:
        outcome = "ok"
    return {
        "name": timeline.names[part.name],
        "task": f"{part.first}" if part.count == 1 else f"{part.first} to {part.first + part.count - 1}",
        "seconds": part.seconds / part.count,
        "count": part.count,
        "started": part.started,
        "worker": part.worker,
        "host": timeline.hosts.get(part.worker, ""),
        "attempt": part.attempt,
        "outcome": outcome,
    }


def _about(timeline: Timeline, about: Mapping[str, str | Sequence[str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the table of the environment, with the number of workers by host."""
    for name, value in about.items():
        yield cut(name), [cut(line) for line in _lines(value)][:HOSTS]
    counts = Counter(timeline.hosts.values())
    if counts:
        shown = [f"{cut(host)}: {number(count)}" for host, count in list(counts.items())[:HOSTS]]
        if len(counts) > HOSTS:
            shown.append(f"and {len(counts) - HOSTS} more hosts")
        yield "workers by host", [", ".join(shown)]


def _lines(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(line) for line in value]


def cut(text: str, most: int = TEXT) -> str:
    """Cut off a text that is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: int) -> str:
    """Format a number with separators between the thousands."""
    return f"{value:,}"


def duration(value: float) -> str:
    """Format a duration with three digits and a unit."""
    for scale, least, unit in ((3600.0, 36000.0, "h"), (60.0, 1000.0, "min"), (1.0, 1.0, "s")):
        if value >= least:
            # From 1000 on, three digits would need an exponent.
            digits = ",.3g" if value < 1000 * scale else ",.0f"
            return f"{value / scale:{digits}} {unit}"
    for scale, unit in ((1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
