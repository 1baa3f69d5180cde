"""What README.md and docs say is so: their code runs, their commands and options exist."""

import json
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.examples.documents import (
    DOCUMENTS,
    ROOT,
    Block,
    blocks,
    commands,
    inline_options,
    long_options,
    parsers,
)

BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PROGRAMS = [block for block in PYTHON if block.is_program and block.runs]
FRAGMENTS = [block for block in PYTHON if not block.is_program and block.runs]
SHELL = [block for block in BLOCKS if block.language in ("bash", "sh", "shell")]

OURS = re.compile(r"\btaskfarm\b|@task|\bFarm\(|\.(?:submit|map|starmap|options)\(|\btof\(")

FOREIGN = {
    "--mpi", "--no-binary", "--with-ft", "--ntasks", "--nodes", "--signal", "--requeue", "--time",
    "--bind-to", "--hostfile", "--map-by", "--open-mode", "--oversubscribe", "--host", "--help",
    "--version", "--serial", "--joblog", "--eta", "--bar", "--sshlogin",
    "--block-signal",
}  # fmt: skip
"""Options that the documents name of other programs: mpiexec, Slurm, pip, examples."""

VALUES = {"N": "2", "S": "2", "RANK": "1", "SIZE": "2GB", "HH:MM:SS": "01:00:00", "COMMAND": "info"}
"""What stands for a value in a document, and a value."""


def names(found: list[Block]) -> list[str]:
    return [block.where for block in found]


def run(words: list[str], folder: Path, **options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=240, **options
    )  # type: ignore[call-overload, no-any-return]


def plain(printed: str) -> list[str]:
    """Lines without what differs from run to run: rank and host."""
    return [re.sub(r"\brank \d+ \([^)]*\)", "rank R (H)", line.rstrip()) for line in printed.splitlines()]


def test_documents_have_blocks() -> None:
    assert {Path("README.md"), Path("docs/tutorial.md")} <= {path.relative_to(ROOT) for path in DOCUMENTS}
    assert len(PROGRAMS) > 5
    assert len(FRAGMENTS) > 4
    readme = next(block for block in PROGRAMS if block.where.startswith("README.md:"))
    assert readme.printed is not None


@pytest.mark.parametrize("block", PYTHON, ids=names(PYTHON))
def test_python_compiles(block: Block) -> None:
    compile("\n" * (block.line - 1) + block.text, block.where, "exec")


def test_programs(tmp_path: Path) -> None:
    # Three at a time: the ranks of mpiexec wait for each other for most of theirs.
    with ThreadPoolExecutor(3) as pool:
        faults = list(pool.map(lambda block: program_fault(block, tmp_path), PROGRAMS))
    assert not any(faults), "\n".join(faults)


def program_fault(block: Block, folder: Path) -> str:
    """What is wrong with a program, on one process and on three ranks; empty if nothing."""
    folder = folder / str(PROGRAMS.index(block))
    folder.mkdir()
    (folder / "job.py").write_text(block.text)
    farm = ["-m", "taskfarm", "run", "-n", "3", "--quiet"]
    for words in ([], farm) if "taskfarm" in block.text else ([],):
        done = run([*words, "job.py"], folder)
        if done.returncode != 0:
            return f"{block.where} {words}: {done.stderr}"
        if block.printed is not None and plain(done.stdout) != plain(block.printed):
            return f"{block.where} {words} prints\n{done.stdout}"
    return ""


def test_fragments(tmp_path: Path) -> None:
    ours = [block for block in FRAGMENTS if OURS.search(block.text)]
    blocks = json.dumps([[block.where, block.text] for block in ours])
    done = run([str(ROOT / "tests/examples/fragments.py")], tmp_path, input=blocks)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == len(ours)
    failed = [f"{where}\n{error}" for where, _, error in outcomes if error]
    assert not failed, "\n".join(failed)
    for block, (_, printed, _) in zip(ours, outcomes, strict=True):
        if block.printed is not None:
            assert plain(printed) == plain(block.printed), block.where


@pytest.mark.parametrize("block", SHELL, ids=names(SHELL))
def test_shell_parses(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_commands(path: Path) -> None:
    wrong = [f"{path.name}:{line}: {fault}" for line, words in commands(path) if (fault := fault_of(words))]
    assert not wrong, "\n".join(wrong)


def fault_of(words: list[str]) -> str:
    """What the command line would say against these words; empty if nothing."""
    if words[0] in ("--version", "--help"):
        return ""
    if words[0] not in parsers():
        return f"there is no command {words[0]}"
    if any(re.search(r"[\[\]()|]", word) for word in words):
        return synopsis_fault(words)
    values = [VALUES.get(word, word) for word in words if word != "..."]
    parser = parsers()[""]
    try:
        parser.parse_args(values)
    except SystemExit as stop:
        if stop.code and not only_a_name(values):
            return f"{' '.join(words)}: not accepted"
    return example_fault(values)


def only_a_name(words: list[str]) -> bool:
    """Whether a sentence only names a command, without the file that it needs."""
    return len(words) == 1


def synopsis_fault(words: list[str]) -> str:
    """Whether a line with brackets, as help prints it, names an option that is not there."""
    parser = parsers()[words[0]]
    names = re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(words))
    wrong = [name for name in names if name not in parser._option_string_actions]
    return f"{words[0]} has no {wrong}" if wrong else ""


def example_fault(words: list[str]) -> str:
    """Whether an example of this repository is run with an option that it does not have."""
    for at, word in enumerate(words):
        if word.startswith("examples/"):
            if not (ROOT / word).is_file():
                return f"there is no {word}"
            source = (ROOT / word).read_text()
            wrong = [name for name in words[at:] if name.startswith("--") and f'"{name}"' not in source]
            return f"{word} has no {wrong}" if wrong else ""
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_options_in_sentences(path: Path) -> None:
    existing = long_options() | FOREIGN
    wrong = [f"{path.name}:{line}: {name}" for line, name in inline_options(path) if name not in existing]
    assert not wrong, f"of no program here: {wrong}; if they are another program's, add them to FOREIGN"


def test_extras_exist() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    texts = " ".join(path.read_text() for path in DOCUMENTS)
    named = {
        extra
        for words in re.findall(r"'(?:\.|mpi-taskfarm)\[([\w,]+)\]'", texts)
        for extra in words.split(",")
    }
    assert named
    assert named <= extras


def test_links_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
