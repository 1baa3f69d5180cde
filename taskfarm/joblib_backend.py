"""An alias of `taskfarm.compat.joblib_backend`; importing it registers the backend with joblib."""

from taskfarm.compat.joblib_backend import TaskfarmBackend

__all__ = ["TaskfarmBackend"]
