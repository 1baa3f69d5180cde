"""Words that mpiexec would take for its own, or that are too many for it, reach all ranks."""

from collections.abc import Callable

Shell = Callable[..., tuple[int, str, str]]


def test_a_colon_and_many_long_words(shell: Shell) -> None:
    arguments = [":", "--", "", *(str(number) * 500 for number in range(100, 200))]
    command = ["-k", "--header", ":", 'echo {a} "$TASKFARM_WORDS"', ":::", "a", *arguments]
    code, out, err = shell(*command, ranks=2)
    assert (code, out.split("\n")) == (0, [f"{word} " for word in arguments] + [""]), err
