"""Classes of the job's file in tasks, arguments and results."""

import abc
import collections
import copy
import dataclasses
import enum
import functools
import pickle
import typing
from fractions import Fraction

from taskfarm import Farm, task

REGISTRY = {}
SEEN = []


def registered(cls):
    REGISTRY[cls.__name__] = cls
    return cls


class Plugin:
    found: typing.ClassVar = {}

    def __init_subclass__(cls, key, **options):
        super().__init_subclass__(**options)
        Plugin.found[key] = cls
        cls.key = key


class One(Plugin, key="one"):
    def value(self):
        return 1


class Two(One, key="two"):
    def value(self):
        return super().value() + 1


class Told:
    def __init_subclass__(cls, /, must, **options):
        super().__init_subclass__(**options)
        cls.must = must


class ToldChild(Told, must=4):
    pass


class ToldSlots(ToldChild, must=5):
    __slots__ = ("a",)


class ToldError(Told, ValueError, must=6):
    pass


class Meta(type):
    made: typing.ClassVar = []

    def __new__(mcls, name, bases, namespace, **options):
        cls = super().__new__(mcls, name, bases, namespace)
        Meta.made.append(name)
        return cls

    def __init__(cls, name, bases, namespace, flavour=None):
        super().__init__(name, bases, namespace)
        cls.flavour = flavour

    def __len__(cls):
        return len(Meta.made)


class Made(metaclass=Meta, flavour="sweet"):
    pass


class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1

    @property
    def nice(self):
        return self is Colour.GREEN


class Planet(enum.Enum):
    EARTH = (5.97e24, 6.37e6)
    MARS = (6.4e23, 3.4e6)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius


class Mode(enum.IntFlag):
    READ = 4
    WRITE = 2


class Word(str, enum.Enum):
    YES = "yes"


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    x: float
    y: float = 0.0
    tags: list = dataclasses.field(default_factory=list, compare=False)


@dataclasses.dataclass(slots=True)
class Slim:
    a: int
    b: int = 2


class Pair(typing.NamedTuple):
    left: int
    right: int = 7

    def total(self):
        return self.left + self.right


Triple = collections.namedtuple("Other", "a b c")


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


@Shape.register
class Odd:
    pass


class Slots:
    __slots__ = ("__hidden", "shown")

    def __init__(self, shown):
        self.shown = shown
        self.__hidden = 2 * shown

    def hidden(self):
        return self.__hidden


class Lazy:
    @functools.cached_property
    def costly(self):
        SEEN.append("costly")
        return 42

    @property
    def plain(self):
        return "plain"

    @plain.setter
    def plain(self, value):
        self.kept = value

    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def twice(x):
        return 2 * x

    class Inner:
        depth = 1

        class Deeper:
            depth = 2


T = typing.TypeVar("T")


class Box(typing.Generic[T]):
    def __init__(self, content: T):
        self.content = content


class Greets(typing.Protocol):
    def greet(self) -> str: ...


@typing.runtime_checkable
class Sized(typing.Protocol):
    def __len__(self): ...


class Failed(Exception):
    def __init__(self, code, *, hint="none"):
        super().__init__(code)
        self.code = code
        self.hint = hint


class Temperature:
    class Celsius:
        def __set_name__(self, owner, name):
            self.name = "_" + name

        def __get__(self, instance, owner=None):
            return self if instance is None else getattr(instance, self.name, 0.0)

        def __set__(self, instance, value):
            setattr(instance, self.name, float(value))

    now = Celsius()


@registered
class Left:
    pass


@registered
class Right(Left):
    def __eq__(self, other):
        return type(other) is Right

    def __hash__(self):
        return 1


class Node:
    root: typing.ClassVar = None

    def __init__(self, name):
        self.name = name


Node.root = Node("root")
MISSING = object()


@task
def plugins(_):
    return (
        sorted(Plugin.found),
        Plugin.found["two"]().value(),
        One.key,
        Two.key,
        ToldSlots.must,
        ToldError("x").must,
        ToldSlots.__mro__[1] is ToldChild,
        len(ToldError.__mro__),
    )


@task
def metaclasses(_):
    return len(Made), Made.flavour, Meta.made, type(Made).__name__


@task
def enums(colour):
    return (
        colour is Colour.GREEN,
        colour.nice,
        Colour.CRIMSON is Colour.RED,
        Colour["CRIMSON"].name,
        list(Colour.__members__),
        Colour(2) is Colour.GREEN,
        Planet.EARTH.mass,
        Planet((6.4e23, 3.4e6)).radius,
        Mode.READ | Mode.WRITE,
        Mode(6) & Mode.READ is Mode.READ,
        Word.YES == "yes",
        {Colour.RED: 1}[Colour(1)],
    )


