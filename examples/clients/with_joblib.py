"""Search a grid of parameters with scikit-learn: ``joblib.parallel_config(backend="taskfarm")``.

::

    python -m taskfarm run -n 3 examples/clients/with_joblib.py
    python examples/clients/with_joblib.py --serial
"""

from __future__ import annotations

import sys

import joblib
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

import taskfarm.joblib_backend  # noqa: F401  makes joblib know the backend


def answer(backend: str) -> str:
    """The best parameters and their score, by a backend of joblib."""
    x, y = make_classification(400, 12, n_informative=6, random_state=1)
    grid = {"max_depth": [2, 4, 8], "min_samples_leaf": [1, 4, 16]}
    with joblib.parallel_config(backend=backend, n_jobs=1 if backend == "sequential" else -1):
        search = GridSearchCV(RandomForestClassifier(40, random_state=2, n_jobs=1), grid, cv=4).fit(x, y)
    return f"best {search.best_params_} score {float(search.best_score_)!r}"


if __name__ == "__main__":
    print(answer("sequential" if "--serial" in sys.argv else "taskfarm"))
