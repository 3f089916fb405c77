"""Fit each kind of classifier with scikit-learn and keep its arrays alone.

Letters of shapes: N cases, D features.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from model.training.classifiers import (
    Arrays,
    Classifier,
    ForestClassifier,
    LinearClassifier,
    NeighbourClassifier,
    PerceptronClassifier,
    RbfClassifier,
)

Choices = dict[str, Any]
Fit = Callable[[NDArray[np.float32], NDArray[np.bool_], Choices, int], Classifier]

GRIDS: dict[str, tuple[Choices, ...]] = {
    "svm": (
        *({"kernel": "linear", "C": c} for c in (1e-4, 1e-3, 1e-2)),
        *({"kernel": "rbf", "C": c, "width": w} for w in (0.1, 0.3, 1.0) for c in (0.3, 1.0, 3.0)),
    ),
    "logistic_regression": tuple({"C": c} for c in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)),
    "knn": tuple(
        {"neighbours": k, "by_distance": d} for d in (False, True) for k in (11, 31, 61, 121)
    ),
    "random_forest": tuple({"trees": 300, "leaf": leaf} for leaf in (2, 5, 15)),
    "mlp": tuple(
        {"hidden": hidden, "alpha": alpha} for hidden in (32, 128) for alpha in (10.0, 30.0)
    ),
}
"""What is tried of each kind. ``width``: gamma is width / D, so that it means the same at any D."""


def fit_classifier(
    name: str, x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> Classifier:
    """Fit one classifier of ``GRIDS``; the scaler sees these cases and no others.

    Args:
        name: A key of ``GRIDS``.
        x: float32 (N, D), embeddings.
        y: bool (N,), True is abnormal.
        choices: One of the grid's, or others of its form.
        seed: Of the forest and the perceptron.
    """
    return FITS[name](x, y, choices, seed)


def library_model(name: str, features: int, choices: Choices, seed: int) -> Any:  # noqa: ANN401
    """Give scikit-learn's own unfitted model; what is saved must answer as it does."""
    c = dict(choices)
    if name == "svm" and c["kernel"] == "linear":
        return SVC(kernel="linear", C=c["C"], cache_size=500)
    if name == "svm":
        return SVC(kernel="rbf", C=c["C"], gamma=c["width"] / features, cache_size=500)
    if name == "logistic_regression":
        return LogisticRegression(C=c["C"], max_iter=5000)
    if name == "knn":
        weights = "distance" if c["by_distance"] else "uniform"
        return KNeighborsClassifier(c["neighbours"], weights=weights, algorithm="brute")
    if name == "random_forest":
        return RandomForestClassifier(c["trees"], min_samples_leaf=c["leaf"], random_state=seed)
    if name == "mlp":
        hidden, alpha = c["hidden"], c["alpha"]
        return MLPClassifier(
            (hidden,), alpha=alpha, max_iter=c.get("epochs", 60), random_state=seed
        )
    raise ValueError(f"no classifier {name!r}")


def _fit_scaled(
    name: str, x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> tuple[Any, Arrays, NDArray[np.float64]]:
    scaler = StandardScaler()
    scaled: NDArray[np.float64] = scaler.fit_transform(x.astype(np.float64))
    model = library_model(name, x.shape[1], choices, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # epochs of the perceptron are a choice
        model.fit(scaled, y)
    return model, {"mean": np.asarray(scaler.mean_), "scale": np.asarray(scaler.scale_)}, scaled


def _fit_svm(
    x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> Classifier:
    model, arrays, _ = _fit_scaled("svm", x, y, choices, seed)
    bias = np.asarray(model.intercept_, dtype=np.float64)
    if choices["kernel"] == "linear":
        weight = np.asarray(model.coef_[0])
        return LinearClassifier(arrays={**arrays, "weight": weight, "bias": bias})
    return RbfClassifier(
        arrays={
            **arrays,
            "vectors": np.asarray(model.support_vectors_),
            "dual": np.asarray(model.dual_coef_[0]),
            "bias": bias,
            "gamma": np.array([choices["width"] / x.shape[1]]),
        }
    )


def _fit_logistic(
    x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> Classifier:
    model, arrays, _ = _fit_scaled("logistic_regression", x, y, choices, seed)
    bias = np.asarray(model.intercept_, dtype=np.float64)
    return LinearClassifier(arrays={**arrays, "weight": model.coef_[0], "bias": bias})


def _fit_neighbours(
    x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> Classifier:
    few = {**choices, "neighbours": min(choices["neighbours"], len(x))}
    _, arrays, scaled = _fit_scaled("knn", x, y, few, seed)
    return NeighbourClassifier(
        arrays={
            **arrays,
            "vectors": scaled,
            "labels": y.astype(np.float64),
            "neighbours": np.array([few["neighbours"]]),
            "by_distance": np.array([int(few["by_distance"])]),
        }
    )


def _fit_forest(
    x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> Classifier:
    model = library_model("random_forest", x.shape[1], choices, seed).fit(x, y)
    trees = [tree.tree_ for tree in model.estimators_]
    roots = np.cumsum([0] + [tree.node_count for tree in trees])[:-1]
    lefts = [_moved(tree.children_left, root) for tree, root in zip(trees, roots, strict=True)]
    rights = [_moved(tree.children_right, root) for tree, root in zip(trees, roots, strict=True)]
    values = np.concatenate([tree.value[:, 0] for tree in trees])  # (L, 2)
    return ForestClassifier(
        arrays={
            "roots": roots.astype(np.int64),
            "feature": np.concatenate([tree.feature for tree in trees]).astype(np.int64),
            "threshold": np.concatenate([tree.threshold for tree in trees]),
            "left": np.concatenate(lefts),
            "right": np.concatenate(rights),
            "abnormal": values[:, 1] / values.sum(1),
        }
    )


def _moved(children: NDArray[np.int64], root: int) -> NDArray[np.int64]:
    return np.where(children >= 0, children + root, -1).astype(np.int64)


def _fit_perceptron(
    x: NDArray[np.float32], y: NDArray[np.bool_], choices: Choices, seed: int
) -> Classifier:
    model, arrays, _ = _fit_scaled("mlp", x, y, choices, seed)
    (hidden_weight, weight), (hidden_bias, bias) = model.coefs_, model.intercepts_
    return PerceptronClassifier(
        arrays={
            **arrays,
            "hidden_weight": hidden_weight,
            "hidden_bias": hidden_bias,
            "weight": weight[:, 0],
            "bias": bias,
        }
    )


FITS: dict[str, Fit] = {
    "svm": _fit_svm,
    "logistic_regression": _fit_logistic,
    "knn": _fit_neighbours,
    "random_forest": _fit_forest,
    "mlp": _fit_perceptron,
}
