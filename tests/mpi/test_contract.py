"""`Farm` is an executor: by the tests of the standard library, and under asyncio."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from . import contract
from .conftest import Job

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def suite(tmp_path: Path) -> None:
    """See that all ranks find the standard library's tests of executors."""
    folder = contract.suite_folder()
    if folder is None:
        pytest.skip(
            "this Python ships no test_concurrent_futures; Debian: apt-get install libpython3.X-testsuite"
        )
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "at_start.py").write_text(f"import test\ntest.__path__.append({str(folder)!r})\n")


def test_standard_librarys_tests_pass(
    python: Path, tmp_path: Path, suite: None, record_property: Callable[[str, object], None]
) -> None:
    job = str(Path(contract.__file__))
    words = ["-m", "taskfarm", "run", "-n", "4", "--quiet", "--progress", "off", job]
    code, _, err = Job(python, words, tmp_path).end(300)
    assert (tmp_path / contract.RESULTS).exists(), err
    done = json.loads((tmp_path / contract.RESULTS).read_text())
    counts = {name: len(found) for name, found in done.items()}
    print(counts)
    record_property("counts", counts)
    assert not done["failed"], "\n".join(f"{name}\n{trace}" for name, trace in done["failed"].items())
    assert code == 0, err
    assert counts["passed"] >= 60
    assert all(done["skipped"].values())


def test_arguments_go_with_their_task(run: Run) -> None:
    code, out, err = run(
        """
import os, time
from taskfarm import Farm

class Argument:
    def __init__(self, path):
        self.path = path
    def __del__(self):
        if os.environ.get("WORKER"):
            open(self.path, "w").close()

with Farm(initializer=os.putenv, initargs=("WORKER", "")) as farm:
    def mark():
        os.environ["WORKER"] = "1"
    farm.submit(mark).result()
    farm.submit(id, Argument("gone")).result()
    deadline = time.monotonic() + 240
    while not os.path.exists("gone") and time.monotonic() < deadline:
        time.sleep(0.01)
    print(os.path.exists("gone"))
""",
        2,
    )
    assert code == 0, err
    assert out.split() == ["True"]


@pytest.mark.parametrize("level", ["multiple", "funneled"])
def test_asyncio(run: Run, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("MPI4PY_RC_THREAD_LEVEL", level)
    code, out, err = run(
        """
import asyncio, concurrent.futures, time
from taskfarm import Farm

def later(x):
    time.sleep(0.02)
    return x * x

async def main(farm):
    loop = asyncio.get_running_loop()
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)
    ticker = asyncio.create_task(tick())
    print(sum(await asyncio.gather(*(loop.run_in_executor(farm, later, x) for x in range(40)))))
    print(await asyncio.wrap_future(farm.submit(later, 3)), ticks > 3)
    try:
        await loop.run_in_executor(farm, divmod, 1, 0)
    except ZeroDivisionError as error:
        print("raised", "RemoteTraceback" in type(error.__cause__).__name__)
    calls = [loop.run_in_executor(farm, later, x) for x in range(200)]
    calls[-1].cancel()
    await asyncio.wait(calls[:-1])
    print(calls[-1].cancelled(), sum(call.result() for call in calls[:-1]))
    try:
        async with asyncio.timeout(0.1):
            await loop.run_in_executor(farm, time.sleep, 0.5)
    except TimeoutError:
        print("timeout")
    await asyncio.sleep(0.3)
    ticker.cancel()

with Farm() as farm:
    asyncio.run(main(farm))
    done, rest = concurrent.futures.wait([farm.submit(later, 5), farm.submit(later, 6)])
    print(sorted(future.result() for future in done))
    print(*[future.result() for future in concurrent.futures.as_completed([farm.submit(later, 7)])])
    future = farm.submit(later, 8)
    async def last():
        return await asyncio.wait_for(asyncio.wrap_future(future), 30)
    print(asyncio.run(last()))
""",
        3,
    )
    assert code == 0, err
    assert out.splitlines() == [
        *("20540", "9 True", "raised True", f"True {sum(x * x for x in range(199))}", "timeout"),
        *("[25, 36]", "49", "64"),
    ]
