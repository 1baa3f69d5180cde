"""Programs whose results change with something that a function uses: its digest changes, too.

Each program also runs in another process with another hash seed, from another folder, with other line
numbers and comments: there its digest is the same.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest


class Program(NamedTuple):
    """A program with a function `f`, and a change of it or of the module beside it."""

    name: str
    code: str
    old: str
    new: str
    beside: str = ""
    unknown: str = ""


def of_value(name: str, imports: str, old: str, new: str) -> list[Program]:
    """A value as a global, in a closure, as a default, in a container and as an attribute."""
    begin = f"{imports}\n" if imports else ""
    ways = {
        "global": f"{begin}V = {old}\ndef f(x): return x, V",
        "closure": f"{begin}def make(v):\n    def f(x): return x, v\n    return f\nf = make({old})",
        "default": f"{begin}def f(x, v={old}): return x, v",
        "keyword default": f"{begin}def f(x, *, v={old}): return x, v",
        "partial": f"{begin}import functools\ndef g(v, x): return x, v\nf = functools.partial(g, {old})",
        "in a container": f"{begin}V = {{'a': [({old},)]}}\ndef f(x): return x, V['a']",
        "attribute": f"{begin}class A: pass\nV = A()\nV.inner = {old}\ndef f(x): return x, V.inner",
        "slot": (
            f"{begin}class A:\n    __slots__ = ('inner',)\n"
            f"V = A()\nV.inner = {old}\ndef f(x): return x, V.inner"
        ),
        "class attribute": f"{begin}class A:\n    class B:\n        v = {old}\ndef f(x): return A.B.v",
        "function attribute": f"{begin}def f(x): return f.v\nf.v = {old}",
        "bound method": (
            f"{begin}class A:\n    def __init__(self, v): self.v = v\n    def run(self, x): return self.v\n"
            f"f = A({old}).run"
        ),
    }
    return [Program(f"{name}, {way}", code, old, new) for way, code in ways.items()]


VALUES = [
    (
        "dataclass",
        "from dataclasses import dataclass\n@dataclass\nclass D:\n    a: int\n    b: float = 2.0",
        "D(1)",
        "D(2)",
    ),
    (
        "frozen dataclass with slots",
        "from dataclasses import dataclass\n@dataclass(frozen=True, slots=True)\nclass D:\n    a: int",
        "D(1)",
        "D(2)",
    ),
    ("Namespace", "from argparse import Namespace", "Namespace(a=1)", "Namespace(a=2)"),
    ("SimpleNamespace", "from types import SimpleNamespace as S", "S(a=1)", "S(a=2)"),
    ("Fraction", "from fractions import Fraction", "Fraction(1, 3)", "Fraction(1, 4)"),
    ("Decimal", "from decimal import Decimal", "Decimal('1.0')", "Decimal('1.00')"),
    ("date", "from datetime import date", "date(2024, 1, 1)", "date(2024, 1, 2)"),
    (
        "time zone",
        "from datetime import datetime\nfrom zoneinfo import ZoneInfo",
        "datetime(2024, 1, 1, tzinfo=ZoneInfo('UTC'))",
        "datetime(2024, 1, 1)",
    ),
    ("Path", "from pathlib import Path", "Path('a/b')", "Path('a/c')"),
    ("regex", "import re", "re.compile('a+')", "re.compile('a+', re.I)"),
    ("bytearray", "", "bytearray(b'ab')", "bytearray(b'ac')"),
    ("deque", "from collections import deque", "deque([1, 2])", "deque([1, 2], maxlen=2)"),
    ("array", "from array import array", "array('d', [1, 2])", "array('f', [1, 2])"),
    ("Counter", "from collections import Counter", "Counter('aab')", "Counter('abb')"),
    ("defaultdict", "from collections import defaultdict as D", "D(int, a=1)", "D(str, a=1)"),
    ("set", "", "{'a', 'b', 'c', ('d', frozenset('efg'))}", "{'a', 'b', 'c', ('d', frozenset('efh'))}"),
    ("order of a dict", "", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
    ("namedtuple", "from collections import namedtuple\nP = namedtuple('P', 'x y')", "P(1, 2)", "P(1, 3)"),
    (
        "enumeration",
        "from enum import Enum\nclass E(Enum):\n    A = 1\n    B = 2",
        "E.A",
        "E.B",
    ),
    ("NumPy array", "import numpy as np", "np.arange(6.0)", "np.arange(6.0).reshape(2, 3)"),
    ("masked array", "import numpy as np", "np.ma.array([1, 2], mask=[0, 1])", "np.ma.array([1, 2])"),
    (
        "record array",
        "import numpy as np\nT = np.dtype([('a', 'u1'), ('b', 'f8')], align=True)",
        "np.array([(1, 2.0)], T)",
        "np.array([(1, 3.0)], T)",
    ),
    ("dtype", "import numpy as np", "np.dtype('f4')", "np.dtype('f8')"),
    ("complex array", "import numpy as np", "np.array([1, 2j])", "np.array([1, 3j])"),
    ("long double", "import numpy as np", "np.longdouble(1) / 3", "np.longdouble(1) / 7"),
    ("dates", "import numpy as np", "np.array(['2024'], 'M8[D]')", "np.array(['2025'], 'M8[D]')"),
    ("generator", "import numpy as np", "np.random.default_rng(1)", "np.random.default_rng(2)"),
    ("polynomial", "from numpy.polynomial import Polynomial as P", "P([1, 2])", "P([1])"),
    ("Random", "import random", "random.Random(1)", "random.Random(2)"),
    ("type hints", "import typing", "typing.Optional[int]", "typing.Union[int, str]"),
    ("range", "", "range(0, 10, 2)", "range(0, 10, 3)"),
    ("exception", "", "ValueError('a')", "ValueError('b')"),
    ("ufunc", "import numpy as np", "np.sin", "np.cos"),
    ("builtin function", "import math", "math.sin", "math.cos"),
    ("struct", "import struct", "struct.Struct('<d')", "struct.Struct('<f')"),
    ("operator", "import operator", "operator.itemgetter(1)", "operator.itemgetter(2)"),
    ("user's list", "class L(list): pass", "L([1, 2])", "L([1, 3])"),
    ("user's set", "class S(set): pass", "S('abcdef')", "S('abcdeg')"),
    ("user's float", "class F(float): pass", "F(1)", "F(2)"),
    ("with a lock", "import queue\ndef q(v): q = queue.Queue(); q.put(v); return q", "q(1)", "q(2)"),
    ("weak", "import weakref\nclass A: x = 0\nKEEP = {1: A(), 2: A()}\nKEEP[2].x = 1",
     "weakref.ref(KEEP[1])", "weakref.ref(KEEP[2])"),
    ("view of keys", "", "{'a': 1}.keys()", "{'b': 1}.keys()"),
    ("view of a dict", "from types import *", "MappingProxyType({1: 2})", "MappingProxyType({1: 3})"),
]  # fmt: skip

CODE = [
    Program("method", "class A:\n    def run(self): return 1\nV = A()\ndef f(): return V.run()", "1", "2"),
    Program(
        "method of a method",
        "class A:\n    def run(self): return self.inner()\n    def inner(self): return g()\n"
        "def g(): return 1\nV = A()\ndef f(): return V.run()",
        "return 1",
        "return 2",
    ),
    Program(
        "callable object",
        "class A:\n    def __init__(self): self.v = 1\n    def __call__(self): return self.v\nf = A()",
        "v = 1",
        "v = 2",
    ),
    Program("base", "class A:\n    v = 1\nclass B(A): pass\ndef f(): return B().v", "v = 1", "v = 2"),
    Program(
        "property",
        "class A:\n    @property\n    def v(self): return 1\nV = A()\ndef f(): return V.v",
        "return 1",
        "return 2",
    ),
    Program(
        "cached property, static and class methods",
        "import functools\nclass A:\n    @functools.cached_property\n    def v(self): return 1\n"
        "    @staticmethod\n    def s(): return 3\n    @classmethod\n    def c(cls): return cls.s()\n"
        "def f(): return A().v, A.c()",
        "return 3",
        "return 4",
    ),
    Program(
        "metaclass",
        "class M(type):\n    def size(cls): return 1\nclass A(metaclass=M): pass\ndef f(): return A.size()",
        "return 1",
        "return 2",
    ),
    Program(
        "decorator",
        "import functools\ndef twice(g):\n    @functools.wraps(g)\n    def w(x): return 2 * g(x)\n"
        "    return w\n@twice\ndef f(x): return x",
        "2 * g",
        "3 * g",
    ),
    Program(
        "cache",
        "import functools\n@functools.cache\ndef g(x): return x + 1\ndef f(x): return g(x)",
        "x + 1",
        "x + 2",
    ),
    Program(
        "singledispatch",
        "import functools\n@functools.singledispatch\ndef g(x): return 0\n@g.register\n"
        "def _(x: int): return 1\ndef f(x): return g(x)",
        "return 1",
        "return 2",
    ),
    Program(
        "singledispatchmethod",
        "import functools\nclass A:\n    @functools.singledispatchmethod\n    def g(self, x): return 0\n"
        "    @g.register\n    def _(self, x: int): return 1\ndef f(x): return A().g(x)",
        "return 1",
        "return 2",
    ),
    Program(
        "context manager",
        "import contextlib\n@contextlib.contextmanager\ndef g():\n    yield 1\n"
        "def f():\n    with g() as v: return v",
        "yield 1",
        "yield 2",
    ),
    Program(
        "wrapped partial",
        "import functools\ndef g(a, x): return a * x\n"
        "f = functools.update_wrapper(functools.partial(g, 3), g)",
        "g, 3",
        "g, 4",
    ),
    Program("vectorize", "import numpy as np\n@np.vectorize\ndef f(x): return x + 1", "x + 1", "x + 2"),
    Program("lambda in a dict", "T = {'a': lambda x: x + 1}\ndef f(x): return T['a'](x)", "x + 1", "x + 2"),
    Program("comprehension", "N = 3\ndef f(x): return [lambda: N for _ in x]", "N = 3", "N = 4"),
    Program("generator expression", "N = 3\ndef f(x): return sum(N for _ in x)", "N = 3", "N = 4"),
    Program("class in a function", "N = 3\ndef f():\n    class A: v = N\n    return A.v", "N = 3", "N = 4"),
    Program(
        "enumeration's value",
        "from enum import Enum\nclass E(Enum):\n    A = 1\nV = E.A\ndef f(): return V.value",
        "A = 1",
        "A = 2",
    ),
    Program("globals by text", "N = 3\ndef f(): return globals()['N']", "N = 3", "N = 4"),
    Program("eval", "N = 3\ndef f(x): return eval('x * N')", "N = 3", "N = 4"),
    Program(
        "deep in a list",
        "V = 1\nfor _ in range(5000): V = [V, None, {1}]\ndef f(): return V",
        "V = 1",
        "V = 2",
    ),
    Program(
        "a ring",
        "class N: pass\nA, B, C = N(), N(), N()\nA.next, B.next, C.next = B, C, A\nA.v = 1\n"
        "def f(): return A",
        "C.next = B, C, A",
        "C.next = B, C, B",
    ),
    Program(
        "typed dict and protocol",
        "import typing\nclass P(typing.Protocol):\n    v: int = 1\nclass A(P): pass\ndef f(): return A().v",
        "int = 1",
        "int = 2",
    ),
    Program("task", "from taskfarm import task\n@task\ndef f(x): return x + 1", "x + 1", "x + 2"),
    Program("helper's default", "def g(x=1): return x\ndef f(): return g()", "x=1", "x=2"),
    Program(
        "object with a lock",
        "import threading\nclass A:\n    def __init__(self, v): self.lock, self.v = threading.Lock(), v\n"
        "V = A(1)\ndef f(): return V.v",
        "A(1)",
        "A(2)",
    ),
    Program(
        "state of its own",
        "class A:\n    def __init__(self, v): self.v = v\n    def __getstate__(self): return (self.v,)\n"
        "    def __setstate__(self, s): self.v = s[0]\nV = A(1)\ndef f(): return V.v",
        "A(1)",
        "A(2)",
    ),
    Program(
        "copyreg",
        "import copyreg\nclass A:\n    def __init__(self, v): self.v = v\n"
        "copyreg.pickle(A, lambda a: (A, (a.v,)))\nV = A(1)\ndef f(): return V.v",
        "A(1)",
        "A(2)",
    ),
    Program(
        "answers to every name",
        "class A:\n    def __init__(self, v): self.__dict__['v'] = v\n"
        "    def __getattr__(self, name):\n"
        "        if name.startswith('__'): raise AttributeError(name)\n        return self\n"
        "    def __call__(self, *args): return self\nV = A(1)\ndef f(): return V.v",
        "A(1)",
        "A(2)",
    ),
]

MODULE = "import re\nSCALE = 3\ndef g(x): return h(x)\ndef h(x): return x * SCALE\nclass A:\n    v = 5\n"
BESIDE = [
    Program(f"{name}: {changed}", code, old, new, MODULE)
    for name, code in {
        "imported": "import beside\ndef f(x): return beside.g(x), beside.A.v",
        "names imported": "from beside import g, A\ndef f(x): return g(x), A.v",
        "imported inside": "def f(x):\n    import beside\n    return beside.g(x), beside.A.v",
        "imported inside with another name": "def f(x):\n    import beside as b\n    return b.g(x), b.A.v",
        "names imported inside": "def f(x):\n    from beside import g, A\n    return g(x), A.v",
        "imported in a helper": "def k():\n    from beside import g\n    return g(1)\ndef f(): return k()",
        "imported by text": "import importlib\ndef f(x): return importlib.import_module('beside').g(x)",
        "used as a value": "import beside\ndef f(x): return getattr(beside, 'g')(x)",
        "with an alias": "import beside\ndef f(x):\n    m = beside\n    return m.g(x)",
        "all of it imported": "from beside import *\ndef f(x): return g(x), A.v",
    }.items()
    for changed, old, new in [
        ("a constant", "SCALE = 3", "SCALE = 4"),
        ("a function", "x * SCALE", "x + SCALE"),
    ]
]

SAME = [
    Program(name, f"{begin}\nV = {value}\ndef f(): return V", "", "")
    for name, begin, value in [
        ("lock", "import threading", "threading.Lock(), threading.RLock(), threading.Event()"),
        ("threads' own", "import threading", "threading.local()"),
        ("sentinel", "", "[object()]"),
        ("generators of libraries", "import random, numpy.random as r", "[random.gauss, r.normal, r.rand]"),
        ("more of them", "import random", "[random.random, random.choice, random.seed]"),
        ("streams", "import sys", "[sys.stdout, sys.stderr.write, print]"),
        ("logger", "import logging", "[logging.getLogger('a'), logging.getLogger().info]"),
        ("modules", "import math, numpy, scipy.special", "[math, numpy, scipy.special, numpy.linalg]"),
        ("C library", "import ctypes", "ctypes.CDLL(None)"),
        ("cache in use", "import functools\n@functools.cache\ndef g(x): return x\ng(hash('a'))", "g"),
        ("dict of sets", "", "{'a': {'x', 'y', 'z'}, ('b',): frozenset('xyz')}"),
        ("set of objects", "from fractions import Fraction as F", "{F(1, n) for n in range(2, 40)}"),
        ("set of functions", "def g(): return h()\ndef h(): return g()", "{g, h, len, int}"),
        ("equal strings", "", "['ab', ''.join(['a', 'b']), {'ab': 'ab'}]"),
        ("context variable", "import contextvars", "contextvars.ContextVar('v')"),
        ("partial method", "import functools\nclass A:\n    def g(self, x): return x\n"
         "    h = functools.partialmethod(g, 1)", "A().h"),
        ("weak dicts", "import weakref\nclass A: pass\nK = A()", "weakref.WeakKeyDictionary({K: 1})"),
        ("type variables", "import typing\nT = typing.TypeVar('T')\nclass A(typing.Generic[T]): pass",
         "[T, A[int], A, typing.Any, list[int], int | str, typing.Callable[[int], str]]"),
        ("abstract", "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def g(self): ...", "A"),
        ("environment", "import os", "[os.environ.get, os.getpid, os.sep]"),
        ("pandas", "import numpy as np\ntry: import pandas as pd\nexcept ImportError: pd = None",
         "pd and pd.DataFrame({'a': [1, 2]})"),
    ]
]  # fmt: skip

UNKNOWN = [
    Program(name, f"{begin}\nV = {value}\ndef f(): return V", "", "", "", unknown)
    for name, begin, value, unknown in [
        ("generator", "", "{'a': (x for x in [1])}", "V (builtins.generator)"),
        ("open file", "import os", "open(os.devnull)", "V (_io.TextIOWrapper)"),
        ("connection", "import sqlite3", "sqlite3.connect(':memory:')", "V (sqlite3.Connection)"),
        ("as an attribute", "class A: pass\nA.g = (x for x in [1])", "A()", "V.g (builtins.generator)"),
        ("ufunc", "import numpy", "numpy.frompyfunc(lambda x: x, 1, 1)", "V (numpy.ufunc)"),
        ("raises", "class A:\n    def __reduce_ex__(self, n): raise SystemExit\n    __slots__ = ()\n"
         "class B(A, int): pass", "B()", "V (__main__.B)"),
        ("odd class", "class M(type):\n    __module__ = property(lambda cls: 1 / 0)\n"
         "class A(metaclass=M): pass", "(x for x in [A()])", "V (builtins.generator)"),
        ("odd attributes", "class A:\n    def __init__(self): self.a = (x for x in [1])\n"
         "    __dict__ = property(lambda self: 1 / 0)", "A()", "V (__main__.A)"),
    ]
]  # fmt: skip

PROGRAMS = [*SAME, *UNKNOWN, *CODE, *BESIDE, *(program for value in VALUES for program in of_value(*value))]

DRIVER = """
import importlib, json, os, sys, types
from taskfarm.journal.code_digest import function_digest
folder, found = sys.argv[1], {}
sys.path.insert(0, folder)
driver = sys.modules["__main__"]
for name in sorted(os.listdir(folder), key=lambda name: hash((name, "any order"))):
    if not name.startswith("job"):
        continue
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = os.path.join(folder, name)
    exec(compile(open(main.__file__).read(), main.__file__, "exec"), main.__dict__)
    code, parts, unknown = function_digest(main.f)
    found[name] = code.hex(), unknown
