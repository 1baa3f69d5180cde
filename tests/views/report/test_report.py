"""The report in a headless Chromium: it opens from disk alone, tells what happened, and names stay text."""

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskfarm.errors import DependencyFailed, LaunchError
from taskfarm.views.report import report
from tests.views.recorded import registered
from tests.views.report.made import ABOUT, FailureCause, Made, run

pytest.importorskip("bokeh", reason="the report needs bokeh: pip install 'mpi-taskfarm[report]'")
pytest.importorskip("jinja2", reason="the report needs jinja2: pip install 'mpi-taskfarm[report]'")

LIMIT = 5_000_000

BAD = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    r"$$\alpha$$",
    r"\(x\)",
    "@{x}{safe}",
    "{{ 7*7 }}{% x %}",
    "&lt;b&gt;\"'`",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium")
    quiet = ("quic", "background-networking", "component-update", "sync", "gpu")
    with api.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{w}" for w in quiet)],
        )
        yield chromium
        chromium.close()


@dataclass
class Opened:
    """A page, and where things are on it."""

    page: Any

    def range(self) -> list[float]:
        """The time in view, in milliseconds."""
        found: list[float] = self.page.evaluate(
            "(({start, end}) => [start, end])(Bokeh.documents[0].get_model_by_name('time'))"
        )
        return found

    def spot(self, figure: str, x: float, y: float) -> tuple[float, float]:
        """Where a point of a figure is on the page."""
        self.page.locator(f"#{figure}").scroll_into_view_if_needed()
        found = self.page.evaluate(
            """([name, x, y]) => {
                const view = Bokeh.index.get(Bokeh.documents[0].get_model_by_name(name))
                const box = document.getElementById(name).getBoundingClientRect()
                return [
                    box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y),
                ]
            }""",
            [figure, x, y],
        )
        return found[0], found[1]

    def tooltip(self, figure: str, x: float, y: float) -> str:
        """The text of the tooltip at a point of a figure."""
        self.page.mouse.move(5, 5)
        self.page.mouse.move(*self.spot(figure, x, y), steps=3)
        shown = self.page.locator(".bk-tooltip-content").filter(visible=True).first
        shown.wait_for(timeout=60_000)
        return str(shown.inner_text())


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    complaints: list[str] = []
    contexts = []

    def open_page(made: Made, causes: Any = (), about: Any = ABOUT, **options: Any) -> Opened:
        path = tmp_path / "run.html"
        report.write(path, made.timeline, made.summary, causes, about, made.now)
        options.setdefault("viewport", {"width": 1200, "height": 900})
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "console",
            lambda told: told.type in ("error", "warning") and complaints.append(f"console: {told.text}"),
        )
        page.on(
            "request",
            lambda request: request.url != path.as_uri() and complaints.append(f"request: {request.url}"),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return Opened(page)

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def pixels(page: Any, figure: str) -> int:
    """How many pixels of a figure are drawn."""
    found: int = page.evaluate(
        """(name) => {
            const canvas = Bokeh.index.get(Bokeh.documents[0].get_model_by_name(name)).export("png").canvas
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
            let count = 0
            for (let at = 0; at < data.length; at += 4) {
                const [red, green, blue] = data.subarray(at, at + 3)
                count += Math.max(red, green, blue) - Math.min(red, green, blue) > 60
            }
            return count
        }""",
        figure,
    )
    return found


def brightness(page: Any, selector: str, style: str) -> float:
    """0 for black, 255 for white."""
    colour = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{style}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_it_shows_what_happened(opened: Callable[..., Opened]) -> None:
    made = run(10, 100, hosts=2, fails=0.05, lost=7)
    shown = opened(made, [FailureCause()])
    text = shown.page.locator("main").inner_text()
    for wanted in (
        "node02",
        "Efficiency",
        "What limited it",
        "Where the workers' time went",
        "calibrate",
        "LinAlgError",
        "3f2c9ab",
        "no longer answers",
    ):
        assert wanted in text
    for figure in ("lanes", "busy", "rank0", "ends", "durations"):
        assert pixels(shown.page, figure) > 1000, figure
    assert not shown.page.locator("pre").is_visible()
    shown.page.locator("summary").press("Enter")
    assert "raise np.linalg" in shown.page.locator("pre").inner_text()


def becomes(shown: Opened, holds: Callable[[], bool], rounds: int = 100) -> bool:
    """Wait until something holds on the page; False if it does not within so many rounds of 50 ms."""
    for _ in range(rounds):
        if holds():
            return True
        shown.page.wait_for_timeout(50)
    return holds()


def test_zoom_by_wheel_keys_buttons_and_box(opened: Callable[..., Opened]) -> None:
    shown = opened(run(10, 100))
    whole = shown.range()

    def narrower() -> bool:
        start, end = shown.range()
        return end - start < 0.9 * (whole[1] - whole[0])

    def starts_at(share: float) -> Callable[[], bool]:
        return lambda: shown.range()[0] == pytest.approx(whole[1] * share, rel=0.05)

    middle = shown.spot("lanes", whole[1] / 2, 5)
    shown.page.mouse.move(*middle)
    shown.page.mouse.wheel(0, 120)
    shown.page.wait_for_function("scrollY > 0")
    assert shown.range() == whole
    shown.page.mouse.move(*shown.spot("lanes", whole[1] / 2, 5))
    shown.page.keyboard.down("Control")
    for _ in range(3):
        shown.page.mouse.wheel(0, -240)
    shown.page.keyboard.up("Control")
    assert becomes(shown, narrower), shown.range()
    shown.page.get_by_role("button", name="Reset").click()
    assert becomes(shown, lambda: not narrower()), shown.range()
    shown.page.locator(".linked").focus()
    shown.page.keyboard.press("+")
    shown.page.keyboard.press("ArrowRight")
    assert becomes(shown, starts_at(3 / 8)), shown.range()
    shown.page.keyboard.press("0")
    assert becomes(shown, lambda: not narrower()), shown.range()

    def drag_a_box() -> bool:
        shown.page.mouse.move(*shown.spot("lanes", whole[1] * 0.3, 5))
        shown.page.mouse.down()
        shown.page.mouse.move(*shown.spot("lanes", whole[1] * 0.5, 5), steps=5)
        shown.page.mouse.up()
        return becomes(shown, starts_at(0.3), rounds=20)

    # A browser on a busy machine may miss a drag whose events come too close together.
    assert any(drag_a_box() for _ in range(5)), shown.range()
    assert narrower()


def test_hover_tells_of_tasks_cells_and_losses(opened: Callable[..., Opened]) -> None:
    made = run(10, 100, hosts=2, lost=7)
    part = made.timeline.longest()[0]
    shown = opened(made)
    at = 1e3 * (part.started + part.seconds / 2)
    text = shown.tooltip("lanes", at, 10 - part.worker)
    for wanted in (
        made.timeline.names[part.name],
        f"task {part.first}",
        f"rank {part.worker} on node",
        "took",
    ):
        assert wanted in text
    loss = made.timeline.losses[0]
    assert "rank 7 was lost" in shown.tooltip("lanes", 1e3 * loss.time, 3)
    assert "busy" in shown.tooltip("busy", at, 0.5)
    assert "tasks/s" in shown.tooltip("ends", 200, 0.1)
    busy = run(20, 4000, together=10)
    shown = opened(busy)
    text = shown.tooltip("lanes", 300 * 1e3 * busy.timeline.width, 10.48)
    assert re.search(r"busy for about \d+ %|task", text)


def test_names_stay_text(opened: Callable[..., Opened]) -> None:
    made = run(len(BAD), 80, names=tuple(BAD))
    for worker, name in enumerate(BAD, 1):
        made.timeline.worker_joined(50.0, worker, name)
    made.timeline.worker_lost(52.0, 1, BAD[0])
    causes = [FailureCause(name, name, name, 1, 1, 1, 1, name) for name in BAD]
    shown = opened(made, causes, {**{name: name for name in BAD}, "command": " ".join(BAD)})
    text = shown.page.locator("main").inner_text()
    for name in BAD:
        assert text.count(name) >= 4, name
        part = next(p for p in made.timeline.longest() if made.timeline.names[p.name] == name)
        row = made.timeline.hosts[part.worker]
        found = shown.tooltip(
            "lanes", 1e3 * (part.started + part.seconds / 2), len(BAD) - 1 - BAD.index(row)
        )
        assert name in found
        assert row in found
    assert shown.page.locator("img").count() == 0
    assert "49" not in shown.page.locator(".legend").inner_text()
    for figure in ("lanes", "durations"):
        assert pixels(shown.page, figure) > 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme(opened: Callable[..., Opened], scheme: str) -> None:
    shown = opened(run(4, 50), color_scheme=scheme)

    def figures() -> str:
        found: str = shown.page.evaluate(
            "Bokeh.documents[0].get_model_by_name('busy').below[0].major_label_text_color"
        )
        return found

    before = figures()
    assert (brightness(shown.page, "body", "backgroundColor") < 60) is (scheme == "dark")
    assert (brightness(shown.page, "h2", "color") > 160) is (scheme == "dark")
    shown.page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    assert (brightness(shown.page, "body", "backgroundColor") < 60) is (scheme == "light")
    shown.page.wait_for_function(
        "before => Bokeh.documents[0].get_model_by_name('busy').below[0].major_label_text_color !== before",
        arg=before,
    )


def test_it_prints_from_a_dark_screen(opened: Callable[..., Opened]) -> None:
    shown = opened(run(4, 50), color_scheme="dark")
    shown.page.emulate_media(media="print")
    assert brightness(shown.page, "body", "backgroundColor") > 240
    assert brightness(shown.page, "h2", "color") < 60
    assert len(shown.page.pdf()) > 20_000


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_sticks_out(opened: Callable[..., Opened], width: int) -> None:
    shown = opened(run(40, 300, hosts=4), [FailureCause()], viewport={"width": width, "height": 800})
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("made", [{"workers": 1, "parts": 1}, {"workers": 1, "parts": 0}])
def test_small_runs(opened: Callable[..., Opened], made: dict[str, int]) -> None:
    shown = opened(run(**made), about={})
    assert f"Tasks\n{made['parts']}" in shown.page.locator(".numbers").inner_text()


@pytest.mark.parametrize(
    "size", [(10, 100, 1), (100, 5000, 200), (10_000, 20_000, 500)], ids=["100", "10^6", "10^7"]
)
def test_size_stays_below_5_mb(size: tuple[int, int, int], tmp_path: Path) -> None:
    workers, parts, together = size
    made = run(workers, parts, together=together, hosts=max(1, workers // 100), fails=0.001)
    report.write(tmp_path / "run.html", made.timeline, made.summary, [FailureCause()], ABOUT, made.now)
    assert (tmp_path / "run.html").stat().st_size < LIMIT


def test_the_worst_run_stays_below_5_mb(tmp_path: Path) -> None:
    names = tuple(f"{number:03d}" + "x" * 5000 for number in range(300))
    made = run(511, 6000, names=names, fails=0.3, seconds=10.0)
    # Nothing that could be compressed.
    random = np.random.default_rng(1)
    busy = made.timeline.busy()
    busy[:] = made.timeline.width * random.random(busy.shape)
    made.timeline.leaders()[:] = random.integers(0, 255, busy.shape)
    causes = [FailureCause("n" * 10_000, "s" * 10_000, trace="t" * 10**6) for _ in range(200)]
    about = {f"about {number}": "a" * 10**6 for number in range(20)}
    report.write(tmp_path / "run.html", made.timeline, made.summary, causes, about, made.now)
    assert (tmp_path / "run.html").stat().st_size < LIMIT


def test_it_names_no_address_to_load_from(tmp_path: Path) -> None:
    made = run(3, 30)
    text = report.page(made.timeline, made.summary, [], ABOUT, made.now)
    assert not re.search(r"<(?:link|iframe|img|script)[^>]+(?:src|href)", text)
    assert "default-src 'none'" in html.unescape(text)


def test_tasks_that_were_not_run_count_apart(tmp_path: Path) -> None:
    made = run(3, 30, names=("fit", "render"))
    text = report.page(made.timeline, made.summary, [], ABOUT, made.now)
    assert "Not run" not in text
    made.summary.tasks_failed(made.now, registered("fit"), 1000, 12, DependencyFailed("was not run"))
    text = report.page(made.timeline, made.summary, [], ABOUT, made.now)
    assert re.search(r"<dt>Not run</dt><dd>12</dd>", text)
    assert re.search(r'<th scope="row">fit</th><td>\d+</td><td>0</td><td class="bad">12</td>', text)
    assert re.search(r'<th scope="row">render</th><td>\d+</td><td>0</td><td>0</td>', text)


def test_the_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    made = run(3, 30)
    with pytest.raises(OSError, match=r"run\.html"):
        report.write(tmp_path / "nowhere" / "run.html", made.timeline, made.summary, [], ABOUT, made.now)
    path = tmp_path / "run.html"
    path.mkdir()
    with pytest.raises(OSError, match=r"run\.html"):
        report.write(path, made.timeline, made.summary, [], ABOUT, made.now)
    assert os.listdir(tmp_path) == ["run.html"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (4.2e-8, "42 ns"),
        (1.5e-5, "15 µs"),
        (0.25, "250 ms"),
        (1.0, "1 s"),
        (999.0, "999 s"),
        (1200.0, "20 min"),
        (7.2e5, "200 h"),
        (7.2e6, "2,000 h"),
    ],
)
def test_times_have_units(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_check_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    report.check()
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(
        LaunchError, match=re.escape("needs bokeh and jinja2: pip install 'mpi-taskfarm[report]'")
    ):
        report.check()


def test_bokeh_is_imported_only_for_a_report() -> None:
    code = (
        "import sys, taskfarm.views.report.report; "
        "print([name for name in ('bokeh', 'jinja2') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert found.stdout.strip() == "[]"
