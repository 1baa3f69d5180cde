"""Prints the commands of a request instead of running them."""

import os
import sys
from collections.abc import Iterator, Sequence

from taskfarm.shell.output import write_bytes
from taskfarm.shell.request import Request
from taskfarm.shell.template import SLOT, Template


def show(request: Request) -> int:
    """Print the commands, one after the other; ``{%}`` is 1; returns the exit code."""
    request.check_files()
    for arguments, command in _commands(request):
        tag = f"{' '.join(arguments)}\t" if request.tag else ""
        write_bytes(sys.stdout, os.fsencode(tag + command.replace(SLOT, "1") + "\n"))
    return 0


def _commands(request: Request) -> Iterator[tuple[Sequence[str], str]]:
    """The arguments and the text of each command."""
    if request.resume == "retry-failed":
        from taskfarm.shell.joblog import failed_commands

        yield from (((text,), text) for text in failed_commands(request.joblog).values())
        return
    inputs = request.open_inputs(again=False)
    template = Template(request.command, inputs.names)
    for number, arguments in enumerate(inputs, 1):
        yield arguments, template.render(arguments, number)
