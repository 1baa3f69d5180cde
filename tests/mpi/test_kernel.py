"""A Jupyter kernel whose cells run on a farm: results, interrupts, restarts and its end."""

import json
import os
import queue
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipykernel")
jupyter_client = pytest.importorskip("jupyter_client")

LIMIT = 120.0
"""Seconds that a cell may take."""

DEFINE = """
import os, time
from taskfarm import task

class Model:
    def __init__(self, x): self.x = x

@task
def slow(x):
    time.sleep(0.02)
    return Model(x)
"""


class Notebook:
    """A kernel, and what it said last."""

    def __init__(self, kernels: Path) -> None:
        from jupyter_client.kernelspec import KernelSpecManager

        specs = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
        self.manager = jupyter_client.KernelManager(kernel_name="farm", kernel_spec_manager=specs)
        self.manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT)

    def run(self, code: str, interrupt_when: str = "") -> str:
        """What a cell says; it is interrupted when it has printed `interrupt_when`."""
        sent = self.client.execute(code)
        said, deadline = "", time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                message: dict[str, Any] = self.client.get_iopub_msg(timeout=1.0)
            except queue.Empty:
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "stream":
                said += content["text"] if content["name"] == "stdout" else ""
            elif message["msg_type"] == "execute_result":
                said += content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                said += content["ename"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return said
            if interrupt_when and interrupt_when in said:
                interrupt_when = ""
                self.manager.interrupt_kernel()
        raise AssertionError(f"the cell did not end: {said}")


@pytest.fixture
def notebook(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    if subprocess.run([python, "-c", "import ipykernel"], capture_output=True, check=False).returncode:
        pytest.skip("no ipykernel in this environment: run scripts/setup")
    words = ["kernel", "install", "-n", "3", "--name", "farm", "--prefix", str(tmp_path), "--seed", "1"]
    done = subprocess.run(
        [python, "-m", "taskfarm", *words], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    spec = json.loads((tmp_path / "share/jupyter/kernels/farm/kernel.json").read_text())
    assert spec["interrupt_mode"] == "message"
    assert spec["argv"][2:] == [
        *("taskfarm", "run", "-n", "3", "--summary", "off", "--seed", "1"),
        *("-m", "ipykernel_launcher", "-f", "{connection_file}"),
    ]
    found = Notebook(tmp_path / "share/jupyter/kernels")
    try:
        yield found
    finally:
        found.client.stop_channels()
        if found.manager.is_alive():
            found.manager.shutdown_kernel(now=True)


def test_cells_run_on_a_farm(notebook: Notebook) -> None:
    assert notebook.run(DEFINE) == ""
    assert notebook.run("sum(isinstance(m, Model) for m in slow.map(range(50)))") == "50"
    busy = "print('begun', flush=True)\nlist(slow.map(range(10_000)))"
    for _ in range(2):
        assert notebook.run(busy, interrupt_when="begun").endswith("KeyboardInterrupt")
        assert notebook.run("[m.x for m in slow.map(range(5))]") == "[0, 1, 2, 3, 4]"
    assert notebook.run("slow.submit(7).result().x") == "7"
    pid = int(notebook.run("os.getpid()"))
    notebook.manager.restart_kernel()
    notebook.client.wait_for_ready(timeout=LIMIT)
    assert "NameError" in notebook.run("slow")
    notebook.run(DEFINE)
    assert notebook.run("slow.submit(8).result().x") == "8"
    last = int(notebook.run("os.getpid()"))
    assert last != pid
    notebook.manager.shutdown_kernel()
    deadline = time.monotonic() + LIMIT
    while any(os.path.exists(f"/proc/{one}") for one in (pid, last)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{one}") for one in (pid, last))
