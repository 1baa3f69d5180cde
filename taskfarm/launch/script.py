"""The job, run as Python itself would run it: a file, a module or code."""

import importlib.util
import os
import runpy
import sys
from types import ModuleType, TracebackType
from typing import NamedTuple

from taskfarm.errors import LaunchError


class Script(NamedTuple):
    """What to run on rank 0.

    Attributes
    ----------
    kind : str
        ``"file"``, ``"module"`` or ``"code"``.
    target : str
        The path, the module's name, or the code.
    args : list of str
        Its arguments.
    """

    kind: str
    target: str
    args: list[str]

    def check(self) -> None:
        """Raise LaunchError if there is nothing to run."""
        if self.kind == "file":
            if not os.path.isfile(self.target):
                raise LaunchError(f"there is no file {self.target!r} to run")
            try:
                with open(self.target, "rb"):
                    pass
            except OSError as error:
                raise LaunchError(f"cannot read {self.target!r}: {error.strerror}") from error

    def prepare_path(self, packages: tuple[str, ...] = ()) -> None:
        """Set ``sys.path[0]`` as Python does, so that modules beside the job can be imported.

        If some of them are named like modules of the standard library, the `packages` of taskfarm (by
        default all) are loaded before.
        """
        if sys.flags.safe_path:
            return
        # A job that is a symbolic link finds what is beside the file to which it leads.
        first = {"file": os.path.dirname(os.path.realpath(self.target)), "module": os.getcwd()}
        from taskfarm.shadowing import set_aside

        folder = first.get(self.kind, "")
        set_aside(folder, packages)
        sys.path[0] = folder

    def find_module(self) -> None:
        """Raise LaunchError if there is no module to run; imports the packages that hold it."""
        if self.kind != "module":
            return
        self.prepare_path()
        try:
            found = importlib.util.find_spec(self.target)
        except ModuleNotFoundError as error:
            # Another module may be missing, which a package imports: the job says so itself.
            if not f"{self.target}.".startswith(f"{error.name}."):
                return
            found = None
        except Exception:
            return
        if found is None:
            raise LaunchError(f"there is no module {self.target!r} to run")

    def run(self) -> None:
        """Run it as ``__main__``; whatever it raises passes through."""
        self.prepare_path()
        if self.kind == "module":
            sys.argv = [self.target, *self.args]
            runpy.run_module(self.target, run_name="__main__", alter_sys=True)
            return
        main = ModuleType("__main__")
        main.__builtins__ = __builtins__  # type: ignore[attr-defined]
        sys.modules["__main__"] = main
        if self.kind == "code":
            sys.argv = ["-c", *self.args]
            source: str | bytes = self.target
            name = "<string>"
        else:
            sys.argv = [self.target, *self.args]
            main.__file__ = name = os.path.abspath(self.target)
            with open(self.target, "rb") as file:
                source = file.read()
        exec(compile(source, name, "exec"), main.__dict__)


LAUNCHING = (os.path.dirname(__file__) + os.sep, runpy.__file__, "<frozen runpy>", "<frozen importlib")
"""Where the frames are from that stand above the job's own."""


def job_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the job's first frame on; None if it has none, as for a syntax error."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(LAUNCHING):
        trace = trace.tb_next
    return trace
