"""The report: one file with figures and tables of a run, which opens from disk and loads nothing."""

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
from taskfarm.views.failure_causes import FailureCause
from taskfarm.views.report.timeline import Part, Timeline
from taskfarm.views.summary import Summary

if TYPE_CHECKING:
    from taskfarm.views.report.charts import Drawn

PAGE = Path(__file__).parent

LISTED, CAUSES, HOSTS = 100, 30, 50
"""Functions, causes of failures, and hosts that are listed, at most."""

TEXT, TRACE = 300, 8_000
"""Characters of a text and of a traceback that are shown, at most."""


def check() -> None:
    """See that a report can be made.

    Raises
    ------
    LaunchError
        What draws it is not installed.
    """
    missing = [name for name in ("bokeh", "jinja2") if find_spec(name) is None]
    if missing:
        raise LaunchError(f"--report needs {' and '.join(missing)}: pip install 'taskfarm[report]'")


def write(
    path: str | os.PathLike[str], timeline: Timeline, summary: Summary, causes: Sequence[FailureCause],
    about: Mapping[str, str | Sequence[str]], now: float,
) -> None:  # fmt: skip
    """Write the report of a run; the file is there once it is complete.

    Parameters
    ----------
    path : str or path
        The file, which is replaced.
    timeline, summary : Timeline, Summary
        What happened.
    causes : sequence of FailureCause
        Why tasks failed.
    about : mapping of str to str or sequence of str
        Where and how it ran, in this order.
    now : float
        The time, in seconds of the master's clock.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    target = Path(path)
    text = page(timeline, summary, causes, about, now).encode("utf-8", "replace")
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(text)
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def page(
    timeline: Timeline, summary: Summary, causes: Sequence[FailureCause],
    about: Mapping[str, str | Sequence[str]], now: float,
) -> str:  # fmt: skip
    """The report as HTML; what it is made of is explained at `write`."""
    import jinja2
    from markupsafe import Markup

    timeline.add_up()
    figures = summary.figures(now)
    facts, document, scripts, legend = _draw(timeline, summary, figures)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters.update(seconds=duration, number=number, cut=cut)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    found: str = environment.get_template("report.html.j2").render(
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
        slowest=[_told(timeline, part) for part in timeline.slowest()],
        causes=causes[:CAUSES],
        more=max(0, len(causes) - CAUSES),
        trace=TRACE,
        losses=timeline.losses[:LISTED],
        hosts=timeline.hosts,
        about=list(_about(timeline, about)),
    )
    return found


def _draw(
    timeline: Timeline, summary: Summary, figures: Mapping[str, Any]
) -> tuple[dict[str, Any], str, list[str], list[tuple[str, str]]]:
    """Facts for the page's script, the document of the figures, all scripts, and the colours' names."""
    from bokeh.core.json_encoder import serialize_json
    from bokeh.document import Document
    from bokeh.resources import Resources

    from taskfarm.views.report import charts, lanes

    workers = figures["workers"] or len(timeline.hosts)
    drawn = charts.drawn(timeline, workers, figures["wall_seconds"])
    roots = [
        lanes.lanes(drawn),
        charts.utilisation(drawn, workers),
        charts.ends(drawn),
        charts.durations(drawn, summary.rows),
    ]
    legend = _legend(drawn)
    document = Document()
    for root in roots:
        document.add_root(root)
    items = {"docid": "report", "roots": {root.id: root.name for root in roots}}
    facts = {
        "item": {**items, "root_ids": [root.id for root in roots]},
        "names": [cut(name) for name in timeline.names],
        "lanes": drawn.lanes[::-1],
        "hosts": [cut(host) for host in drawn.hosts[::-1]],
        "together": timeline.together,
        "last": max([*timeline.hosts, workers]),
        "width": 1e3 * timeline.width,
        "levels": charts.LEVELS,
        "legend": [{"name": cut(name), "colour": colour} for name, colour in legend],
        "colours": [(*charts.COLOURS, charts.OTHER)[place] for place in drawn.palette],
    }
    # In a script, only these could end the text.
    text = serialize_json({"report": document.to_json(deferred=False)})
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    # The first is the library; the other one would speak to the console.
    library = Resources(mode="inline", components=["bokeh"]).js_raw[:1]
    own = (PAGE / "report.js").read_text("utf-8")
    scripts = [script.replace("</script", "<\\/script").replace("<!--", "<\\!--") for script in library]
    return facts, text, [*scripts, own], legend


def _legend(drawn: "Drawn") -> list[tuple[str, str]]:
    """Names and colours of the functions that have one of their own, and of the others."""
    from taskfarm.views.report.charts import COLOURS, OTHER

    names = drawn.timeline.names
    own = sorted(
        (place, name) for place, name in zip(drawn.palette, names, strict=True) if place < len(COLOURS)
    )
    found = [(name, COLOURS[place]) for place, name in own]
    others = len(names) - len(found)
    return found + [(f"{others} other function{'s' if others > 1 else ''}", OTHER)] * (others > 0)


def _told(timeline: Timeline, part: Part) -> dict[str, Any]:
    """Calls as the table of the slowest shows them."""
    outcome = "ok" if not part.failed + part.again else "failed" if part.failed else "tried again"
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
    """What the table of the environment shows: what was given, and how the workers were placed."""
    yield from ((cut(name), [cut(line) for line in _lines(value)][:HOSTS]) for name, value in about.items())
    counts = Counter(timeline.hosts.values())
    if counts:
        shown = [f"{cut(host)}: {number(count)}" for host, count in list(counts.items())[:HOSTS]]
        more = [f"and {len(counts) - HOSTS} hosts more"] * (len(counts) > HOSTS)
        yield "workers by host", [", ".join(shown + more)]


def _lines(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(line) for line in value]


def cut(text: str, most: int = TEXT) -> str:
    """A text, cut off if it is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: int) -> str:
    """A number with its thousands apart."""
    return f"{value:,}"


def duration(value: float) -> str:
    """A time with three digits and its unit."""
    for scale, least, unit in ((3600.0, 36000.0, "h"), (60.0, 1000.0, "min"), (1.0, 1.0, "s")):
        if value >= least:
            return (
                f"{value / scale:,.3g} {unit}" if value < 1000 * scale else f"{value / scale:,.0f} {unit}"
            )
    for scale, unit in ((1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
