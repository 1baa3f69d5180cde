"""Large data of isolated tasks: what a worker passes on to its child, and back, as it came."""

import numpy
import pytest

from taskfarm import task, testing


@task(isolate=True)
def echo(value: object) -> object:
    return value


@pytest.mark.parametrize(
    "value",
    ["x" * 100_000, b"x" * 1_000_000, [b"y" * 50_000, "z" * 50_000], numpy.arange(100_000)],
    ids=["text", "bytes", "both", "array"],
)
def test_large_arguments_and_results(value: object) -> None:
    with testing.farm(workers=1) as farm:
        assert numpy.array_equal(farm.submit(echo, value).result(), value)  # type: ignore[arg-type]
        for found in farm.map(echo, [value] * 3):
            assert numpy.array_equal(found, value)  # type: ignore[arg-type]
