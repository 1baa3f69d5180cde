"""Prints the commands of a request instead of running them."""

import os
import sys

from taskfarm.shell.output import write_bytes
from taskfarm.shell.request import Request
from taskfarm.shell.template import SLOT, Template


def show(request: Request) -> int:
    """Print the commands, one after the other; ``{%}`` is 1; returns the exit code."""
    request.check_files()
    if request.resume == "retry-failed":
        from taskfarm.shell.joblog import failed_commands

        commands = iter(failed_commands(request.joblog).values())
    else:
        inputs = request.open_inputs(again=False)
        template = Template(request.command, inputs.names)
        commands = (template.render(row, number) for number, row in enumerate(inputs, 1))
    for command in commands:
        write_bytes(sys.stdout, os.fsencode(command.replace(SLOT, "1") + "\n"))
    return 0
