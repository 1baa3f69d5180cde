"""Isolated tasks see the same as plain ones."""

import enum
import functools

from taskfarm import Farm, task

FACTOR = 3


class Kind(enum.Enum):
    A = 1


class Model:
    scale = 2

    def __init__(self, n):
        self.n = n


@functools.cache
def helper(x):
    return FACTOR * x


@task(isolate=True)
def run(model, kind):
    return Model(helper(model.n) * Model.scale), kind is Kind.A, isinstance(model, Model), __name__


@task(timeout=60)
def crash(n):
    import os

    if n == 1:
        os._exit(3)
    return helper(n)


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.calls


if __name__ == "__main__":
    with Farm() as farm:
        model, *rest = run.submit(Model(1), Kind.A).result()
        print(type(model) is Model, model.n, rest)
        FACTOR = 4
        Model.scale = 3
        helper.cache_clear()
        print(
            run.submit(Model(1), Kind.A).result()[0].n,
            crash.options(on_error="return").submit(1).result().__class__,
        )
        print(crash.submit(2).result(), run.submit(Model(5), Kind.A).result()[0].n)
        counter = task(Counter().__call__).options(isolate=True)
        print([counter.submit().result() for _ in range(3)])
