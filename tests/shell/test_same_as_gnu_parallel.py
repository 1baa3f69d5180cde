"""`shell --dry-run` prints the commands that GNU parallel would run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILES = {
    "lines": "l1\nl 2\n\nl'3\nlast without end",
    "table.csv": "x,y\n1,a b\n2,\n3,c\n",
    "tabs": "a\tb\nc d\te\n",
    "spaces": " a b  c\nd\n",
    "commands": "echo 1\n# nothing\n\necho 'a  b' | wc\n",
    "odd": "$HOME\n`ls`\na'b\n''\n\\\n\"\n*?[a]\n~\n!x\na=b\né\n-n\n{}\n{1}\n#",
    "paths": "/\n//\na/\n/a\na/b.c\na.b/c\n.hid\n..x\na.\n.\n..\na/.b\nx.tar.gz\nc/d//e\n",
    "crlf": "a\r\nb\r\n",
    "twice.csv": "a,a\n1,2\n",
    "blanks.csv": " x ,\ty\r\n , z\r\n",
    "empty": "",
}

ARGUMENTS = r"""a 'b c' "d'e" '' '$x' 'a*b' 'é' 'a=b' '~u' a/b.c-d_e,f:g@h%i+j '!x'"""
ARGUMENTS += r""" '#' "'" "''b" "a'" '\' 'a\nb'"""

LINES = r"""
echo ::: ARGUMENTS
echo {} ::: ARGUMENTS
'echo {}' ::: ARGUMENTS
echo x{}y ::: ARGUMENTS
echo '"{}"' ::: ARGUMENTS
echo :::: odd
echo {} {.} {/} {//} {/.} :::: odd
'a={}; echo $a' :::: odd
echo {} {} :::: odd
echo :::: paths
echo {.} :::: paths
echo {/} :::: paths
echo {//} :::: paths
echo {/.} :::: paths
echo {1} {1.} {1/} {1//} {1/.} :::: paths
convert {} {/.}.png :::: paths
cp {} {.}.bak :::: paths
echo {#} ::: a b c
echo {#} {} ::: a b c
echo {#}-{}-{#} ::: a b
'echo {%}' ::: a
echo {%} {#} {} ::: a
echo ::: a b ::: 1 2
echo {1} {2} ::: a b ::: 1 2
echo {2} {1} ::: a b ::: 1 2
echo {2}{2} ::: a b ::: 1 2
echo {2.} {1/} ::: a/z b ::: 1.x 2
echo {/} ::: a/z b ::: 1.x 2
echo {.} ::: a.z ::: b.y c.x ::: d
echo {3} ::: a b ::: c
echo {1} ::: a b ::: c
echo {-1} ::: a b ::: c
echo {-2}{-1} ::: a b ::: c
echo {10} ::: a
echo {1.2} ::: a
echo {foo} ::: a
echo {a}{} ::: a
echo '{ }' ::: a
echo '{}{' ::: a
echo ::: a b :::+ 1 2
echo ::: a b c :::+ 1 2
echo ::: a b :::+ 1 2 3
echo ::: a b :::+ 1 2 ::: x y
echo ::: a b ::: 1 2 :::+ x y
echo ::: a b ::: 1 2 :::+ x
echo {1}{2}{3} ::: a b ::: 1 2 :::+ x y
echo ::: a b :::+ 1 2 :::+ x y
echo :::: lines
echo :::: lines tabs
echo :::: lines ::: 1 2
echo ::: 1 2 :::: lines
echo :::: lines :::+ 1 2 3
echo ::: a b ::::+ lines
echo :::: lines ::::+ odd
-a lines echo
-a lines -a tabs echo {1}-{2}
-a lines echo ::: 1 2
-a lines 'echo {} | wc'
--colsep , echo {2} {1} :::: table.csv
--colsep , echo :::: table.csv
-C , echo {} :::: table.csv
--colsep '\t' echo {2}+{1} :::: tabs
--colsep ' +' echo {2}+{3}+{4}+{1} :::: spaces
--colsep '\s+' 'echo {3} {}' :::: spaces
--colsep ' ' echo :::: spaces
--colsep '(,)' 'echo {1} {2} {3}' ::: a,b
--colsep '[,;]' echo {3}{2}{1} ::: 'a,b;c'
--colsep , echo {1}-{3} ::: a,b c ::: d,e
--colsep , echo {2/} ::: a,b/c
--colsep , --header : echo {y} {x} :::: table.csv
--colsep , --header : echo {x}{1} :::: table.csv
--colsep , --header : echo {x.} {y/} ::: x,y 1.0,a/b
--colsep , --header : echo :::: table.csv
--header : echo {p} ::: p a b
--header : echo {p} {1} {q} ::: p a b ::: q c
--header : echo ::: p a ::: q b
--header : echo {p}{2} ::: p a ::: q b
--header : 'echo {p.}{q/}' ::: p a.b ::: q c/d
--header : 'echo {p}{q x}' ::: p a ::: 'q x' b
--header : echo {p} ::: p a b :::+ q c d
:::: commands
::: 'echo a' 'echo b|cat'
::: a ::: 1 2
::: a b :::+ 1 2
{} ::: 'echo a'
'{} x' ::: 'a b'
'{1} x' ::: 'a b'
' {} x' ::: 'a b'
'{}x {}' ::: 'a b'
'A=1 {}' ::: 'a b'
'{1} {2}' ::: 'a b' ::: 'c d'
./{} ::: 'a b'
{}/x ::: 'a b'
'{#} {}' ::: 'a b'
'{/} y' ::: 'a/b c'
{}{} ::: 'a b'
--header : {p} ::: p 'a b'
--colsep , ::: 'a,b'
-a commands
--colsep , {1} ::: 'a b,c'
echo 'a  b' ::: x
'echo  two   spaces' ::: a
echo a  b ::: x
echo -n ::: x
echo -- ::: x
'echo {}; exit 3' ::: a
'echo {} >{.}.out 2>&1' ::: a.b 'c d.e'
'if true; then echo {}; fi' ::: 'a b'
'echo "$(basename {})"' ::: 'a/b c'
'echo a\tb {}' ::: x
echo :::: crlf
echo ::: ' a' 'b ' '\t'
echo ::: -k --tag
'seq {} | head' ::: 1 2
echo ::: ''
echo :::
-k --tag echo ::: a
--tag --retries 3 --timeout 5 --delay 0 echo {} ::: a
--halt soon,fail=3 echo ::: a
--dryrun echo ::: a
-- echo {} ::: a
echo {1}-{2} ::: a b :::: empty
echo {1}-{2} :::: empty ::: a b
echo {1}-{2}-{3} ::: a b ::: ::: c
echo {1}-{2}-{3} ::: a b :::+ ::: c
echo {1}-{2} ::: :::+ a b
echo {1}-{2} :::: lines ::::+ empty
echo :::: empty :::: empty
--header : echo {x} ::: x ::: y 1
--colsep , --header : echo {a} {2} :::: twice.csv
--colsep , echo {1}+{2} {} :::: blanks.csv
--colsep , echo {1}+{2}+{3} ::: ' a , b ' ' c '
--colsep '\t' echo {1}-{2} ::: 'a\t b'
'echo {.}.{/.}' ::: a/b.c.d
""".strip().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inputs")
    for name, text in FILES.items():
        (made / name).write_bytes(text.encode())
    return made


