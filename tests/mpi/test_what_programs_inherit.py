"""Which descriptors the programs have that tasks start."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

JOB = """
import os
from taskfarm import Farm, task

@task
def descriptors(number):
    # As os.system and libraries in C do: nothing closes what can be inherited.
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    program = os.posix_spawn("/bin/ls", ["ls", "/proc/self/fd"], os.environ, file_actions=actions)
    os.close(writing)
    with open(reading) as output:
        listed = output.read().split()
    os.waitpid(program, 0)
    return listed

if __name__ == "__main__":
    with Farm() as farm:
        for listed in farm.map(descriptors, range(2)):
            print(*sorted(listed))
"""


def test_programs_hold_nothing_of_the_launcher_and_of_mpi(run: Run) -> None:
    """A launcher waits for all who have its pipes, and a program that a task leaves behind keeps them."""
    code, out, err = run(JOB, 3, options=["--quiet"])
    assert code == 0, err
    # Beside the standard streams, ls has the folder that it lists.
    assert out.splitlines() == ["0 1 2 3"] * 2
