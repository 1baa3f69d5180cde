"""What the environment says about the launcher."""

import pytest

from taskfarm.environment import claimed_rank, claimed_size


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
