"""``taskfarm kernel install``: a Jupyter kernel whose cells run on a farm."""

import json
import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from taskfarm.errors import LaunchError, UsageError

NAME = re.compile(r"[A-Za-z0-9._-]+")
"""What Jupyter accepts as the name of a kernel."""


def install(
    ranks: str, name: str, display_name: str | None, prefix: str | None, options: Sequence[str]
) -> Path:
    """Write the specification of a kernel; returns its folder.

    Parameters
    ----------
    ranks : str
        The value of ``run -n``.
    name : str
        The name of the kernel, by which ``jupyter console --kernel NAME`` finds it.
    display_name : str or None
        What notebooks show; by default a text with `name` and `ranks`.
    prefix : str or None
        The kernel goes to ``PREFIX/share/jupyter/kernels``; by default to the environment of this Python if
        it is a virtual one, else to the user's folder.
    options : sequence of str
        More options of ``run``.

    Raises
    ------
    LaunchError
        ipykernel is not installed, or the file cannot be written.
    UsageError
        The name is invalid, or belongs to another kernel.
    """
    if find_spec("ipykernel") is None:
        raise LaunchError("a kernel needs ipykernel in this environment: pip install ipykernel")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a kernel: use letters, digits, '.', '_' and '-'")
    command = [sys.executable, "-m", "taskfarm", "run", "-n", ranks, "--summary", "off", *options]
    spec = {
        "argv": [*command, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": display_name or f"Python on a farm ({name}, {ranks} ranks)",
        "language": "python",
        # Otherwise Jupyter sends SIGINT to mpiexec, which ends all ranks.
        "interrupt_mode": "message",
        "metadata": {"debugger": False},
    }
    folder = _kernels(prefix) / name.lower()
    file = folder / "kernel.json"
    if file.exists() and "taskfarm" not in file.read_text("utf-8", "replace"):
        raise UsageError(f"{file} is the kernel of another program: choose another --name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"kernel.json.{os.getpid()}.new"
        new.write_text(json.dumps(spec, indent=1) + "\n", "utf-8")
        os.replace(new, file)
    except OSError as error:
        raise LaunchError(f"cannot write {file}: {error.strerror}; choose another --prefix") from error
    return folder


def _kernels(prefix: str | None) -> Path:
    """The folder of all kernels."""
    if prefix is None and sys.prefix != sys.base_prefix:
        prefix = sys.prefix
    if prefix is not None:
        return Path(prefix).expanduser() / "share/jupyter/kernels"
    data = os.environ.get("JUPYTER_DATA_DIR")
    if data is None:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        data = os.path.join(home, "jupyter")
    return Path(data).expanduser() / "kernels"
