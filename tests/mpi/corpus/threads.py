"""Threads of the job pickle and submit while tasks run; threads of a task see what the task sees."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from taskfarm import Farm

FACTOR = 2


class Point:
    def __init__(self, x):
        self.x = x


def work(point):
    global FACTOR
    FACTOR += 1
    with ThreadPoolExecutor(2) as pool:
        copies = list(pool.map(lambda p: pickle.loads(pickle.dumps(p)), [point, Point(1)]))
    time.sleep(0.002)
    return Point(sum(copy.x for copy in copies)), all(type(copy) is Point for copy in copies)


def main():
    stop, errors, rounds = threading.Event(), [], []

    def pickles():
        import __main__

        while not stop.is_set():
            try:
                assert type(pickle.loads(pickle.dumps(Point(1)))) is Point
                assert __main__.Point is Point and __main__.FACTOR == 2
                rounds.append(1)
            except BaseException as error:
                errors.append(repr(error))
            time.sleep(0.0005)

    thread = threading.Thread(target=pickles)
    thread.start()
    with Farm() as farm:
        results = [future.result() for future in [farm.submit(work, Point(n)) for n in range(60)]]
        print([point.x for point, _ in results], all(same for _, same in results), FACTOR)
        print(all(type(point) is Point for point, _ in results))
    stop.set()
    thread.join()
    print(errors[:3], len(rounds) > 3)


if __name__ == "__main__":
    main()
