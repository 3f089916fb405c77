"""How well can the source of an image be read from what the model makes of it?

A model that knows the hospital may answer with the hospital's habits. Measured on images of one
label, so that the label itself gives nothing away.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.evaluation.discrimination import auc


class SourceReadability(NamedTuple):
    """Areas under the curve for telling one source from another; 0.5 is unreadable."""

    from_embedding: float
    from_score: float


def source_readability(
    embeddings: NDArray[np.float32], scores: NDArray[np.float64], source: NDArray[np.bool_]
) -> SourceReadability:
    """Read the source from embeddings (N, D) by a cross-validated line, and from scores (N,)."""
    line = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    )
    read = np.asarray(cross_val_predict(line, embeddings, source, cv=5, method="decision_function"))
    of_score = auc(source, scores)
    return SourceReadability(auc(source, read), max(of_score, 1 - of_score))
