"""A logistic regression on 32 x 32 thumbnails: what a network must beat to be worth its name.

It sees brightness, posture and borders, hardly any disease; on a set where it does well, the
source of an image or its exposure gives the label away.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from model.evaluation.discrimination import auc
from model.training.cases import Case, of_dataset
from model.training.radiographs import load_images
from model.training.sampling import SHARES, Shares, sampling_probabilities

SIDE_PX = 32
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C
FOLDS = 5


@dataclass(frozen=True)
class ThumbnailBaseline:
    """The fitted baseline and how its penalty was chosen.

    ``cross_validated_auc`` is that of the NIH adults of train, grouped by patients.
    """

    pipeline: Pipeline
    strength: float
    cross_validated_auc: float

    def score(self, cases: list[Case]) -> NDArray[np.float64]:
        """Give the raw logit of each case, float64 (N,)."""
        return self.pipeline.decision_function(_thumbnails(cases))


def fit_thumbnail_baseline(cases: list[Case], shares: Shares = SHARES) -> ThumbnailBaseline:
    """Fit on the cases that the network is trained on, weighted as it draws them."""
    thumbnails = _thumbnails(cases)
    labels = np.array([case.abnormal for case in cases])
    weights = sampling_probabilities(cases, shares) * len(cases)
    groups = np.array([case.patient_id or case.path.name for case in cases])
    of_nih = of_dataset(cases, {"nih_cxr14"}, {"train"}, adult=True)
    areas = {}
    for strength in STRENGTHS:
        held_out = np.empty(len(cases))
        for train, test in GroupKFold(FOLDS).split(thumbnails, groups=groups):
            fitted = _fit(thumbnails[train], labels[train], weights[train], strength)
            held_out[test] = fitted.decision_function(thumbnails[test])
        areas[strength] = auc(labels[of_nih], held_out[of_nih])
    strength = max(areas, key=areas.__getitem__)
    fitted = _fit(thumbnails, labels, weights, strength)
    return ThumbnailBaseline(fitted, strength, areas[strength])


def _fit(
    thumbnails: NDArray[np.float64],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float64],
    strength: float,
) -> Pipeline:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    return pipeline.fit(thumbnails, labels, logisticregression__sample_weight=weights)


def _thumbnails(cases: list[Case]) -> NDArray[np.float64]:
    """Shrink all cases to float64 (N, 1024) in [0, 1]."""
    return load_images(cases, SIDE_PX).reshape(len(cases), -1) / 255
