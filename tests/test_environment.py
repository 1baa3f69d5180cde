"""What the environment says about the launcher."""

import pytest

from taskfarm.environment import claimed_rank, claimed_size, start_programs_here


@pytest.mark.parametrize(
    ("environ", "size", "rank"),
    [
        ({}, None, 0),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, 4, 2),
        ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}, 3, 0),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "7"}, 8, 7),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None, 0),
        ({"PMI_SIZE": "many"}, None, 0),
    ],
)
def test_what_the_launcher_claims(environ: dict[str, str], size: int | None, rank: int) -> None:
    assert claimed_size(environ) == size
    assert claimed_rank(environ) == rank


def test_launchers_of_tasks_stay_on_their_host_in_batch_jobs() -> None:
    environ = {"PATH": "/bin"}
    start_programs_here(environ)
    assert environ == {"PATH": "/bin"}
    environ = {"SLURM_JOB_ID": "1", "HYDRA_LAUNCHER": "ssh"}
    start_programs_here(environ)
    assert environ["HYDRA_LAUNCHER"] == "ssh"
    assert environ["HYDRA_RMK"] == "user"
    assert "slurm" in environ["PRTE_MCA_ras"]
