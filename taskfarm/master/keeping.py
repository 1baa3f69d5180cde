"""Makes lost results again, and lets the calls wait that need them."""

from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from taskfarm.errors import ResultLost, TaskFarmError
from taskfarm.master.interfaces import Dependency
from taskfarm.master.kept_results import KeptResult, KeptResults
from taskfarm.master.lineage import MAX_DEPTH, Lineage, lineage_of
from taskfarm.master.pending_calls import Source
from taskfarm.protocol.kept import Kept, reference
from taskfarm.protocol.messages import Blob, Outcomes, Release
from taskfarm.protocol.outcomes import Completed, Packed
from taskfarm.schedule.spans import SINGLES

if TYPE_CHECKING:
    from taskfarm.master.master import Master

MAX_GIVEN_BACK = 100
"""How often a call may be given back because a kept result could not be had, before it fails."""


class Keeping(KeptResults):
    """Follows kept results for a master.

    Parameters
    ----------
    master : Master
        The master.
    """

    def __init__(self, master: "Master") -> None:
        super().__init__(master.workers)
        self._master = master
        self._by_task: WeakValueDictionary[int, KeptResult] = WeakValueDictionary()
        self._given_back: Counter[int] = Counter()

    # Under the master's lock

    def enter(self, outcomes: Outcomes, completed: Completed) -> None:
        """Enter the results that a worker has kept."""
        for offset, kept in (outcomes.kept or {}).items():
            packed = completed.values[offset]
            if type(packed) is not Packed:
                continue
            source = self._master.outstanding.pending.source_of(SINGLES, outcomes.first + offset)
            result = self._new(outcomes.first + offset, source, packed.blob)
            packed.kept, result.handles = result, packed.handles
            self.add(kept, result, packed.blob)

    def discard(self, outcomes: Outcomes) -> None:
        """Let the worker drop the results of outcomes that do not count."""
        for kept in (outcomes.kept or {}).values():
            self._workers.send(kept.worker, Release([kept.token]))

    def restored(self, task: int, value: Any) -> Any:
        """A value from the journal; a kept result is made again when somebody needs it."""
        if type(value) is not Kept:
            return value
        packed = Packed(reference(value._replace(host="")))
        packed.kept = result = self._new(
            task, self._master.outstanding.pending.source_of(SINGLES, task), packed.blob
        )
        result.times_made = -1
        return packed

    def given_back(self, outcomes: Outcomes) -> dict[int, list[KeptResult]]:
        """The calls that could not start for want of kept results, by offset, with what they need."""
        again: dict[int, list[KeptResult]] = {}
        for offset, failure in outcomes.failures.items():
            if not failure.missing:
                continue
            task = outcomes.first + offset
            source = self._master.outstanding.pending.source_of(outcomes.source, task)
            at = 0 if outcomes.source == SINGLES else task - outcomes.source
            kept = source.arguments.withdraw_kept(at)
            if functions := source.function.withdraw_kept():
                kept += functions
                self._master.workers.define_again(source.function)
            kept += [one for one in source.function.futures.values() if one not in kept]
            self._given_back[task] += 1
            if kept and self._given_back[task] <= MAX_GIVEN_BACK:
                again[offset] = kept
        return again

    def _new(self, task: int, source: Source, blob: Blob) -> KeptResult:
        arguments, sink, function, keys, _, stream, index = source
        if isinstance(sink, KeptResult):
            return KeptResult(self, blob, sink.lineage, sink.farm, sink.journal_key)
        call, kept = arguments.call(0)
        needs: list[Dependency | Lineage] = [one.lineage for one in kept]
        # A result from the journal was given nothing.
        needs += arguments.futures.get(0, {}).values()
        lineage = lineage_of(task, function, call, tuple(needs), (stream, index))
        result = KeptResult(self, blob, lineage, function.farm, keys[0] if keys else b"")
        self._by_task[task] = result
        return result

    # Without the lock

    def make_needed(self) -> None:
        """Make the results again that somebody needs and nobody has."""
        while self.needed:
            try:
                result = self.needed.popleft()
            except IndexError:  # another thread was faster
                return
            if result.making:
                continue
            if result.error is None and result.is_lost:
                result.error = self._make(result)
                if result.error is None:
                    continue
            self.settle(result)

    def call_when_there(self, result: KeptResult) -> None:
        """Let the calls that wait for a result go on when it is there, or is made again."""
        with self._master.lock:
            if self._master.scheduler.dependents(result.key, result.farm):
                self.await_result(result)

    def settle(self, result: KeptResult) -> None:
        """Let calls go on that wait for a result."""
        if result.farm in self._master.farms:
            self._master.settle(result)

    def take_over(self, result: KeptResult, made: KeptResult) -> None:
        """Let a result that was lost be the one that was made in its place."""
        with self._master.lock:
            super().take_over(result, made)

    def wait_for(self, result: KeptResult, timeout: float | None = None) -> Blob:
        """Wait for a result; returns its pickle.

        Raises
        ------
        ResultLost
            It was lost, and cannot be made again.
        TimeoutError
            It has not come in time.
        """
        deadline = self._master.deadline(timeout)
        while True:
            with self._master.lock:
                blob = None if self._master.closed else self.fetch(result)
            if blob is not None:
                return blob
            if self._master.closed:
                raise ResultLost(
                    f"the workers have ended that kept the result of {result.name}: call result() "
                    "before the farm ends"
                )
            if result.error is not None:
                raise result.error
            at = result.at
            if at is None:
                self.await_result(result)

            def moved(at: Kept | None = at) -> bool:
                # Another thread may have got what this one has asked for.
                taken = at is not None and result.asked != at
                changed = taken or result.at is not at or result.arrived is not None
                return changed or result.error is not None or self._master.closed

            if not self._master.run_until(moved, deadline):
                raise TimeoutError

    def _make(self, result: KeptResult) -> TaskFarmError | None:
        """Queue the call again that has made a result; returns why it cannot be, if so."""
        master, lineage = self._master, result.lineage
        with master.lock:
            if (error := self._hindrance(result)) is not None:
                return error
            arguments, _ = lineage.arguments.call(0)
            needs = [self._current(one) for one in lineage.needs]
            if needs:
                arguments.futures = {0: {need.key: need for need in needs}}
            result.making = True
            try:
                master.queue_again(lineage.function, arguments, result, (lineage.stream, lineage.index))
            except TaskFarmError as error:
                result.making = False
                return ResultLost(f"{result.lost_text}, and cannot be made again: {error}")
            result.times_made += 1
        master.watch(lineage.function, arguments)
        return None

    def _hindrance(self, result: KeptResult) -> TaskFarmError | None:
        """Why a result cannot be made again."""
        what, lineage = result.lost_text, result.lineage
        farm = self._master.farms.get(lineage.function.farm)
        most = self._master.scheduler.attempts.max_kills
        if farm is None:
            return ResultLost(f"{what}, and its farm has ended: call result() before it does")
        if farm.error is not None:
            return ResultLost(f"{what}, and cannot be made again: {farm.error}")
        if not lineage.complete:
            return ResultLost(
                f"{what}, and cannot be made again: more than {MAX_DEPTH:,} calls came before it, each of "
                "which needs the last; take a result now and then without keep="
            )
        if result.times_made >= most:
            times = "once" if most == 1 else f"{most} times"
            return ResultLost(
                f"{what}, after it was made again {times}: look for what ends the workers, or raise "
                "--max-kills"
            )
        return None

    def _current(self, need: "Dependency | Lineage") -> Dependency:
        """What to wait for."""
        if not isinstance(need, Lineage):
            return need
        found = self._by_task.get(need.task)
        if found is None:
            found = KeptResult(self, Blob(b"", []), need, need.function.farm)
            # It was not lost: nobody needed it any more.
            found.times_made = -1
            self._by_task[need.task] = found
        return found
