"""The distribution has a name of its own, and its source archive has everything that is tested."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = "mpi-taskfarm"

INSTALLED = re.compile(
    r"(?:pip\S*|uv|pipx|conda|poetry|from) (?:install|add) [^`;&|\n]*?(?<![\w/.-])taskfarm\b"
)
EXTRA = re.compile(r"(?<!mpi-)(?<!/)\btaskfarm\[[a-z][\w,-]*\]")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone of the repository")
    return listed.stdout.split("\n")[:-1]


def project() -> dict[str, object]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        found: dict[str, object] = tomllib.load(file)["project"]
    return found


def test_the_name_is_free_on_the_package_index() -> None:
    # "taskfarm" itself is somebody else's project there.
    assert project()["name"] == NAME


def test_no_text_installs_somebody_elses_project() -> None:
    wrong = []
    for name in tracked():
        path = ROOT / name
        if path.suffix in (".png", ".gz") or not path.is_file() or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text().split("\n"), start=1):
            if INSTALLED.search(line) or EXTRA.search(line):
                wrong.append(f"{name}:{number}: {line.strip()}")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install taskfarm", True),
        ("run `pip install -U 'taskfarm[report]'`", True),
        ("pip install mpi-taskfarm", False),
        ("pip install 'mpi-taskfarm[report]'", False),
        ("pip install -e '.[mpich]'", False),
    ],
)  # fmt: skip
def test_what_counts_as_wrong(line: str, wrong: bool) -> None:
    assert bool(INSTALLED.search(line) or EXTRA.search(line)) == wrong


def test_the_source_archive_has_the_tests_and_documents() -> None:
    words = (ROOT / "MANIFEST.in").read_text().split()
    packed = {"pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "taskfarm"}
    for name in tracked():
        top = name.partition("/")[0]
        assert top in packed or top in words or name in words or top == ".gitignore", name
