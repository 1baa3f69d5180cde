"""Right and wrong uses of the public names. `test_types` has type checkers look at them; nothing runs them.

``reveal_type`` states the type in the comment of its line; a line that ends with ``# wrong`` is an error.
"""

# ruff: noqa: F821

from collections.abc import Iterator

from taskfarm import Farm, Future, as_completed, task


@task
def area(width: float, height: float = 1.0) -> float:
    return width * height


@task(retries=2, timeout=60, memory="2GB", chunksize=10)
def word(number: int) -> str:
    return str(number)


@task(on_error="return")
def risky(number: int) -> str:
    return str(number)


@task(on_error=lambda error: 0.5, retries=1)
def replaced(number: int) -> str:
    return str(number)


class Model:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    @task
    def times(self, number: int) -> float:
        return self.scale * number

    @task(on_error="return")
    def risky_times(self, number: int) -> float:
        return self.scale * number


def right() -> None:
    reveal_type(area(1.0, 2.0))  # float
    reveal_type(area.submit(1.0).result())  # float
    reveal_type(list(area.map([1.0], [2.0], unordered=True)))  # list[float]
    reveal_type(list(area.map([1.0], height=2.0)))  # list[float]
    reveal_type(list(area.starmap([(1.0, 2.0)], chunksize=3)))  # list[float]
    reveal_type(list(area.map([1.0], with_arguments=True)))  # list[tuple[Any, float]]
    reveal_type(next(word.options(retries=3).map(range(3))))  # str
    reveal_type(risky(1))  # str
    reveal_type(next(risky.map([1])))  # str | BaseException
    reveal_type(next(risky.starmap([(1,)], with_arguments=True)))  # tuple[Any, str | BaseException]
    reveal_type(risky.submit(1).result())  # str | BaseException
    reveal_type(next(replaced.map([1])))  # str | float
    reveal_type(next(area.options(on_error="return").map([1.0])))  # float | BaseException
    reveal_type(Model(2.0).times(3))  # float
    reveal_type(Model(2.0).times.submit(3).result())  # float
    reveal_type(next(Model(2.0).times.map([3])))  # float
    reveal_type(next(Model(2.0).risky_times.map([3])))  # float | BaseException
    with Farm(seed=1) as farm:
        reveal_type(farm.submit(area, 1.0).result())  # float
        reveal_type(next(farm.map(word, [1, 2], chunksize=2)))  # str
        reveal_type(next(farm.map(word, [1, 2], with_arguments=True)))  # tuple[Any, str]
        reveal_type(next(farm.starmap(word, [(1,)])))  # str
        reveal_type(farm.submit(risky, 1).result())  # str | BaseException
        reveal_type(next(farm.map(risky, [1])))  # str | BaseException
        reveal_type(next(farm.map(replaced, [1], with_arguments=True)))  # tuple[Any, str | float]
        reveal_type(next(farm.starmap(replaced, [(1,)])))  # str | float
    futures: list[Future[str]] = [word.submit(1)]
    for future in as_completed(futures):
        reveal_type(future.result())  # str
    results: Iterator[float] = area.map([1.0], [2.0])
    print(results)


def misspelt(farm: Farm) -> None:
    task(retrys=2)  # wrong
    task(timeout="60")  # wrong
    task(on_error="retrun")  # wrong
    word.options(chunksiz=3)  # wrong
    word.options(memory=1.5)  # wrong
    area.map([1.0], chunksize="3")  # wrong
    area.map([1.0], unordered=3)  # wrong
    area.map(3)  # wrong
    area.submit("a")  # wrong
    area.submit(1.0, depth=3)  # wrong
    area(1.0, 2.0, 3.0)  # wrong
    Model(2.0).times(3, 4)  # wrong
    Model(2.0).times.submit("a")  # wrong
    farm.map(word, [1], chunksiz=3)  # wrong
    farm.submit(word, "a")  # wrong
    Farm(seed="a")  # wrong
    Farm(initialiser=print)  # wrong
    length: int = word.submit(1).result()  # wrong
    texts: Iterator[str] = risky.map([1])  # wrong
    print(length, texts)
