"""Tasks leave threads, timers and processes behind: the results come, and the run ends."""

import atexit
import concurrent.futures
import random
import signal
import subprocess
import sys
import threading
import time

from taskfarm import Farm, task

chance = random.Random(int(sys.argv[1]))
kept = []


def for_ever():
    while True:
        time.sleep(0.05)


def print_for_ever():
    while True:
        print("still here")
        time.sleep(0.05)


def leave(kind):
    if kind == "thread":
        threading.Thread(target=for_ever).start()
    elif kind == "daemon":
        threading.Thread(target=print_for_ever, daemon=True).start()
    elif kind == "timer":
        threading.Timer(3600, print).start()
    elif kind == "alarm":
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    elif kind == "deadly alarm":
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
    elif kind == "process":
        kept.append(subprocess.Popen(["sleep", "3600"]))
    elif kind == "executor":
        kept.append(concurrent.futures.ThreadPoolExecutor(2))
        kept[-1].submit(for_ever)
    elif kind == "atexit":
        atexit.register(for_ever)


KINDS = ["thread", "daemon", "timer", "alarm", "process", "executor", "atexit", "none"]


def left(x, kind):
    leave(kind)
    return x


isolate = chance.random() < 0.5
kinds = [chance.choice(KINDS) for _ in range(chance.randint(1, 12))]
if not isolate and chance.random() < 0.3:
    kinds.append("deadly alarm")
with Farm() as farm:
    with open("started", "w"):
        pass
    leaver = task(isolate=isolate)(left)
    futures = [leaver.submit(x, kind) for x, kind in enumerate(kinds)]
    for x, future in enumerate(futures):
        try:
            assert future.result() == x
        except AssertionError:
            raise
        except Exception:
            # A late alarm fails the task that it interrupts.
            assert "deadly alarm" in kinds
    if "deadly alarm" not in kinds:
        assert sum(farm.map(abs, range(1000))) == 499500
print("right:", "isolated," if isolate else "plain,", ", ".join(kinds), flush=True)
