"""Draws the Mermaid diagrams of the documentation while the site is built, so that its pages fetch nothing.

A hook of MkDocs. It knows the three kinds of diagrams that the documents have, and of those only what they
use; anything else is an error of the build.
"""

import html
import re
from collections.abc import Callable
from typing import Any

FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)

CHARACTER = 7.4
"""Width of a character, generously, at 13 px."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a drawing in the place of each diagram."""
    return FENCE.sub(lambda match: drawing(match[1]), markdown)


def drawing(source: str) -> str:
    """A diagram as HTML, without blank lines, as Markdown wants it."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    kind = lines[0].split()[0]
    if kind not in KINDS:
        raise ValueError(f"no drawing for a diagram of the kind {kind!r}")
    return "\n".join(line for line in KINDS[kind](lines[1:]).splitlines() if line.strip())


def svg(name: str, tip: str, width: float, height: float, parts: list[str]) -> str:
    """A figure of the size of its parts, with the marker `tip` for arrows; `name` says what it shows."""
    size = f"width: {width:.0f}px; min-width: {min(width, 600):.0f}px"
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="{size}" role="img"'
    mark = (
        f'<defs><marker id="{tip}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto-start-reverse"><path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    return "\n".join(
        [f'<div class="diagram">{head} aria-label="{html.escape(name)}">{mark}', *parts, "</svg></div>"]
    )


def text(x: float, y: float, words: str, more: str = "") -> str:
    """Words around a point."""
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{html.escape(words)}</text>'


# The states of a task

START, END = "start", "end"

PLACES = {
    START: (30, 180),
    "QUEUED": (180, 180),
    "ASSIGNED": (400, 180),
    "DONE": (580, 180),
    "CANCELLED": (300, 75),
    "FAILED": (300, 255),
    "WAITING": (180, 340),
    "NOT_RUN": (340, 400),
}
"""Where each state is drawn."""

CURVES = {
    (START, "DONE"): (330, -110),
    (START, "FAILED"): (80, 255),
    (START, "WAITING"): (40, 330),
    ("WAITING", "CANCELLED"): (0, 130),
    ("WAITING", "DONE"): (560, 375),
    ("ASSIGNED", "WAITING"): (430, 300),
}
"""Edges that go around others, and by which point."""


def states(lines: list[str]) -> str:
    """The states of a task; an end state has the sign of an end beside it."""
    edges = []
    for line in lines:
        match = re.fullmatch(r"(\S+) --> (\S+)", line)
        if match is None:
            raise ValueError(f"not an edge between states: {line!r}")
        old, new = match[1].replace("[*]", START), match[2].replace("[*]", END)
        edges.append((old, new))
    names = dict.fromkeys(name for edge in edges for name in edge if name != END)
    if missing := set(names) - set(PLACES):
        raise ValueError(f"PLACES does not say where to draw {sorted(missing)}")
    parts = [edge(old, new, (new, old) in edges) for old, new in edges if new != END]
    for name in names:
        x, y = PLACES[name]
        if name == START:
            parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="7"/>')
            continue
        wide = 5 + half(name)
        if (name, END) in edges:
            parts.append(f'<path class="line" d="M{x + wide - 4},{y} h22" marker-end="url(#state-tip)"/>')
            parts.append(f'<circle class="ring" cx="{x + wide + 27}" cy="{y}" r="8"/>')
            parts.append(f'<circle class="dot" cx="{x + wide + 27}" cy="{y}" r="4"/>')
        parts.append(
            f'<rect class="box" x="{x - wide}" y="{y - 17}" width="{2 * wide}" height="34" rx="8"/>'
        )
        parts.append(text(x, y + 4.5, name))
    return svg("the states of a task", "state-tip", 685, 425, parts)


def half(name: str) -> int:
    """Half of the width of a state."""
    return 8 if name == START else round(len(name) * CHARACTER / 2) + 8


def edge(old: str, new: str, both_ways: bool) -> str:
    """An arrow from the border of a state to that of another one."""
    (x1, y1), (x2, y2) = PLACES[old], PLACES[new]
    cx, cy = CURVES.get((old, new), ((x1 + x2) / 2, (y1 + y2) / 2))
    a, b = border(old, cx, cy), border(new, cx, cy)
    shift = 8 * (1 if x2 > x1 else -1) if both_ways else 0
    path = f"M{a[0]:.1f},{a[1] - shift:.1f} Q{cx:.1f},{cy - shift:.1f} {b[0]:.1f},{b[1] - shift:.1f}"
    return f'<path class="line" d="{path}" marker-end="url(#state-tip)"/>'


def border(name: str, x: float, y: float) -> tuple[float, float]:
    """Where a line from the middle of a state to a point leaves the state."""
    x0, y0 = PLACES[name]
    wide, high = (half(name) + 7, 19) if name != START else (9, 9)
    scale = max(abs(x - x0) / wide, abs(y - y0) / high)
    return x0 + (x - x0) / scale, y0 + (y - y0) / scale


# Who sends what to whom


def sequence(lines: list[str]) -> str:
    """Messages between participants, from the top to the bottom."""
    names: dict[str, str] = {}
    messages = []
    for line in lines:
        if match := re.fullmatch(r"participant (\w+) as (.+)", line):
            names[match[1]] = match[2]
        elif match := re.fullmatch(r"(\w+)(--?)>>(\w+): (.+)", line):
            messages.append((match[1], match[3], match[4], match[2] == "--"))
        else:
            raise ValueError(f"not a message of a sequence: {line!r}")
    order = list(names)
    gaps = [70.0] * (len(order) + 1)
    halves = [len(label) * CHARACTER / 2 + 12 for label in names.values()]
    for at, (left, right) in enumerate(zip([0.0, *halves], [*halves, 0.0], strict=True)):
        gaps[at] = max(gaps[at], left + right)
    for old, new, words, _ in messages:
        first, last = sorted((order.index(old), order.index(new)))
        last = max(last, first + 1)
        missing = len(words) * CHARACTER + (40 if old == new else 20) - sum(gaps[first + 1 : last + 1])
        gaps[last] += max(0.0, missing)
    where = {name: sum(gaps[: at + 1]) for at, name in enumerate(order)}
    top, step = 48, 36
    bottom = top + step * len(messages) + 22
    parts = []
    for name, label in names.items():
        wide = len(label) * CHARACTER + 16
        parts.append(f'<path class="life" d="M{where[name]:.0f},{top - 14} V{bottom}"/>')
        left = where[name] - wide / 2
        parts.append(f'<rect class="box" x="{left:.0f}" y="4" width="{wide:.0f}" height="30" rx="6"/>')
        parts.append(text(where[name], 23.5, label))
    for at, (old, new, words, dashed) in enumerate(messages, start=1):
        y = top + step * at - 8
        style = 'class="line dashed"' if dashed else 'class="line"'
        x1, x2 = where[old], where[new]
        if old == new:
            path = f"M{x1:.0f},{y - 10} h26 v14 h-24"
            parts.append(text(x1 + 34, y + 1, words, 'style="text-anchor: start"'))
        else:
            path = f"M{x1:.0f},{y} H{x2 + (2 if x2 < x1 else -2):.0f}"
            parts.append(text((x1 + x2) / 2, y - 6, words))
        parts.append(f'<path {style} d="{path}" marker-end="url(#message-tip)"/>')
    return svg("the way of a task through the packages", "message-tip", sum(gaps), bottom + 4, parts)


# Layers of packages


def layers(lines: list[str]) -> str:
    """Boxes in rows, one below the other, in the order of the last line."""
    boxes: dict[str, str] = {}
    group, groups = "", {}  # type: str, dict[str, list[str]]
    for line in lines:
        if match := re.fullmatch(r'subgraph (\w+) \[" "\]', line):
            group = match[1]
            groups[group] = []
        elif line == "end":
            group = ""
        elif match := re.fullmatch(r'(\w+)\["([^"]+)"\]', line):
            title, _, rest = match[2].partition("<br>")
            boxes[match[1]] = f'<div class="layer"><b>{html.escape(title)}</b> {html.escape(rest)}</div>'
            if group:
                groups[group].append(match[1])
        elif "-->" in line:
            rows = [name.strip() for name in line.split("-->")]
        elif not line.startswith("direction"):
            raise ValueError(f"not a line of a flowchart: {line!r}")
    drawn = []
    for name in rows:
        inside = "".join(boxes[one] for one in groups.get(name, [name]))
        drawn.append(f'<div class="layer-row">{inside}</div>')
    return (
        '<div class="layers">'
        + '\n<div class="layer-arrow" aria-hidden="true">↓</div>\n'.join(drawn)
        + "</div>"
    )


KINDS: dict[str, Callable[[list[str]], str]] = {
    "stateDiagram-v2": states,
    "sequenceDiagram": sequence,
    "flowchart": layers,
}
"""How each kind of diagram is drawn."""
