"""scikit-learn's grammar for a detector: its base classes and checks, or plain ones of the same meaning without it.

A guard scores with NumPy alone. So a file of a guard works where scikit-learn is missing, or is of a version whose
checks have moved; a detector is then no scikit-learn estimator by class, and all its methods are there.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from demur.guards.conformal import InvalidData

__all__ = ["BaseEstimator", "OutlierMixin", "check_is_fitted", "validate_data"]


class PlainEstimator:
    """Settings by name, as scikit-learn's BaseEstimator has them."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings that the constructor takes."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Any:
        """Changes settings and returns itself. Raises for one that there is not."""
        for name, value in params.items():
            if name not in self.get_params():
                raise InvalidData(f"a setting {name!r}", ", ".join(self.get_params()), "name one of these")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"


class PlainOutlierMixin:
    """Fitting and predicting in one call, as scikit-learn's OutlierMixin has it."""

    def fit_predict(self, X: Any, y: object = None, **fitting: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """-1 for anomalies, 1 for the rest, of what it was fitted on."""
        return self.fit(X, **fitting).predict(X)  # type: ignore[attr-defined]


def plain_check_is_fitted(detector: Any) -> None:
    """Raises for a detector that has learned nothing."""
    if not any(name.endswith("_") and not name.startswith("__") for name in vars(detector)):
        raise InvalidData(f"a {type(detector).__name__} that was not fitted", "a fitted one", "call fit first")


def plain_validate_data(
    detector: Any,
    X: Any,  # noqa: N803 - scikit-learn's name
    *,
    dtype: Any = np.float64,
    ensure_min_samples: int = 1,
    reset: bool = True,
) -> Any:
    """Rows of finite numbers, as many in a row as the detector has learned. Raises for anything else."""
    try:
        found = np.asarray(X, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InvalidData(
            f"signals that are no numbers ({error})", "an array [n, T]", "stack signals of one T"
        ) from error
    if found.ndim != 2 or len(found) < ensure_min_samples:
        expected = f"at least {ensure_min_samples} rows of T values"
        raise InvalidData(f"signals of shape {found.shape}", expected, "one signal alone is signal[None]")
    if not np.isfinite(found).all():
        raise InvalidData("signals with NaN or infinity", "finite numbers", "look at the model's states")
    if reset:
        detector.n_features_in_ = found.shape[1]
    elif found.shape[1] != detector.n_features_in_:
        raise InvalidData(
            f"signals of {found.shape[1]} steps", f"{detector.n_features_in_}, as fitted", "cut them at T"
        )
    return found


try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:  # missing, or older than 1.6
    BaseEstimator, OutlierMixin = PlainEstimator, PlainOutlierMixin
    check_is_fitted, validate_data = plain_check_is_fitted, plain_validate_data
