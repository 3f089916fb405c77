"""Fit the triage head anew on one honest source, over frozen features.

The encoder learns from every source, and so does the head that is trained with it: part of what
that head reads is which hospital an image came from. A ridge-penalised logistic regression on the
embeddings of NIH adults alone, with INSIGHT's log odds as its offset, cannot gain from that.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor

from model.evaluation.discrimination import auc
from model.network import PROBABILITY_EPS, TriageNetwork
from model.training.predictions import Predicted

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # on standardised features, per case
FOLDS = 5


@dataclass(frozen=True)
class FittedHead:
    """What was fitted: the penalty and the cross-validated AUC that chose it."""

    penalty: float
    cross_validated_auc: float
    cases: int


def refit_triage_head(
    network: TriageNetwork,
    predicted: Predicted,
    labels: NDArray[np.bool_],
    groups: NDArray[np.str_],
) -> FittedHead:
    """Replace the weights of ``network.triage`` by those fitted on these cases.

    Args:
        network: Changed in place; only its triage head.
        predicted: What the network says of the N training cases, in eval mode.
        labels: bool (N,), True is abnormal.
        groups: (N,), patients: folds of the cross-validation never split one.
    """
    features = torch.from_numpy(predicted.embedding).double()
    offset = torch.logit(torch.from_numpy(predicted.insight_probability), eps=PROBABILITY_EPS)
    target = torch.from_numpy(labels).double()
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    standardised = (features - mean) / spread
    scores = {
        penalty: _cross_validated_auc(standardised, offset, target, groups, penalty)
        for penalty in PENALTIES
    }
    penalty = max(scores, key=scores.__getitem__)
    weight, bias = _fit(standardised, offset, target, penalty)
    linear = network.triage[-1]
    if not isinstance(linear, torch.nn.Linear):
        raise TypeError("the triage head does not end in a linear layer")
    with torch.no_grad():
        linear.weight.copy_((weight / spread)[None].float())
        linear.bias.copy_((bias - (weight * mean / spread).sum())[None].float())
    return FittedHead(penalty, scores[penalty], len(labels))


def _cross_validated_auc(
    features: Tensor, offset: Tensor, target: Tensor, groups: NDArray[np.str_], penalty: float
) -> float:
    held_out = np.empty(len(target))
    for train, test in GroupKFold(FOLDS).split(features, groups=groups):
        weight, bias = _fit(features[train], offset[train], target[train], penalty)
        held_out[test] = (features[test] @ weight + bias + offset[test]).numpy()
    return auc(target.numpy() > 0, held_out)


def _fit(features: Tensor, offset: Tensor, target: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Minimise mean cross-entropy + penalty/2 * |w|² by L-BFGS; the problem is convex."""
    weight = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        score = features @ weight + bias + offset
        loss = (
            F.binary_cross_entropy_with_logits(score, target) + penalty / 2 * weight.square().sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return weight.detach(), bias.detach()
