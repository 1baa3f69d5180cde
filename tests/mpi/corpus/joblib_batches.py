"""joblib's batches: arguments that a task changes in place are new in the next equal batch."""

import joblib
import numpy as np

import taskfarm.joblib_backend
from taskfarm import Farm


def grow(values, array):
    values.append(1)
    array += 1
    return len(values), float(array.sum())


class Model:
    fits = 0

    def fit(self, x):
        self.fits += 1
        Model.last = x
        return self.fits


if __name__ == "__main__":
    with Farm(), joblib.parallel_config(backend="taskfarm", n_jobs=2):
        parallel = joblib.Parallel(batch_size=1)
        print(parallel(joblib.delayed(grow)([], np.zeros(10)) for _ in range(4)))
        print(parallel(joblib.delayed(grow)([1], np.zeros(100_000)) for _ in range(4)))
        model = Model()
        print(parallel(joblib.delayed(type(model)().fit)(0) for _ in range(4)), model.fits)
