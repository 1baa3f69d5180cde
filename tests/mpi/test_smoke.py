"""Every result, on any number of ranks, under both MPIs."""

from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]

JOB = """
from taskfarm import task

@task
def square(x):
    return x * x

print(sum(square.map(range(1000))), square.submit(7).result())
"""


@pytest.mark.parametrize("ranks", [1, 2, 4, 16])
def test_map_and_submit(run: Run, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMPI_MCA_btl")  # with all components of Open MPI, as at a user's
    code, out, err = run(JOB, ranks)
    assert code == 0, err
    assert out.split() == ["332833500", "49"]
