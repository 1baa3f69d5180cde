"""Objects that answer to every name, or to none, as callables, arguments and results."""

import functools
import pickle
from unittest import mock

from taskfarm import Farm, task


class Answers:
    """Has every attribute."""

    def __init__(self, answer):
        self.__dict__["answer"] = answer

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__") and "taskfarm" not in name:
            raise AttributeError(name)
        return self.answer

    def __call__(self, x):
        return self.answer, x


class Refuses:
    """Raises for every attribute that it does not have."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError(f"no {name}")

    def __call__(self, x):
        return "refuses", x


class Weird:
    __hash__ = None

    def __eq__(self, other):
        raise TypeError("not comparable")

    def __bool__(self):
        raise TypeError("neither true nor false")

    def __len__(self):
        raise TypeError("no length")

    def __call__(self, x):
        return "weird", x


class Pretends:
    @property
    def __class__(self):
        raise RuntimeError("no class")

    def __call__(self, x):
        return "pretends", x

    def __reduce_ex__(self, protocol):
        return Pretends, ()


class Proxy:
    def __init__(self, inner):
        object.__setattr__(self, "_inner", inner)

    @property
    def __class__(self):
        return type(self._inner)

    def __getattr__(self, name):
        if name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, x):
        return "proxy", x

    def __reduce__(self):
        return Proxy, (self._inner,)


def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return "logged", function(*args)

    return wrapper


def timed(**options):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return options, function(*args)

        return wrapper

    return decorate


@logged
@timed(a=1)
@task(retries=2)
def plus(x):
    return x + 1


@task
@logged
def minus(x):
    return x - 1


class Model:
    def __init__(self, n):
        self.n = n

    @task
    def fit(self, x):
        return self.n, x

    @staticmethod
    @task
    def static(x):
        return "static", x

    @classmethod
    def made(cls, x):
        return cls.__name__, x


class Sampler:
    def __init__(self, function):
        self.function = function


class CallableClass(type):
    def __call__(cls, x):
        return cls.__name__, x


class Meta(metaclass=CallableClass):
    pass


def same(x):
    return x


def kind(x):
    return type(x).__name__


if __name__ == "__main__":
    with Farm() as farm:
        for one in (Answers(3), Answers(print), Refuses(), Weird(), Pretends(), Proxy(same)):
            print(farm.submit(one, 1).result(), list(farm.map(one, [2])), farm.submit(kind, one).result())
            print(
                type(farm.submit(same, one).result()) is type(one),
                [type(x) is type(one) for x in farm.map(same, [one])],
            )
        print(plus(1), list(farm.map(plus, [1])), farm.submit(plus, 1).result())
        print(minus(1), list(minus.map([1])), farm.submit(minus, 1).result(), list(farm.map(minus, [1])))
        model = Model(4)
        print(
            model.fit(1),
            model.fit.submit(2).result(),
            list(model.fit.map([3])),
            farm.submit(model.fit, 4).result(),
        )
        print(Model.static(1), farm.submit(Model.static, 1).result(), farm.submit(Model.made, 1).result())
        print(farm.submit(Model, 3).result().n, farm.submit(Meta, 3).result())
        with mock.patch.object(Model, "made", autospec=True, return_value="mocked"):
            print(Model.made(1))
        sampler = pickle.loads(pickle.dumps(Sampler(minus)))
        print(
            sampler.function is minus,
            sampler.function(3),
            farm.submit(lambda s: s.function(1), sampler).result(),
        )
        other = minus.options(retries=3, name="other")
        again = pickle.loads(pickle.dumps(other))
        print(again.name, again(1), list(again.map([1])), again.__taskfarm_policy__)
        print(
            farm.submit(functools.partial(plus, 5)).result(),
            farm.submit(functools.partial(minus), 5).result(),
        )
        print(
            farm.submit(lambda: plus(2)).result(), farm.submit(lambda: [minus(x) for x in (1, 2)]).result()
        )
        print(farm.submit(model.__getattribute__, "n").result(), farm.submit([1, 2].count, 1).result())
