"""Globals that cannot be pickled, typing's objects, singletons, exceptions and classes made in tasks."""

import abc
import dataclasses
import functools
import typing

from taskfarm import Farm, TaskFarmError

log = open("/dev/null", "w")
numbers = (n for n in range(3))
UserId = typing.NewType("UserId", int)
Q = typing.TypeVar("Q")


class Logs:
    def quiet(self):
        return 1

    def loud(self):
        print("x", file=log)
        log.write("y")


class Singleton:
    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton()


class Itself(list):
    pass


CYCLE = Itself()
CYCLE.append(CYCLE)


@dataclasses.dataclass
class Typed(typing.Generic[Q]):
    x: int


class Keyed(typing.TypedDict):
    a: int


@functools.total_ordering
class Ordered:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    def __lt__(self, other):
        return self.x < other.x

    @functools.singledispatchmethod
    def show(self, a):
        return "any"

    @show.register
    def _(self, a: int):
        return "int"


class Inner(Exception):
    pass


class Outer(Inner):
    def __init__(self, a, b):
        super().__init__(f"{a}{b}")
        self.a, self.b = a, b

    def __reduce__(self):
        return Outer, (self.a, self.b)


class NoSubclass:
    items: typing.ClassVar = []

    def __init_subclass__(cls, **options):
        NoSubclass.items.append(cls.__name__)


class Sub(NoSubclass):
    pass


class Shape(abc.ABC):
    pass


def quiet(x):
    return x.quiet(), Logs().quiet()


def loud(x):
    Logs().loud()


def generator(x):
    return next(numbers)


def singleton(x):
    return x is SINGLETON, SINGLETON


def cycle(x):
    return CYCLE[0] is CYCLE


def types(x):
    return (
        Keyed(a=1),
        UserId(5),
        Typed[int](3),
        typing.get_type_hints(Keyed),
        typing.get_args(Typed[Q]) == (Q,),
    )


def ordered(a, b):
    return a < b, a >= b, a.show(1), a.show("x")


def fails(x):
    try:
        raise Inner("inner")
    except Inner as error:
        raise Outer(1, 2) from error


def group(x):
    raise ExceptionGroup("group", [Inner("a"), Outer(3, 4)])


def local():
    class Local(Shape):
        def __init__(self):
            self.value = 1

    return Local()


def subclass():
    class Third(NoSubclass):
        pass

    return NoSubclass.items


if __name__ == "__main__":
    with Farm() as farm:
        for function in (quiet, loud, generator):
            try:
                print(farm.submit(function, Logs()).result())
            except TaskFarmError as error:
                print(type(error).__name__, str(error).partition(":")[0])
        mine, given = farm.submit(singleton, SINGLETON).result()
        print(mine, given is SINGLETON, farm.submit(cycle, 0).result(), farm.submit(types, 0).result())
        print(farm.submit(ordered, Ordered(1), Ordered(2)).result())
        for function in (fails, group):
            try:
                farm.submit(function, 0).result()
            except (Inner, ExceptionGroup) as error:
                print(type(error) in (Outer, ExceptionGroup), repr(error))
        made = farm.submit(local).result()
        print(type(made).__qualname__, vars(made), isinstance(made, Shape))
        print(
            farm.submit(subclass).result(),
            NoSubclass.items,
            farm.submit(lambda q: q, {1: [Sub]}).result()[1][0] is Sub,
        )
