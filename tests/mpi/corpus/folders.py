"""Tasks run in the job's folder; one that changes it moves no other, in the same batch either."""

import contextlib
import os
import tempfile
from os import chdir

from taskfarm import Farm, task


@task
def where(x):
    here = os.getcwd()
    if x % 3 == 0:
        os.chdir("/")
    elif x % 7 == 0:
        chdir("/usr")
    if x % 50 == 49:
        os.chdir("/")
        raise ValueError(x)
    return here


@task
def blobs(x):
    here = os.getcwd()
    os.chdir("/")
    return here, len(x)


@task
def inside(x):
    with contextlib.chdir("/"):
        there = os.getcwd()
    return there, os.getcwd()


@task(isolate=True)
def isolated(x):
    return os.getcwd()


def read(x):
    with open("data.txt") as file:
        return file.read()


def load():
    global text
    with open("data.txt") as file:
        text = file.read()


if __name__ == "__main__":
    start = os.getcwd()
    folder = os.path.realpath(tempfile.mkdtemp())
    os.chdir(folder)
    with open("data.txt", "w") as file:
        file.write("data")
    with Farm(initializer=load) as farm:
        found = list(where.options(on_error="return").map(range(1, 2000)))
        print(
            {str(x) if isinstance(x, Exception) else x == folder for x in found}
            - {str(x) for x in range(2000)}
        )
        print(
            set(blobs.map([[1], [2]] * 20)) == {(folder, 1)}, set(inside.map(range(30))) == {("/", folder)}
        )
        os.chdir("/")
        print(set(farm.map(read, range(5))), farm.submit(lambda: text).result(), os.getcwd())
        print(set(isolated.map(range(2))) == {folder}, where.submit(3).result() == folder, os.getcwd())
    print(os.getcwd())
