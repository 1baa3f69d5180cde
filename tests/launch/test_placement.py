"""Which cores and devices a worker uses."""

from pathlib import Path

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


@pytest.mark.parametrize(
    ("mine", "others", "neighbours", "limit", "threads"),
    [
        (16, [], 1, None, 16),
        (16, [], 5, None, 3),
        (16, [], 64, None, 1),
        (16, [range(16)] * 3, 4, None, 4),
        (4, [range(4, 8), range(8, 12), range(12, 16)], 4, None, 4),
        (8, [range(8), range(8, 16), range(8, 16)], 4, None, 4),
        (4, [range(2, 6), range(2, 6)], 3, None, 2),
        (16, [], 2, 6.0, 3),
        (4, [range(4, 8)], 2, 2.5, 1),
        (16, [range(16)] * 30, 4, None, 4),
    ],
)
def test_ranks_share_the_cores_to_which_several_are_bound(
    mine: int, others: list[range], neighbours: int, limit: float | None, threads: int
) -> None:
    found = placement.core_share(set(range(mine)), [set(other) for other in others], neighbours, limit)
    assert found == threads


def test_quota_of_the_container(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"

    def quota(text: str) -> float | None:
        membership.write_text(text)
        return placement.quota(str(tmp_path), str(membership))

    assert quota("0::/\n") is None
    for path, content in (
        ("a/cpu.max", "300000 100000\n"),
        ("a/b/cpu.max", "max 100000\n"),
        ("cpu.max", "max 100000\n"),
        ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("cpu,cpuacct/job/cpu.cfs_quota_us", "150000\n"),
        ("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert quota("0::/a/b\n") == 3
    assert quota("0::/\n") is None
    assert quota("4:cpu,cpuacct:/job\n1:name=systemd:/\n") == 1.5
    assert quota("4:cpu,cpuacct:/\n") is None
    # In a container the path is that of the host, and the group itself is mounted at the root.
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert quota("0::/docker/0123\n") == 2.5
    assert placement.quota(str(tmp_path), str(tmp_path / "none")) is None


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


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "-1,0"])
def test_no_devices_means_none(value: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": value, "ROCR_VISIBLE_DEVICES": ""}
    placement.choose_device(environ, 1, 4)
    assert environ == {"CUDA_VISIBLE_DEVICES": value, "ROCR_VISIBLE_DEVICES": ""}
    assert placement.seen_devices(environ) == "none"


def test_devices_after_an_invalid_one_do_not_count() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0, MIG-1,-1,2"}
    placement.choose_device(environ, 3, 4)
    assert environ["CUDA_VISIBLE_DEVICES"] == "MIG-1"
