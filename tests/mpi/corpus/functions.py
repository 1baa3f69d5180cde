"""Functions of the job's file: helpers, caches, decorators, closures, and globals that change."""

import collections
import concurrent.futures
import contextlib
import copy
import functools
import itertools
import logging
import multiprocessing
import operator
import os.path
import pickle
import re
import shelve
import tempfile
import threading
import weakref
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace

from taskfarm import Farm, task

FACTOR = 2
TABLE = {"a": 1}
SHARED = [1]
HOLDER = {"shared": SHARED}
OTHER_NAME = HOLDER
LOCK = threading.Lock()
GUARD = threading.RLock()
LOCAL = threading.local()
CONDITION = threading.Condition()
WEAK = weakref.WeakKeyDictionary()
PATTERN = re.compile(r"\d+")
LOG = logging.getLogger("corpus")
FROZEN = MappingProxyType({"k": 3})
ADD_ONE = functools.partial(operator.add, 1)
SQUARE = lambda x: x * x
COUNTER = itertools.count(5)
NAMES = SimpleNamespace(deep=SimpleNamespace(value=9))
PENDING = collections.deque([1, 2], maxlen=3)
__version__ = "1.2"


@functools.cache
def squares(n):
    return [k * k for k in range(n)]


@functools.lru_cache(maxsize=2)
def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


@functools.singledispatch
def kind(value):
    return "something"


@kind.register
def _(value: int):
    return "integer"


@kind.register(list)
def _of_list(value):
    return "list of " + kind(value[0])


def memoized(function):
    cache = {}

    @functools.wraps(function)
    def wrapper(n):
        if n not in cache:
            cache[n] = function(n)
        return cache[n]

    wrapper.cache = cache
    return wrapper


@memoized
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def counting(function):
    @functools.wraps(function)
    def wrapper(*args):
        wrapper.calls += 1
        return function(*args), wrapper.calls

    wrapper.calls = 0
    return wrapper


@task
@counting
def inner_counted(x):
    return x


def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 2 * function(*args)

    return wrapper


@doubled
@task
def outer(x):
    return x + 1


@contextlib.contextmanager
def bracket(word):
    yield f"<{word}>"


def default(x, seen=[]):
    return x, len(seen)


def generator(n):
    yield from range(n)


async def coroutine(x):
    return x


def pair():
    total = 0

    def add(n):
        nonlocal total
        total += n
        return get()

    def get():
        return total

    return add, get


ADD, GET = pair()


class Calls:
    def __init__(self, start=0):
        self.calls = start

    def __call__(self, _):
        self.calls += 1
        return self.calls

    def method(self, _):
        self.calls += 10
        return self.calls


GLOBAL_CALLS = Calls(100)


def use_all(x):
    with LOCK, GUARD, CONDITION:
        LOCAL.value = x
        WEAK[Calls] = 1
        return (
            squares(10)[x],
            even(10),
            odd(7),
            kind(3),
            kind([1]),
            kind("x"),
            fibonacci(30),
            SQUARE(x),
            ADD_ONE(x),
            PATTERN.findall("a12b3"),
            LOG.name,
            FROZEN["k"],
            LOCAL.value,
            HOLDER["shared"] is SHARED,
            OTHER_NAME is HOLDER,
            NAMES.deep.value,
            list(PENDING),
            __version__,
            __name__,
            os.path.basename(__file__),
            default(x),
            list(generator(3)),
            [word for word in [bracket("a")]][0].__class__.__name__,
        )


def in_place(_):
    SHARED.append(2)
    return HOLDER["shared"] is SHARED, len(HOLDER["shared"]) == len(SHARED)


def scaled(x):
    class Local:
        factor = FACTOR

        def get(self):
            return __class__.factor * x

    return Local().get(), FACTOR, sorted(TABLE)


@functools.cache
def cached_scale(x):
    return deeper(x)


def deeper(x):
    return FACTOR * x


@memoized
def memoized_scale(x):
    return deeper(x)


def by_text(name):
    return eval("SQUARE(3)"), globals()["FACTOR"], __import__("__main__").FACTOR


