"""What an initializer sets is there for the tasks, plain and isolated, whatever the job does later."""

import functools
import logging
import os

from taskfarm import Farm, task

STORE = {}
LIST = []
setting = None
scale = 1


class Config:
    model = None
    values = {}


class Lazy:
    table = None

    def look(self, x):
        return self.table[x] + offset


class Handle:
    """Cannot be pickled."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        raise TypeError("not a handle")


@functools.cache
def cached(x):
    return [x, setting]


def load(number, extra=None):
    global offset, setting, handle, LIST
    offset = number
    setting = {"number": number}
    handle = Handle(number)
    STORE["model"] = handle
    LIST.append(number)
    Config.model = number
    Config.values["a"] = number
    Lazy.table = {1: number}
    load.called = True
    os.environ["CORPUS"] = str(number)
    logging.getLogger("corpus").setLevel(number)


class Loader:
    def __init__(self, name):
        self.name = name

    def __call__(self):
        global setting
        setting = self.name
        STORE[self.name] = 1

    def method(self, n):
        STORE["method"] = n


def names(x):
    return offset + x, setting["number"], handle.number


def containers(x):
    return STORE["model"].number, LIST, Config.model, Config.values, load.called, scale


def methods(lazy):
    return lazy.look(1), Lazy().look(1), os.environ["CORPUS"], logging.getLogger("corpus").level


@task
def as_task(x):
    return cached(x), names(x)


@task(isolate=True)
def isolated(x):
    return names(x), containers(x)


def with_loader(x):
    return setting, sorted(STORE)


if __name__ == "__main__":
    with Farm(initializer=load, initargs=(20,)) as farm:
        print(
            list(farm.map(names, [1, 2])),
            list(farm.map(containers, [0])),
            list(farm.map(methods, [Lazy()])),
        )
        print(as_task.submit(3).result(), list(isolated.map([1])))
        # The job changes the same names; what the initializer has set stays.
        setting, scale = "changed", 5
        STORE["other"] = 1
        Config.model = "changed"
        print(list(farm.map(names, [1])), list(farm.map(containers, [0])))
        print(
            farm.submit(lambda x: (setting["number"], offset, scale), 0).result(),
            farm.submit(functools.partial(names, 3)).result(),
        )
    setting = None
    with Farm(initializer=load, initargs=(30,)) as farm:
        print(list(farm.map(names, [1, 2])), list(farm.map(methods, [Lazy()])))
        print(list(isolated.map([1]))[0][0])
    STORE.clear()
    with Farm(initializer=Loader("loader")) as farm:
        print(farm.submit(with_loader, 0).result())
    with Farm(initializer=Loader("x").method, initargs=(5,)) as farm:
        print(farm.submit(lambda: STORE["method"]).result())
    with Farm(initializer=lambda: globals().update(offset="lambda")) as farm:
        print(farm.submit(lambda: offset).result())
    with Farm(initializer=functools.partial(load, extra=2), initargs=(40,)) as farm:
        print(farm.submit(names, 1).result())
    print(STORE, LIST, Config.model, Config.values, "offset" in globals())
