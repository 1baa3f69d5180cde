"""Progress bars in a notebook: an observer of the master."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from taskfarm.master.map_progress import MapProgress
from taskfarm.master.master import Master
from taskfarm.views.pace import Pace
from taskfarm.views.progress_bar import LASTING, describe


class NotebookBars:
    """A bar below the cell for each map that lasts, from tqdm; it ends with its map.

    Parameters
    ----------
    master : Master
        The master whose maps are shown.
    pace : Pace
        How fast tasks end.
    """

    def __init__(self, master: Master, pace: Pace) -> None:
        self._master = master
        self._pace = pace
        self._since: dict[MapProgress, float] = {}
        self._bars: dict[MapProgress, Any] = {}

    def __call__(self, now: float) -> None:
        current = set(self._master.maps)
        self._since = {progress: since for progress, since in self._since.items() if progress in current}
        for progress in sorted(current - self._bars.keys(), key=lambda progress: progress.number):
            if not progress.over and now - self._since.setdefault(progress, now) >= LASTING:
                self._bars[progress] = self._new(progress)
        self._show()

    def _new(self, progress: MapProgress) -> Any:
        # With ipywidgets this draws a widget, without it a line of text.
        module = "tqdm.notebook" if find_spec("ipywidgets") else "tqdm"
        bar: Any = import_module(module).tqdm(desc=progress.name[:30], total=progress.total, unit="task")
        bar.start_t = bar.last_print_t = bar.start_t - LASTING
        return bar

    def _show(self) -> None:
        counts = self._master.scheduler.counts()
        for progress, bar in list(self._bars.items()):
            bar.total = progress.total
            long_call = None if progress.over else self._pace.long_call
            bar.set_postfix_str(
                describe(counts, progress.failed, progress.retried, long_call, self._master.scheduler),
                refresh=False,
            )
            bar.update(progress.ended - bar.n)
            bar.refresh()
            if progress.over:
                bar.close()
                del self._bars[progress]

    def close(self) -> None:
        """End all bars."""
        self._show()
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()
