"""Objects of the standard library, and of NumPy, as globals, and the more unusual classes."""

import argparse
import asyncio
import collections
import contextvars
import ctypes
import datetime
import enum
import functools
import io
import itertools
import logging
import operator
import pathlib
import queue
import string
import threading
import time
import types
import uuid
import weakref
from fractions import Fraction
from math import exp

import numpy as np
from numpy import sin, sqrt

from taskfarm import Farm, task

ARGS = argparse.Namespace(a=1, b="x")
DAY = datetime.date(2024, 2, 29)
PATH = pathlib.PurePath("a") / "b"
DEFAULTS = collections.defaultdict(lambda: DAY.year)
ORDERED = collections.OrderedDict(b=1, a=2)
CHAIN = collections.ChainMap({"x": 1}, ORDERED)
COUNTS = collections.Counter("aab")
QUEUE = queue.Queue()
QUEUE.put(3)
EVENT = threading.Event()
EVENT.set()
SEMAPHORE = threading.BoundedSemaphore(2)
BUFFER = io.StringIO("text")
GET = operator.itemgetter("a")
UP = operator.methodcaller("upper")
STEPS = itertools.cycle([1, 2])
ADAPTER = logging.LoggerAdapter(logging.getLogger("x"), {"k": 1})
TEMPLATE = string.Template("$x!")
IDENTITY = uuid.UUID(int=5)
TYPE = np.dtype([("a", "f8"), ("b", "i4")])
ARRAY = np.arange(6.0).reshape(2, 3)
VIEW = ARRAY.T
MASKED = np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
VECTORIZED = np.vectorize(lambda x: x + DAY.day)
POLYNOMIAL = np.poly1d([1, 0, -1])
VARIABLE = contextvars.ContextVar("variable", default=7)
libc = ctypes.CDLL(None)
libc.atof.restype = ctypes.c_double
opened = open("/dev/null", "w")


class Pair(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_double))


class Text(enum.StrEnum):
    ONE = enum.auto()
    TWO = enum.auto()


class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label):
        member = bytes.__new__(cls, [value])
        member._value_ = value
        member.label = label
        return member

    PX = (0, "P.X")
    PY = (1, "P.Y")


class Access(enum.Flag, boundary=enum.KEEP):
    NONE = 0
    R = 1
    W = 2
    RW = R | W


class Numbered(enum.Enum):
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return name.lower() * (count + 1)

    A = enum.auto()
    B = enum.auto()

    @classmethod
    def _missing_(cls, value):
        return cls.A if value == "default" else None


class Single:
    _instance = None

    def __new__(cls):
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance


SINGLE = Single()


class CallMeta(type):
    instances = weakref.WeakValueDictionary()

    def __call__(cls, name):
        one = cls.instances.get(name) or super().__call__(name)
        cls.instances[name] = one
        return one

    def __getattr__(cls, name):
        return f"{cls.__name__}.{name}"

    def __contains__(cls, name):
        return name in cls.instances


class Cached(metaclass=CallMeta):
    def __init__(self, name):
        self.name = name


class Stored:
    def __init__(self):
        self.values = weakref.WeakKeyDictionary()

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return self if instance is None else self.values.get(instance, self.name)

    def __set__(self, instance, value):
        self.values[instance] = value


class Slotted:
    __slots__ = ("__weakref__", "a")
    field = Stored()
    lock = threading.Lock()

    def __init__(self, a=0):
        self.a = a


class Slotted2(Slotted):
    __slots__ = ("b",)


class Partial:
    def base(self, x, y):
        return x * y

    double = functools.partialmethod(base, 2)

    def __class_getitem__(cls, item):
        return f"{cls.__name__}[{item}]"

    def __init_subclass__(cls, /, must, **options):
        super().__init_subclass__(**options)
        cls.must = must


class PartialChild(Partial, must=4):
    def __del__(self):
        pass


class Hooked:
    @classmethod
    def __subclasshook__(cls, other):
        return hasattr(other, "hook")


class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next

    def __iter__(self):
        yield self.value
        if self.next:
            yield from self.next

    def __getstate__(self):
        return (self.value, self.next)

    def __setstate__(self, state):
        self.value, self.next = state


class BadName:
    pass


BadName.__qualname__ = "Other.Name"
Renamed = BadName
renamed = types.new_class("Dynamic", (Node,), {}, lambda ns: ns.update(extra=lambda self: self.value))


@task
def globals_of_the_library(_):
    with SEMAPHORE, Slotted.lock:
        return [
            ARGS.b, DAY + datetime.timedelta(1), str(PATH), DEFAULTS["new"], list(ORDERED), CHAIN["a"], COUNTS["a"],
            QUEUE.qsize(), EVENT.is_set(), BUFFER.read(1), GET({"a": 1}), UP("x"), next(STEPS), ADAPTER.extra,
            TEMPLATE.substitute(x=1), IDENTITY.int, TYPE.names, ARRAY.sum(), VIEW.shape, int(MASKED.sum()),
            VECTORIZED([1, 2]).tolist(), POLYNOMIAL(2), Fraction(1, 3) * 3 == 1, sorted(CHAIN),
        ]  # fmt: skip


@task
def classes(_):
    pair = Pair(1, 2.5)
    slotted = Slotted2(3)
    slotted.b, slotted.field = 4, "set"
    return [
        (pair.a, pair.b), ctypes.sizeof(Pair), list(Text), Text.ONE == "one", Coordinate.PY.label, Coordinate(1).name,
        bytes(Coordinate.PY), Access.RW, Access(8 | 1).value, Access.R in Access.RW, Numbered.B.value,
        Numbered("default").name, Single() is SINGLE, Single() is Single(), Cached("a") is Cached("a"), Cached.other,
        (slotted.a, slotted.b, slotted.field, hasattr(slotted, "__dict__")), Slotted().field, PartialChild().double(5),
        Partial[3], PartialChild.must, list(Node(1, Node(2))),
        type(Renamed()).__qualname__, renamed(5).extra(),
    ]  # fmt: skip


@task
def round_trip(value):
    return value


async def later(x):
    await asyncio.sleep(0)
    return x + DAY.month


@task
def event_loop(x):
    return asyncio.run(later(x))


@task
def shadows(x):
    return max(x), time, float(sin(0)), int(sqrt(4)), exp(0)


max = min
time = "shadowed"


if __name__ == "__main__":
    with Farm() as farm:
        for found in (globals_of_the_library, classes):
            print(*found.submit(0).result(), sep="\n")
        print(event_loop.submit(1).result(), shadows.submit([1, 2]).result())
        values = [
            Text.TWO,
            Coordinate.PX,
            Access.RW,
            Numbered.A,
            SINGLE,
            Node(1, Node(2)),
            Renamed(),
            renamed(3),
            Slotted2(1),
            PartialChild(),
        ]
        back = list(round_trip.map(values))
        print(
            [type(a) is type(b) for a, b in zip(values, back)], [a is b for a, b in zip(values, back)][:5]
        )
        print(
            farm.submit(lambda: VARIABLE.get()).result(),
            farm.submit(lambda: (libc.abs(-1), libc.atof(b"1.5"))).result(),
        )
        try:
            print(farm.submit(lambda: opened.write("x")).result())
        except Exception as error:
            print(type(error).__name__, str(error).partition(":")[0])
