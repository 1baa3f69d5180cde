"""Which cores and devices a worker uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.environment import claimed_local_size
from taskfarm.launch import placement


@pytest.mark.parametrize(
    ("environ", "ranks"),
    [
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_SIZE": "12"}, 4),
        ({"MPI_LOCALNRANKS": "3", "PMI_SIZE": "9"}, 3),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3)", "SLURM_STEP_NUM_TASKS": "6"}, 2),
        ({"SLURM_TASKS_PER_NODE": "4,3(x2)"}, 4),
        ({"PMI_SIZE": "9"}, 9),
        ({}, 1),
    ],
)
def test_ranks_on_this_host(environ: dict[str, str], ranks: int) -> None:
    assert claimed_local_size(environ) == ranks


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "cores", lambda: 16)
    for neighbours, threads in ((1, "16"), (5, "3"), (64, "1")):
        environ: dict[str, str] = {}
        placement.limit_threads(environ, None, neighbours)
        assert environ == dict.fromkeys(placement.THREADS, threads)


def test_who_has_said_how_many_gets_them() -> None:
    environ = {"OMP_NUM_THREADS": "7"}
    placement.limit_threads(environ, None, 4)
    assert environ == {"OMP_NUM_THREADS": "7"}
    placement.limit_threads(environ, 2, 4)
    assert set(environ.values()) == {"2"}


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=40), st.integers(1, 8))
def test_each_worker_of_a_host_has_a_device(hosts: list[str], devices: int) -> None:
    chosen: dict[str, list[str]] = {}
    for rank in range(1, len(hosts)):
        environ: dict[str, str] = {}
        placement.choose_device(environ, placement.index_among(hosts, rank), devices)
        assert environ["CUDA_VISIBLE_DEVICES"] == environ["ROCR_VISIBLE_DEVICES"]
        chosen.setdefault(hosts[rank], []).append(environ["CUDA_VISIBLE_DEVICES"])
    for names in chosen.values():
        assert names == [str(index % devices) for index in range(len(names))]


def test_devices_of_the_batch_system_are_kept_to() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,GPU-6"}
    placement.choose_device(environ, 3, 2)
    assert environ == {"CUDA_VISIBLE_DEVICES": "GPU-6", "ROCR_VISIBLE_DEVICES": "1"}
    assert placement.seen_devices(environ) == "GPU-6"