@task
def data(point):
    return (
        isinstance(point, Point),
        point == Point(1, 2),
        dataclasses.asdict(point),
        dataclasses.replace(point, x=5),
        point < Point(3),
        [field.default is dataclasses.MISSING for field in dataclasses.fields(Point)],
        Slim(1),
        hasattr(Slim(1), "__dict__"),
    )


@task
def tuples(pair):
    return pair.total(), pair._replace(left=0), Pair(3), Triple(1, 2, 3), isinstance(pair, Pair)


@task
def shapes(shape):
    try:
        Shape()
    except TypeError as error:
        raised = str(error).partition(" with")[0]
    return shape.area(), isinstance(shape, Shape), issubclass(Odd, Shape), isinstance(Odd(), Shape), raised


@task
def slots(one):
    try:
        one.other = 1
    except AttributeError:
        return one.hidden(), Slots(4).hidden(), "refused"


@task
def members(lazy):
    lazy.plain = 3
    found = lazy.costly + lazy.costly
    return found, lazy.kept, Lazy.make().plain, Lazy.twice(4), Lazy.Inner.Deeper.depth, SEEN


@task
def generics(box):
    return (
        isinstance(box, Box),
        Box[int].__origin__ is Box,
        box.content,
        isinstance([], Sized),
        typing.get_args(Box[T]),
    )


@task
def errors(code):
    try:
        raise Failed(code, hint="h")
    except Failed as error:
        if code == 2:
            raise
        return error.code, error.hint


@task
def descriptors(_):
    one = Temperature()
    one.now = 3
    return one.now, type(Temperature.now).__name__


@task
def registry(_):
    return (
        sorted(REGISTRY),
        REGISTRY["Left"] is Left,
        isinstance(REGISTRY["Right"](), Left),
        Right() == Right(),
        Node.root.name,
        type(Node.root) is Node,
    )


@task
def copies(point):
    return (
        pickle.loads(pickle.dumps(point)) == point,
        copy.deepcopy(point) == point,
        copy.copy(point) is not point,
        pickle.loads(pickle.dumps(Colour.RED)) is Colour.RED,
        pickle.loads(pickle.dumps(Lazy.Inner.Deeper)) is Lazy.Inner.Deeper,
        pickle.loads(pickle.dumps(Left)) is Left,
    )


@task
def sentinel(value=MISSING):
    return value is MISSING


@task
def give(kind):
    return {
        "point": lambda: Point(1, 2),
        "colour": lambda: Colour.RED,
        "class": lambda: Square,
        "square": lambda: Square(3),
        "slots": lambda: Slots(5),
        "pair": lambda: Pair(1),
        "mode": lambda: Mode.READ | Mode.WRITE,
        "nested": lambda: Lazy.Inner.Deeper(),
        "node": lambda: Node.root,
        "fraction": lambda: Fraction(1, 3),
    }[kind]()


def main():
    with Farm():
        print(*plugins.map([0]))
        print(*metaclasses.map([0]))
        print(*enums.map([Colour.GREEN]))
        print(*data.map([Point(1, 2)]))
        print(*tuples.map([Pair(1, 2)]))
        print(*shapes.map([Square(3)]))
        print(*slots.map([Slots(2)]))
        print(*members.map([Lazy()]))
        print(*generics.map([Box(4)]))
        print(*errors.map([1]))
        try:
            print(*errors.map([2]))
        except Failed as error:
            print(type(error) is Failed, error.code, error.hint)
        print(*descriptors.map([0]))
        print(*registry.map([0]))
        print(*copies.map([Point(1)]))
        print(sentinel.submit().result(), sentinel.submit(MISSING).result(), sentinel.submit(None).result())
        kinds = [
            "point",
            "colour",
            "class",
            "square",
            "slots",
            "pair",
            "mode",
            "nested",
            "node",
            "fraction",
        ]
        point, colour, cls, square, one, pair, mode, nested, node, fraction = give.map(kinds)
        print(type(point) is Point, colour is Colour.RED, cls is Square, type(square) is Square)
        print(type(one) is Slots, one.hidden(), type(pair) is Pair, mode, type(nested) is Lazy.Inner.Deeper)
        print(
            type(node) is Node,
            node is Node.root,
            fraction,
            SEEN,
            sorted(REGISTRY),
            Meta.made,
            len(Plugin.found),
        )


if __name__ == "__main__":
    main()
