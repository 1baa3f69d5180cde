"""Type checkers see the options of tasks and the types of results, and a misspelt option is an error."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from taskfarm.job import decorator

ROOT = Path(__file__).parents[2]
USES = Path(__file__).with_name("typed_uses.py")


def expected() -> tuple[dict[int, str], set[int]]:
    """What ``reveal_type`` states, and which lines are wrong, from the comments of the file."""
    revealed, wrong = {}, set()
    for number, line in enumerate(USES.read_text().splitlines(), start=1):
        if line.endswith("  # wrong"):
            wrong.add(number)
        elif "reveal_type(" in line and "  # " in line:
            revealed[number] = line.partition("  # ")[2]
    assert len(revealed) > 20
    assert len(wrong) > 15
    return revealed, wrong


def test_every_option_has_a_type() -> None:
    stub = ast.parse((ROOT / "taskfarm/job/task_types.pyi").read_text())
    (options,) = (
        node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "TaskOptions"
    )
    typed = {node.target.id for node in options.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert typed | {"on_error"} == set(decorator._OPTIONS)


def test_mypy() -> None:
    words = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(USES)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    revealed, wrong = {}, set()
    for line in done.stdout.splitlines():
        if match := re.match(r".*typed_uses\.py:(\d+): note: Revealed type is \"(.*)\"", line):
            revealed[int(match[1])] = match[2]
        elif match := re.match(r".*typed_uses\.py:(\d+): error: ", line):
            wrong.add(int(match[1]))
    assert (revealed, wrong) == expected(), done.stdout + done.stderr


def test_pyright(tmp_path: Path) -> None:
    pytest.importorskip("basedpyright", reason="no basedpyright: pip install basedpyright")
    settings = {"include": [str(USES)], "typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    words = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(tmp_path)]
    words += ["--pythonpath", sys.executable]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    revealed, wrong = {}, set()
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        line = found["range"]["start"]["line"] + 1
        if found["severity"] == "error":
            wrong.add(line)
        elif match := re.match(r'Type of ".*" is "(.*)"$', found["message"], re.S):
            revealed[line] = match[1]
    assert (revealed, wrong) == expected(), done.stdout + done.stderr