def printed(words: list[str], folder: Path, stdin: bytes = b"") -> bytes:
    """What a program prints; warnings on standard error do not count."""
    environ = dict(os.environ, HOME=str(folder), SHELL="/bin/bash", PARALLEL_SHELL="/bin/bash")
    return subprocess.run(
        words, cwd=folder, input=stdin, capture_output=True, timeout=240, env=environ
    ).stdout


OURS = [sys.executable, "-m", "taskfarm", "shell", "--dry-run"]


@pytest.mark.usefixtures("parallel")
@pytest.mark.parametrize("line", LINES)
def test_the_same_commands(line: str, folder: Path) -> None:
    words = shlex.split(line.replace("ARGUMENTS", ARGUMENTS))
    expected = printed(["parallel", "--will-cite", "-k", "--dry-run", *words], folder)
    assert printed([*OURS, *words], folder).decode() == expected.decode()


@pytest.mark.usefixtures("parallel")
@pytest.mark.parametrize(
    "line", ["", "echo", "echo {} {#}", "-a - echo ::: 1 2", "echo :::: - ::: 1 2", "'seq {}'"]
)
def test_the_same_commands_from_standard_input(line: str, folder: Path) -> None:
    words, stdin = shlex.split(line), b"a\nb c\n\n$d\n"
    expected = printed(["parallel", "--will-cite", "-k", "--dry-run", *words], folder, stdin)
    assert printed([*OURS, *words], folder, stdin) == expected
