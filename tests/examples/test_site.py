"""What the site makes of the documents: diagrams that are drawn, and tables whose words stay whole."""

import importlib.util
import re
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests.examples.documents import DOCUMENTS, ROOT

DIAGRAMS = [
    source for path in DOCUMENTS for source in re.findall(r"```mermaid\n(.*?)```", path.read_text(), re.S)
]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def diagrams() -> ModuleType:
    return load("site_diagrams")


def test_all_diagrams_are_drawn(diagrams: ModuleType) -> None:
    assert {source.split()[0] for source in DIAGRAMS} == set(diagrams.KINDS)
    for source in DIAGRAMS:
        drawn = diagrams.on_page_markdown(f"Before\n\n```mermaid\n{source}```\n\nAfter\n")
        assert "```" not in drawn
        figure = drawn.removeprefix("Before\n\n").removesuffix("\n\nAfter\n")
        assert "\n\n" not in figure
        words = " ".join(ElementTree.fromstring(figure).itertext())
        named = re.findall(r'as (.+)|>>\w+: (.+)|\["(\w+)|^    ([A-Z]+) -->', source, re.M)
        for name in ("".join(found) for found in named):
            assert name in words


@pytest.mark.parametrize(
    "source", ["stateDiagram-v2\nQUEUED --> NEW", "sequenceDiagram\nloop x", "pie\na: 1"]
)
def test_a_diagram_that_it_does_not_know_is_an_error(diagrams: ModuleType, source: str) -> None:
    with pytest.raises(ValueError, match=r"NEW|loop x|pie"):
        diagrams.drawing(source)


def test_words_of_code_in_tables_are_whole() -> None:
    pytest.importorskip("griffe", reason="no griffe: pip install 'mpi-taskfarm[docs]'")
    page = (
        "<p>a-b <code>c-d</code></p><pre><span></span><code>e-f</code></pre>"
        '<td><code>--on-error raise</code> x <a href="a-b/c">scikit-learn</a></td>'
    )
    assert load("site_hooks").on_page_content(page) == (
        '<p>a-b <code><span class="word">c-d</span></code></p>'
        "<pre><span></span><code>e-f</code></pre>"
        '<td><code><span class="word">--on-error</span> raise</code> x '
        '<a href="a-b/c"><span class="word">scikit-learn</span></a></td>'
    )
