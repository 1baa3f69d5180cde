"""Executes blocks of documents that are no whole programs, each in a fresh process.

Reads a JSON list of ``[where, text]`` and prints one of ``[where, printed, error]``. Names that a
document uses without saying where they come from are prepared here; a block that needs a module which is
not there, one of the peers, is passed over.
"""

import contextlib
import io
import json
import os
import sys
import traceback
from typing import Any

import numpy as np

import taskfarm
from taskfarm import Farm, as_completed, current, errors, rng, task, testing, wait


@task
def tof(p_o2: float, p_co: float) -> float:
    """What the documents call."""
    return p_co * p_o2


PREPARED: dict[str, Any] = {
    "Farm": Farm,
    "as_completed": as_completed,
    "current": current,
    "errors": errors,
    "np": np,
    "pressures": [0.1, 0.2],
    "rng": rng,
    "task": task,
    "taskfarm": taskfarm,
    "testing": testing,
    "tof": tof,
    "wait": wait,
}


def execute(where: str, text: str) -> tuple[str, str]:
    """What a block prints, and its traceback, if it raises."""
    name, _, line = where.rpartition(":")
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile("\n" * (int(line) - 1) + text, name, "exec"), {"__name__": "__main__", **PREPARED})
    except ModuleNotFoundError as error:
        return "", "" if (error.name or "").partition(".")[0] != "taskfarm" else str(error)
    except BaseException:
        return out.getvalue(), traceback.format_exc()
    return out.getvalue(), ""


def main() -> None:
    """Execute what comes in, one process each: a farm that is left open must not matter to the next."""
    found = []
    for where, text in json.load(sys.stdin):
        reading, writing = os.pipe()
        if not os.fork():
            with open(writing, "w") as pipe:
                json.dump(execute(where, text), pipe)
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            printed = pipe.read()
        os.wait()
        found.append([where, *(json.loads(printed) if printed else ("", "the process was ended"))])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
