"""Arrays smaller than 32 KiB may change once they are pickled, wherever they travel."""

from typing import Any

import numpy as np
import pytest

from taskfarm.protocol.messages import IN_BAND
from taskfarm.protocol.serialize import COPIED, dumps, loads, nbytes


@pytest.mark.parametrize("size", [COPIED - 16, COPIED, IN_BAND - 16, IN_BAND, 2 * IN_BAND - 32])
@pytest.mark.parametrize(
    "make", [lambda array: array.view(), np.asfortranarray, lambda array: array[:, ::2]]
)
@pytest.mark.parametrize("writeable", [True, False])
def test_what_arrives_is_what_was_pickled(size: int, make: Any, writeable: bool) -> None:
    whole = np.arange(float(size // 8)).reshape(2, -1)
    array = make(whole)
    array.flags.writeable = writeable
    before = array.copy(order="A")
    blob = dumps({"array": array})
    # numpy itself copies what is not contiguous.
    travels_beside = array.flags.forc and array.nbytes >= COPIED
    assert len(blob.buffers) == travels_beside
    assert nbytes(blob) < array.nbytes + 300
    if array.nbytes < IN_BAND:
        whole[:] = -1
        if writeable:
            array[:] = -1
    found = loads(blob)["array"]
    assert np.array_equal(found, before)
    if array.flags.forc:
        assert found.flags.f_contiguous == before.flags.f_contiguous
    if travels_beside:
        assert found.flags.writeable == writeable