def pickles(_):
    import sys

    main = sys.modules["__main__"]
    with tempfile.TemporaryDirectory() as folder, shelve.open(os.path.join(folder, "s")) as shelf:
        shelf["calls"] = Calls(4)
        loaded = shelf["calls"].calls
    return (
        pickle.loads(pickle.dumps(Calls(3))).calls,
        pickle.loads(pickle.dumps(use_all)) is use_all,
        pickle.loads(pickle.dumps(outer)) is outer,
        pickle.loads(pickle.dumps(inner_counted)) is inner_counted,
        copy.deepcopy(inner_counted) is inner_counted,
        pickle.loads(pickle.dumps(squares)) is squares,
        loaded,
        main.Calls is Calls,
        main.__name__,
    )


def loads_what_the_job_wrote(data):
    return pickle.loads(data).calls


def children(x):
    pool = multiprocessing.get_context("fork").Pool(1)
    found = pool.map(SQUARE_BY_NAME, [x, x + 1])
    pool.close()
    pool.join()
    return found


def SQUARE_BY_NAME(x):
    return SQUARE(x) + FACTOR


def threads(x):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(SQUARE_BY_NAME, [x, x]))


def nothing(x):
    return undefined_name + x


def sets_a_global(x):
    global late
    late = x
    return late


def accumulate(x):
    TABLE[x] = x
    return len(TABLE) > 0


def made(n):
    def add(x):
        return x + n

    return add


def main():
    global FACTOR, squares, SQUARE
    farm = Farm()
    print(*farm.map(use_all, [1, 2]), sep="\n")
    print(*farm.map(in_place, [1]), SHARED)
    print(*farm.map(by_text, [0]))
    print(*farm.map(pickles, [0]))
    print(*farm.map(loads_what_the_job_wrote, [pickle.dumps(Calls(8))]))
    print(*farm.map(children, [3]))
    print(*farm.map(threads, [3]))
    print([farm.submit(Calls(), 0).result() for _ in range(4)])
    print(list(farm.map(Calls().method, range(3))))
    one = Calls()
    print([farm.submit(one, 0).result() for _ in range(3)], one.calls)
    print([farm.submit(pair()[0], 5).result() for _ in range(3)])
    print(list(farm.map(GLOBAL_CALLS, [0, 0])), GLOBAL_CALLS.calls)
    print(list(farm.map(functools.partial(default, 3), range(0))), farm.submit(default, 3).result())
    print([outer(1), *farm.map(outer, [1]), farm.submit(outer, 1).result()], farm.submit(ADD, 4).result())
    print(farm.submit(inner_counted, 1).result())
    print(farm.submit(made(3), 4).result(), farm.submit(lambda x: SQUARE(x) + FACTOR, 3).result())
    print(
        farm.submit(sorted, [3, 1], key=SQUARE).result(),
        farm.submit(map, SQUARE, [2]).exception() is not None,
    )

    # A name that is given another meaning, with calls in the queue before and after.
    futures = []
    for FACTOR in range(10):
        TABLE[str(FACTOR)] = 1
        futures.append(farm.submit(scaled, 1))
        SQUARE = made(FACTOR)
        futures.append(farm.submit(SQUARE_BY_NAME, 1))
        futures.append(farm.submit(cached_scale, 3))
        futures.append(farm.submit(memoized_scale, 3))
    print([future.result() for future in futures])
    del TABLE["a"]
    print(farm.submit(scaled, 2).result())
    for wrong in (nothing, by_text):
        try:
            print(farm.submit(wrong, 1).result())
        except NameError as error:
            print(error)
    kept = SQUARE
    del SQUARE
    gone = farm.submit(SQUARE_BY_NAME, 1)
    SQUARE = kept
    print(gone.exception(), farm.submit(SQUARE_BY_NAME, 1).result())
    print(farm.submit(sets_a_global, 4).result(), "late" in globals())
    print(farm.submit(accumulate, "z").result(), "z" in TABLE)
    back = farm.submit(made, 5).result()
    print(
        back(1),
        farm.submit(back, 2).result(),
        farm.submit(lambda: SQUARE_BY_NAME).result() is SQUARE_BY_NAME,
    )
    print(farm.submit(lambda: lambda x: x + FACTOR).result()(1), farm.submit(lambda: LOG).result() is LOG)
    print(farm.submit(lambda: Decimal("1.5")).result())
    farm.shutdown()


if __name__ == "__main__":
    main()
