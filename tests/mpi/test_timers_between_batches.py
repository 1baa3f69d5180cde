"""Which timers are a task's own: those of initializers and of tasks that wait run on."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]

JOB = """
import signal
from taskfarm import Farm, task

REAL, PROF = signal.ITIMER_REAL, signal.ITIMER_PROF

def begin():
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(PROF, 3600)

def running():
    return [bool(signal.getitimer(timer)[0]) for timer in (REAL, PROF)]

@task
def child():
    return running()

@task
def waits():
    first = child.submit().result()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(REAL, 3600)
    second = child.submit().result()
    signal.setitimer(REAL, 0)
    third = child.submit().result()
    signal.setitimer(REAL, 3600)
    fourth = child.submit().result()
    return first, second, third, fourth, running()

def leaves():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(REAL, 3600)

if __name__ == "__main__":
    with Farm() as farm:
        print(*farm.submit(running).result(), *farm.submit(running).result())
        farm.submit(leaves).result()
        print(*farm.submit(running).result())
        print(*waits.submit().result())
        print(*farm.submit(running).result())
    with Farm(initializer=begin) as farm:
        for _ in range(2):
            print(*farm.submit(running).result())
        farm.submit(leaves).result()
        print(*farm.submit(running).result())
"""

OUT = """\
False False False False
False False
[False, False] [True, False] [False, False] [True, False] [True, False]
False False
False True
False True
False True
"""


def test_only_timers_that_a_batch_has_started_are_switched_off(run: Run) -> None:
    code, out, err = run(JOB, 2)
    assert (code, out) == (0, OUT), err
    assert err.count("left ITIMER_REAL running; it was switched off after the task") == 2, err
    assert "ITIMER_PROF" not in err
