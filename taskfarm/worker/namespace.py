"""The ``__main__`` of a worker: what the names in the job's file stand for, for the tasks that run here."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from types import ModuleType
from typing import Any

from taskfarm import interrupts
from taskfarm.protocol.messages import Blob, DefineNames
from taskfarm.protocol.serialize import loads
from taskfarm.protocol.sides import Installed, Side, install, switch, uninstall

_MISSING = object()


@interrupts.interruptible
def _call(initializer: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    initializer(*arguments)


class Namespace:
    """Functions of the job's file have these globals, and its classes are found here by their names.

    What the job has defined is put here when a call needs it, once for each definition. So what tasks
    change in place stays changed on this worker until the job itself changes it. What an initializer has
    changed stays whatever the job does.

    Attributes
    ----------
    definitions : dict of int to (tuple of str, Blob)
        The names of each definition, and the pickle of their values.
    version : int
        Counts the changes of what names stand for.
    in_use : tuple of int
        The definitions for which `use` was called last.
    side : Side
        What pickles see of it.
    shared_values : dict of bytes to object
        What the handles of shared data stand for, by token, as far as it has been loaded.

    Parameters
    ----------
    base : Namespace, optional
        Has the same definitions. A farm with an initializer has a namespace of its own.
    load_shared : callable, optional
        Called with a namespace and a token; returns the value of a handle.
    load_kept : callable, optional
        Returns the value of a `Kept`.
    """

    def __init__(
        self,
        base: "Namespace | None" = None,
        load_shared: "Callable[[Namespace, bytes], Any] | None" = None,
        load_kept: Callable[[Any], Any] | None = None,
    ) -> None:
        self._module = ModuleType("__main__")
        self.side = Side(self._module)
        self.shared_values: dict[bytes, Any] = {}
        if load_shared is not None:
            self.side.load_shared = partial(load_shared, self)
        self.side.load_kept = load_kept
        self._globals = vars(self._module)
        self._globals["__builtins__"] = __builtins__
        self.in_use: tuple[int, ...] = ()
        self._kept: set[str] = set()
        self._own: dict[str, Any] = {} if base is None else base._own
        self._globals.update(self._own)
        self.definitions: dict[int, tuple[tuple[str, ...], Blob]] = {} if base is None else base.definitions
        self.version = 0

    def install(self) -> None:
        """Make this the ``__main__`` of the process from now on."""
        install(self.side)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A context in which this is the ``__main__`` of the process, for all of its threads.

        Where every rank runs the user's program, its own globals stand for the names that the job does not
        define here; they do not change.
        """
        main = sys.modules["__main__"]
        if not (getattr(main, "__package__", None) or "").startswith("taskfarm"):
            own = {name: value for name, value in vars(main).items() if name not in self._globals}
            self._own.update(own)
            self._globals.update(own)
        install(self.side)
        try:
            yield
        finally:
            uninstall(main)

    def switch(self) -> None:
        """Make this the ``__main__`` of the process in place of another namespace."""
        switch(self.side)

    def installed(self) -> Installed:
        """A context in which this is the ``__main__`` of the process."""
        return Installed(self.side)

    def define(self, message: DefineNames) -> None:
        """Keep definitions, for blobs that need them."""
        for number, names, blob in message.definitions:
            self.definitions[number] = (tuple(names), blob)

    def forget(self, definitions: Iterable[int]) -> None:
        """Drop definitions; what names stand for now stays."""
        for number in definitions:
            self.definitions.pop(number, None)

    def use(self, needs: tuple[int, ...]) -> None:
        """Let names stand for what these definitions say.

        Raises
        ------
        Exception
            Whatever loading a definition raises.
        """
        if needs == self.in_use:
            return
        defined = self.side.defined
        for number in needs:
            names, blob = self.definitions[number]
            if all(defined.get(name) == number for name in names):
                continue
            self.version += 1
            # Loading changes the classes that are here already.
            values = {} if self._kept.issuperset(names) else loads(blob)
            for name in names:
                defined[name] = number
                if name in self._kept:
                    continue
                if name in values:
                    self._globals[name] = values[name]
                else:
                    self._globals.pop(name, None)
        self.in_use = needs

    def load(self, blob: Blob, load: Callable[[Blob], Any] = loads) -> Any:
        """Unpickle what was pickled at another time than the call that runs, which keeps its definitions.

        Raises
        ------
        Exception
            Whatever unpickling raises.
        """
        if not blob.needs:
            return load(blob)
        before = self.in_use
        self.use(blob.needs)
        try:
            return load(blob)
        finally:
            self.use(before)

    def initialize(self, blob: Blob) -> None:
        """Call an initializer, and keep what it changes.

        Raises
        ------
        Exception
            Whatever loading or calling it raises.
        """
        self._kept.clear()
        self.in_use = ()
        self.use(blob.needs)
        initializer, arguments = loads(blob)
        names = {name for number in blob.needs for name in self.definitions[number][0]}
        content = {name: self._content(name) for name in names}
        before = dict(self._globals)
        try:
            _call(initializer, arguments)
        finally:
            changed = [name for name, old in content.items() if self._content(name) != old]
            self._kept.update(changed)
            for name, value in self._globals.items():
                if before.get(name, _MISSING) is not value:
                    self._kept.add(name)
            self.version += 1

    def _content(self, name: str) -> Any:
        """What tells whether the value of a name has changed in place."""
        value = self._globals.get(name)
        if isinstance(value, ModuleType):
            return None
        from taskfarm.protocol import by_value

        state = blake2b(digest_size=16)

        def add(buffer: Any) -> bool:
            state.update(buffer.raw())
            return False

        try:
            state.update(by_value.dumps({name: value}, add, {name: value}).data)
        except Exception:
            return object()
        return state.digest()