sys.modules["__main__"] = driver
print(json.dumps(found))
"""


def digests(folder: Path, seed: str, move: bool = False, change: bool = False) -> dict[str, list[str]]:
    """The digests of all programs in a process of their own."""
    folder.mkdir()
    for number, (_, code, old, new, beside, _) in enumerate(PROGRAMS):
        files = {f"job{number}.py": code, f"beside{number}.py": beside}
        assert any(old in text for text in files.values())
        if not change or not old:
            old = new = "f"
        for name, text in files.items():
            text = re.sub(r"\bbeside\b", f"beside{number}", text.replace(old, new))
            if move:
                text = f'"""Moved."""\n# A comment.\n\n\n{text}\n# The end.\n'
                if name.startswith("job"):
                    text += f"\ndef unused(): return {number}\n"
            (folder / name).write_text(text)
    environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(DRIVER), str(folder)],
        env=environ, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[str]]]:
    """The digests of the programs, of the same ones elsewhere, and of the changed ones."""
    folder = tmp_path_factory.mktemp("programs")
    return [
        digests(folder / "here", "0"),
        digests(folder / "elsewhere", "12345", move=True),
        digests(folder / "changed", "0", change=True),
    ]


def test_every_change_is_seen(found: list[dict[str, list[str]]]) -> None:
    here, _, changed = found
    missed = [
        program.name
        for number, program in enumerate(PROGRAMS)
        if program.old and here[f"job{number}.py"][0] == changed[f"job{number}.py"][0]
    ]
    assert not missed


def test_nothing_else_changes_a_digest(found: list[dict[str, list[str]]]) -> None:
    here, elsewhere, _ = found
    differ = [
        (program.name, here[f"job{number}.py"][1])
        for number, program in enumerate(PROGRAMS)
        if here[f"job{number}.py"] != elsewhere[f"job{number}.py"] or here[f"job{number}.py"][1]
        if not program.unknown
    ]
    assert not differ


def test_what_cannot_be_told_counts_as_changed_and_is_named(found: list[dict[str, list[str]]]) -> None:
    here, elsewhere, _ = found
    for number, program in enumerate(PROGRAMS):
        if program.unknown:
            first, second = here[f"job{number}.py"], elsewhere[f"job{number}.py"]
            assert first[1] == second[1] == [program.unknown], program.name
            assert first[0] != second[0], program.name
