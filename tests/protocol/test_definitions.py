"""What names in the job's file stand for, and which of them must be there."""

import sys
from types import ModuleType
from typing import Any

import pytest

from taskfarm.errors import CallNotPicklable
from taskfarm.protocol.serialize import dumps

JOB = """
conn = (x for x in range(3))

def may_use():
    def inner():
        return eval("conn")
    return inner

def must_use():
    def inner():
        eval("1")
        return conn
    return inner
"""


def test_what_may_be_left_out_for_one_function_is_still_required_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main: Any = ModuleType("__main__")
    exec(JOB, vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    dumps(main.may_use())
    with pytest.raises(CallNotPicklable, match="conn"):
        dumps(main.must_use())
