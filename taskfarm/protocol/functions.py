"""The functions that tasks call. A function keeps the meaning that it has at the moment of the call.

A worker receives a function once, not with every task. But a function of ``__main__`` refers to globals,
the pickle of a closure contains its cells, and the pickle of a bound method contains its object. If they
were pickled only once, workers would silently use old values. So each call of `FunctionTable.register`
pickles the function again and compares digests, unless everything that it refers to is immutable and still
the same object (`Snapshot`), which is quick to check.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any, TypeAlias
from weakref import WeakValueDictionary, finalize

from taskfarm.errors import CallNotPicklable, wrap
from taskfarm.protocol import shared
from taskfarm.protocol.advice import ADVICE, captured
from taskfarm.protocol.describe import name_of
from taskfarm.protocol.messages import Blob, Limits
from taskfarm.protocol.references import Collected, Given, foreign_future, joined
from taskfarm.protocol.serialize import dump_global, dumps, hash_pickle, nbytes
from taskfarm.protocol.snapshot import Needs, Snapshot, is_job_function
from taskfarm.protocol.task_base import policy_of
from taskfarm.schedule.policy import Policy

MAX_CACHED, MAX_BYTES = 512, 1 << 25
"""Number of functions to keep in the table, and size of their pickles in bytes, besides those that
unfinished tasks call."""

_NONE: frozenset[bytes] = frozenset()

Identity: TypeAlias = tuple[bytes, Policy, bytes]
"""Identifies a function: digest of the pickle, policy, digest of the code."""


class RegisteredFunction:
    """A function as it was when it was called.

    Attributes
    ----------
    id : int
        Its id in messages.
    name : str
        Its name in messages.
    blob : Blob
        Its pickle.
    identity : tuple
        Identifies it among all functions.
    policy : Policy
        How its tasks are run.
    code : bytes
        A digest of its code that stays the same from run to run, if there is a journal; else empty.
    farm : int
        The farm that runs its tasks: each farm has functions of its own.
    users : int
        Number of sources of unfinished tasks that call it; the master counts them.
    fresh : bool
        Whether each call gets a copy of its own, because calls may change its state.
    nbytes : int
        Size of its pickle and of the definitions that it needs, in bytes.
    tokens : frozenset of bytes
        The handles of shared data to which it refers.
    demand : Demand or None
        How the scheduler chooses its tasks; None if they are like most.
    futures : dict of int to Dependency
        The futures to which it refers and whose results it has not got yet, by their keys.
    restored : bool
        Whether all futures to which it refers had their results from the journal.
    """

    __slots__ = (
        *("__weakref__", "blob", "code", "demand", "farm", "fresh", "futures", "given", "id", "identity"),
        *("name", "nbytes", "policy", "restored", "tokens", "users"),
    )

    def __init__(
        self,
        id: int,
        name: str,
        blob: Blob,
        identity: "Identity",
        fresh: bool = False,
        farm: int = 0,
        futures: Sequence[Any] = (),
    ) -> None:
        self.id = id
        self.name = name
        self.blob = blob
        self.nbytes = nbytes(blob) + sum(nbytes(needed.blob) for needed in blob.needs)
        self.fresh = fresh
        self.identity = identity
        _, self.policy, self.code = identity
        self.demand = self.policy.demand
        self.farm = farm
        self.users = 0
        self.futures = {future.key: future for future in futures}
        self.given: list[Given] = []
        self.restored = all(future.restored for future in futures)
        self.tokens = shared.tokens_in(blob) if shared.OPEN else _NONE

    def give(self, key: int, given: Given) -> None:
        """Let it find the result of a future to which it refers."""
        if self.futures.pop(key, None) is not None:
            self.given.append(given)
            needs = joined(self.blob.needs, given.blob.needs)
            self.blob = self.blob._replace(needs=needs, results=(*self.blob.results, (key, given.blob)))
            self.nbytes += nbytes(given.blob)

    def withdraw_kept(self) -> list[Any]:
        """Let it refer to the kept results again that it was given; returns these."""
        given, self.given = self.given, [one for one in self.given if one.kept is None]
        kept = [one.kept for one in given if one.kept is not None]
        # What it is given again comes after the first, and so takes its place.
        self.futures.update({one.key: one for one in kept})
        return kept

    @property
    def limits(self) -> Limits | None:
        """The limits of the child process that runs its tasks; None if the worker runs them itself."""
        if not self.policy.isolated:
            return None
        return Limits(self.policy.timeout, self.policy.memory, self.policy.max_tasks)


class FunctionTable:
    """Ids of functions, found by object identity if that is safe, else by digest of their pickle.

    Attributes
    ----------
    farm : int
        The farm whose functions these are.
    defaults : Policy
        The policy of tasks that do not specify their own.
    code_digest : callable
        Returns the digest of a function's code; a journal replaces it by its own.
    forgotten : list of int
        Ids that will not be used again.
    isolated : set of int
        Ids of functions that workers run in a child process.
    """

    def __init__(self) -> None:
        self._by_identity: OrderedDict[int, tuple[object, Snapshot, RegisteredFunction]] = OrderedDict()
        self._by_digest: OrderedDict[Identity, RegisteredFunction] = OrderedDict()
        # A function that is kept would keep the results, too.
        self._with_results: WeakValueDictionary[Identity, RegisteredFunction] = WeakValueDictionary()
        self._nbytes = 0
        self._ids = count(1)
        self._last_id = 0
        self.farm = 0
        # Held while the tables change, but never while a function is pickled.
        self._lock = threading.Lock()
        self.forgotten: list[int] = []
        self.isolated: set[int] = set()
        self.defaults = Policy()
        self.code_digest: Callable[[Any, int], bytes] = lambda function, farm: b""

    def of_farm(self, farm: int, defaults: Policy) -> "FunctionTable":
        """A table of the functions of one farm, which shares ids and settings with this one."""
        table = FunctionTable()
        table.farm, table.defaults, table.code_digest = farm, defaults, self.code_digest
        table._lock = self._lock
        table._ids, table.forgotten, table.isolated = self._ids, self.forgotten, self.isolated
        return table

    def clear(self) -> None:
        """Drop all functions, whose tasks have ended."""
        dropped = [registered.id for registered in self._by_digest.values()]
        self._by_identity.clear()
        self._by_digest.clear()
        self.isolated.difference_update(dropped)
        self.forgotten.extend(dropped)

    def register(self, function: Any) -> RegisteredFunction:
        """Return the entry of a function, which is added if there is none.

        Raises
        ------
        CallNotPicklable
            The function cannot be pickled.
        """
        cached = self._by_identity.get(id(function))
        if cached is not None:
            _, snapshot, registered = cached
            if snapshot.is_current():
                return registered
        snapshot = Snapshot()
        constant = snapshot.record(function)
        name = name_of(function)
        try:
            # Most functions are of the job's file.
            futures: list[Any] = []
            if is_job_function(function):
                blob = dump_global(function.__qualname__)
            else:
                with Collected() as futures:
                    blob = dumps(function)
        except Exception as error:
            error = foreign_future(function) or error
            reason = (
                str(error) if isinstance(error, CallNotPicklable) else f"{type(error).__name__}: {error}"
            )
            raise wrap(
                CallNotPicklable,
                error,
                f"the function {name} cannot be pickled: {reason}. "
                "It may refer only to objects that can be pickled: create open files, locks and "
                "connections inside the task or in the farm's initializer",
            ) from error
        fresh = not constant
        if fresh:
            ADVICE.of_generators(f"a variable of the function {name}", captured(function))
        policy = self.defaults.changed(policy_of(function))
        code = self.code_digest(function, self.farm)
        if constant and type(blob.needs) is Needs:
            constant = blob.needs.snapshot is not None
            snapshot.include(blob.needs.snapshot or snapshot)
        with self._lock:
            registered = self._register_pickle(name, blob, policy, code, fresh, futures)
            # A function that is kept would keep the shared data, too.
            if constant and not registered.tokens and not futures:
                self._by_identity[id(function)] = (function, snapshot, registered)
                if len(self._by_identity) > MAX_CACHED:
                    self._by_identity.popitem(last=False)
        return registered

    def register_pickle(
        self, name: str, blob: Blob, options: Mapping[str, Any], called: Any, fresh: bool
    ) -> RegisteredFunction:
        """Return the entry of a function that a task has pickled.

        Parameters
        ----------
        name : str
            Its name in messages.
        blob : Blob
            Its pickle, with what it needs.
        options : mapping of str to object
            The options that say how its tasks are run.
        called : callable or None
            The function itself, if its code must have a digest.
        fresh : bool
            As in `RegisteredFunction`.
        """
        policy = self.defaults.changed(options)
        code = b""
        if called is not None:
            code = self.code_digest(called, self.farm)
            policy = policy._replace(key=policy_of(called).get("key"))
        with self._lock:
            return self._register_pickle(name, blob, policy, code, fresh, ())

    def _register_pickle(
        self, name: str, blob: Blob, policy: Policy, code: bytes, fresh: bool, futures: Sequence[Any]
    ) -> RegisteredFunction:
        state = blake2b(digest_size=16)
        hash_pickle(state, blob.data, blob.buffers)
        for definition in blob.needs:
            state.update(definition.digest)
        state.update(name.encode("utf-8", "surrogatepass"))
        identity = (state.digest(), policy, code)
        if futures:
            return self._register_with(futures, name, blob, identity, fresh)
        registered = self._by_digest.get(identity)
        if registered is None:
            self._last_id = next(self._ids)
            registered = RegisteredFunction(self._last_id, name, blob, identity, fresh, self.farm)
            self._by_digest[identity] = registered
            self._nbytes += registered.nbytes
            ADVICE.of_size(f"the function {name}", nbytes(blob))
            if policy.isolated:
                self.isolated.add(registered.id)
            if len(self._by_digest) > MAX_CACHED or self._nbytes > MAX_BYTES:
                self._forget_unused()
        else:
            self._by_digest.move_to_end(identity)
        return registered

    def _register_with(
        self, futures: Sequence[Any], name: str, blob: Blob, identity: Identity, fresh: bool
    ) -> RegisteredFunction:
        """The entry of a function that refers to futures: it lasts as long as somebody uses it."""
        registered = self._with_results.get(identity)
        if registered is None:
            id = next(self._ids)
            found = dict.fromkeys(futures)
            registered = RegisteredFunction(id, name, blob, identity, fresh, self.farm, list(found))
            self._with_results[identity] = registered
            finalize(registered, self._forget_one, id).atexit = False
            if registered.policy.isolated:
                self.isolated.add(id)
        return registered

    def _forget_one(self, id: int) -> None:
        self.isolated.discard(id)
        self.forgotten.append(id)

    def _forget_unused(self) -> None:
        """Drop the least recently used functions that no unfinished task calls, until half is free."""
        dropped: set[int] = set()
        for registered in list(self._by_digest.values()):
            if len(self._by_digest) <= MAX_CACHED // 2 and self._nbytes <= MAX_BYTES // 2:
                break
            if not registered.users and registered.id != self._last_id:
                dropped.add(registered.id)
                del self._by_digest[registered.identity]
                self._nbytes -= registered.nbytes
        for key, (_, _, registered) in list(self._by_identity.items()):
            if registered.id in dropped:
                del self._by_identity[key]
        self.isolated.difference_update(dropped)
        self.forgotten.extend(dropped)
