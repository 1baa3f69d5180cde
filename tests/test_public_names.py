"""The public names are there, and each is loaded when it is first used."""

import importlib
import inspect
import subprocess
import sys

import pytest

import taskfarm


def loaded_after(code: str) -> list[str]:
    """The modules of taskfarm that a program has loaded, besides the package itself."""
    code += (
        "\nimport sys\nprint(*[name for name in sys.modules if name.startswith('taskfarm.')], sep='\\n')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_importing_the_package_loads_nothing() -> None:
    assert loaded_after("import taskfarm; taskfarm.__version__") == []


def test_decorating_a_task_loads_neither_the_farm_nor_mpi() -> None:
    found = loaded_after("from taskfarm import task\n@task\ndef f(): pass\nassert f() is None")
    assert "taskfarm.job.decorator" in found
    assert not {"taskfarm.job.farm", "taskfarm.master.master", "taskfarm.transport.mpi"}.intersection(found)


@pytest.mark.parametrize("command", ["--help", "run --help", "top --help", "journal --help"])
def test_help_loads_the_command_line_only(command: str) -> None:
    words = ["taskfarm", *command.split()]
    found = loaded_after(
        f"import sys, contextlib, io; sys.argv = {words!r}\nfrom taskfarm.launch.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()"
    )
    packages = {name.split(".")[1] for name in found}
    assert packages <= {"console", "environment", "errors", "launch"}
    assert "launch" in packages


@pytest.mark.parametrize("command", ["top", "stack", "trace", "journal"])
def test_commands_that_read_a_file_load_nothing_of_a_running_farm(command: str) -> None:
    found = loaded_after(
        f"import sys, contextlib, io; sys.argv = ['taskfarm', {command!r}, 'no-such-file']\n"
        "from taskfarm.launch.cli import main\nwith contextlib.redirect_stderr(io.StringIO()): main()"
    )
    assert not {"master", "schedule", "transport", "worker", "job"} & {name.split(".")[1] for name in found}


def test_every_public_name_is_found_and_listed() -> None:
    for name in taskfarm.__all__:
        assert getattr(taskfarm, name) is not None
        assert name in dir(taskfarm)
    for name in ("compat", "errors", "testing"):
        assert getattr(taskfarm, name).__name__ == f"taskfarm.{name}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        taskfarm.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["taskfarm", "taskfarm.compat", "taskfarm.testing"])
def test_signatures_show_no_private_parameters(module: str) -> None:
    found = importlib.import_module(module)
    for name in found.__all__:
        public = getattr(found, name)
        methods = vars(public).values() if inspect.isclass(public) else ()
        for function in [public, *methods]:
            if inspect.isfunction(function) and not function.__name__.startswith("_"):
                assert not [word for word in inspect.signature(function).parameters if word.startswith("_")]
        if inspect.isclass(public) and not issubclass(public, BaseException):
            assert not [word for word in inspect.signature(public).parameters if word.startswith("_")], name
