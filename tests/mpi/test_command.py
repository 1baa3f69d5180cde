"""`taskfarm.Command`: programs as tasks, under each MPI."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

JOB = """
import subprocess
from taskfarm import Command
from taskfarm.errors import CommandFailed, TaskError

if __name__ == "__main__":
    sim = Command("echo -p {} -q {}")
    print([done.stdout for done in sim.map([1, 2], ["a b", "$x"])])
    done = sim.submit(1, "'").result()
    print(isinstance(done, subprocess.CompletedProcess), done.args, done.returncode, repr(done.stderr))
    print(Command("cp {} {}.bak", text=False).submit("none").exception().returncode)
    flaky = Command("echo $TASKFARM_ATTEMPT; echo why >&2; [ $TASKFARM_ATTEMPT = {1} ]", retries=2)
    print(flaky.submit(3).result().stdout)
    try:
        flaky.submit(9).result()
    except CommandFailed as error:
        print(isinstance(error, TaskError), error.returncode, repr(error.stdout), error)
    print(Command("sleep {}", timeout=0.5).submit(600).exception())
    print(Command("kill -9 $$ ").options(retries=1).submit(1).exception().returncode)
    print(len(Command("yes | head -c {}").submit(3_000_000).result().stdout))
"""

EXPECTED = """['-p 1 -q a b\\n', '-p 2 -q $x\\n']
True echo -p 1 -q "'" 0 ''
1
3

True 1 '3\\n' `echo $TASKFARM_ATTEMPT; echo why >&2; [ $TASKFARM_ATTEMPT = 9 ]` exited with code 1: why
"""


def test_commands_are_tasks(run: Run) -> None:
    code, out, err = run(JOB, 3, options=["--quiet"])
    assert code == 0, err
    lines = out.replace("exception().returncode", "").splitlines()
    assert "".join(f"{line}\n" for line in lines[:2]) == "".join(
        f"{line}\n" for line in EXPECTED.splitlines()[:2]
    )
    assert lines[3:6] == EXPECTED.splitlines()[3:6]
    assert "passed its timeout limit" in lines[6]
    assert lines[7:] == ["-9", "3000000"]


def test_one_process_is_enough(run: Run) -> None:
    code, out, err = run(JOB, 1, options=["--quiet"])
    assert code == 0, err
    assert out.splitlines()[-1] == "3000000"
