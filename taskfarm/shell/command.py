"""`Command`: a task whose calls run a shell command."""

import functools
import subprocess
from typing import Any

from taskfarm.errors import CommandFailed
from taskfarm.job.decorator import Task
from taskfarm.schedule.policy import Policy, size
from taskfarm.shell import start
from taskfarm.shell.execute import Ended, Where, run_command
from taskfarm.shell.template import Template

_template = functools.lru_cache(maxsize=64)(Template)


class _Call:
    """Runs the command for the arguments of a call."""

    def __init__(self, template: str, text: bool, where: Where) -> None:
        self._template, self._text, self._where = template, text, where

    def __call__(self, *arguments: object) -> "subprocess.CompletedProcess[Any]":
        command = _template(self._template).render_in_turn([str(argument) for argument in arguments])
        start.follow_environment()
        try:
            ended = self._decoded(run_command(command, 0, *self._where))
        except CommandFailed as error:
            raise CommandFailed(str(error), self._decoded(error.ended)) from None
        return subprocess.CompletedProcess(command, 0, ended.stdout, ended.stderr)

    def _decoded(self, ended: Ended) -> Any:
        if not self._text:
            return ended
        outputs: Any = ended.stdout, ended.stderr
        out, err = (output.decode(errors="surrogateescape") for output in outputs)
        return ended._replace(stdout=out, stderr=err)


class Command(Task[..., "subprocess.CompletedProcess[Any]"]):
    """A task whose calls run a shell command; the results are `subprocess.CompletedProcess`.

    A call raises `taskfarm.errors.CommandFailed` unless the command succeeds. Commands start outside of
    MPI, in a process group that ends with them, and without input.

    Parameters
    ----------
    template : str
        The command. Each ``{}`` stands for the next argument of a call, or for the same one if there is
        only one; ``{1}``, ``{2}``, ... stand for the first, second, ... argument. ``{.}``, ``{/}``,
        ``{//}`` and ``{/.}`` change an argument as in GNU parallel. Arguments are quoted for the shell. If
        the command has none of these, the arguments follow it.
    text : bool
        Whether output is text; else it is bytes.
    timeout : float, optional
        Seconds after which a command and all that it has started is ended.
    memory : int or str, optional
        Bytes that the processes of a command may hold together, or a string such as ``"2GB"``.
    **options
        As of `Task.options`.

    Raises
    ------
    TypeError, ValueError
        An option is unknown, or its value is invalid.
    """

    def __init__(
        self,
        template: str,
        *,
        text: bool = True,
        timeout: float | None = None,
        memory: int | str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(template, str):
            raise TypeError(f"a command must be a string, not {template!r}")
        if not template.strip():
            raise ValueError("a command must not be empty")
        if "\0" in template:
            raise ValueError(f"a command must not contain a null character: {template!r}")
        Template(template)
        timeout = Policy().changed({"timeout": timeout}).timeout
        where = Where(timeout=timeout, memory=size("memory", memory))
        name = template.split()[0]
        super().__init__(_Call(template, text, where), {"name": name, **options})
        self.template = template
        self._given = {"text": text, "timeout": timeout, "memory": memory, **options}

    def __repr__(self) -> str:
        """Show the command."""
        return f"<Command {self.template!r}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _command, (self.template, self._given)

    def options(self, **options: Any) -> "Command":  # type: ignore[override]
        """Return the same command with other options."""
        return Command(self.template, **{**self._given, **options})


def _command(template: str, options: dict[str, Any]) -> Command:
    return Command(template, **options)
