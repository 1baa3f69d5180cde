# A program without a guard, whose classes and functions change between calls, as in a notebook.
import dataclasses
import enum
import functools
import pickle

from taskfarm import Farm, task

farm = Farm()


class Config:
    model = None
    depth = 1

    def get(self):
        return self.model


def config(_):
    return Config.model, Config.depth, hasattr(Config, "extra")


print(farm.submit(config, 0).result())
Config.model = 2
Config.extra = 1
print(farm.submit(config, 0).result())
del Config.extra
print(farm.submit(config, 0).result())
print(farm.submit(lambda c: c.get(), Config()).result())


def version(x):
    return type(x).__name__, x.value(), isinstance(x, Model)


class Model:
    def value(self):
        return 1


queued = [farm.submit(version, Model())]
old = Model()


class Model:
    def value(self):
        return 2


queued.append(farm.submit(version, Model()))
queued.append(farm.submit(version, old))
print([future.result() for future in queued])


class Child(Model):
    def value(self):
        return 10 * super().value()


print(farm.submit(version, Child()).result())


class Model:
    def value(self):
        return 3


print(farm.submit(version, Child()).result(), farm.submit(version, Model()).result())


def factory(n):
    class Local:
        step = n

        def __init__(self, start):
            self.start = start

        def next(self):
            return type(self)(self.start + self.step)

    return Local


def advance(x):
    return x.next()


A, B = factory(1), factory(5)
a, b = farm.map(advance, [A(0), B(0)])
print(type(a) is A, type(b) is B, a.start, b.start)
A.step = 100
print(farm.submit(advance, a).result().start, a.step, type(farm.submit(advance, b).result()) is B)
hidden = factory(7)


def inside(x):
    return hidden(x).next()


print(type(farm.submit(inside, 1).result()) is hidden, farm.submit(inside, 1).result().start)
for step in range(3):

    @task
    def stepped(x):
        return x + step

    print(list(stepped.map(range(3))))

text = "x"
for text in ("y", "z"):
    print(list(farm.map(lambda n: text * n, range(3))))


@dataclasses.dataclass
class Row:
    a: int = 0

    def up(self):
        return Row(self.a + 1)


rows = list(farm.map(lambda row: row.up(), [Row(1), Row(2)]))
print(rows, rows[0] == Row(2), isinstance(rows[0], Row))
Point = dataclasses.make_dataclass("Point", ["x", "y"])
print(farm.submit(lambda p: Point(p.y, p.x), Point(1, 2)).result() == Point(2, 1))
Level = enum.Enum("Level", "LOW HIGH")
print(
    farm.submit(lambda level: Level.HIGH if level is Level.LOW else None, Level.LOW).result() is Level.HIGH
)
Alias = Row
print(farm.submit(lambda: Alias is Row and Alias(3)).result())


class Base:
    subclasses = []

    def __init_subclass__(cls):
        Base.subclasses.append(cls)


class First(Base):
    pass


def found():
    return [cls.__name__ for cls in Base.subclasses], Base.subclasses[0] is First


print(farm.submit(found).result())


class Second(Base):
    pass


print(farm.submit(found).result(), len(Base.subclasses))


class Tree:
    def __init__(self, *children):
        self.children = children
        self.parent = None
        for child in children:
            child.parent = self

    def size(self):
        return 1 + sum(child.size() for child in self.children)


tree = farm.submit(lambda tree: tree, Tree(Tree(), Tree(Tree()))).result()
print(tree.size(), tree.children[1].parent is tree)
data = pickle.dumps(Tree())
print(
    farm.submit(pickle.loads, data).exception() is None,
    farm.submit(lambda d: pickle.loads(d).size(), data).result(),
)


class WithState:
    def __getstate__(self):
        return {"kept": self.kept}

    def __setstate__(self, state):
        self.__dict__.update(state, restored=CONSTANT)


CONSTANT = 17
one = WithState()
one.kept, one.dropped = 1, 2
print(vars(farm.submit(lambda one: one, one).result()))


class Reduced:
    def __init__(self, n):
        self.n = n

    def __reduce__(self):
        return build, (self.n,)


def build(n):
    return Reduced(n + 1)


print(farm.submit(lambda r: r.n, Reduced(1)).result())
partial = functools.partial(version)
print(farm.submit(partial, Model()).result())
farm.shutdown()
