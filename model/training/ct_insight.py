"""Train INSIGHT on the encoded slices of a few CT series.

Letters of shapes: N slices of a patient, B slices of a bag, C, h, w the encoder's feature map.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from model.insight import InsightHead, alpha_for, insight_loss, smooth_max


class CtTrainingConfig(BaseModel):
    """All choices of a run; ours, chosen on generated features: no patient is left to tune on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = 80
    bag_slices: int = 12
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    decoupling: float = 0.01
    slice_share: float = 1.0
    clean_bags: float = 0.25
    seeds: int = 2


class EncodedPatient(NamedTuple):
    """One patient for the head.

    Attributes:
        patient_id: whose.
        infected: bool (N,).
        views: float32 (N, C, h, w) each: the slices and their mirror images.
    """

    patient_id: str
    infected: NDArray[np.bool_]
    views: tuple[NDArray[np.float32], ...]


def fit_insight(
    patients: Sequence[EncodedPatient], config: CtTrainingConfig, seed: int
) -> InsightHead:
    """Fit a head to these patients.

    A step takes one bag from one patient, in turn: without infected slices for half of the bags,
    half infected for the others, if the patient has any. The bag is right as a whole (does it hold
    an infected slice?) and slice by slice, with equal weight.
    """
    torch.manual_seed(seed)
    head = InsightHead(patients[0].views[0].shape[1], bag=True)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    # The norms run over channels: with those last in memory nothing is copied to and fro.
    head.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    head.train()
    for step in range(config.steps):
        chooser = np.random.default_rng([seed, step])
        spatial, infected = _draw(patients[step % len(patients)], config, chooser)
        spatial = spatial.contiguous(memory_format=torch.channels_last)
        loss = _loss(head, spatial, infected, config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return head.eval()


class Judged(NamedTuple):
    """What a head says of one patient's series.

    Attributes:
        probability: INSIGHT's own of the series as one bag.
        slice_probability: float64 (N,), of each slice alone.
    """

    probability: float
    slice_probability: NDArray[np.float64]


def judge_patient(head: InsightHead, patient: EncodedPatient) -> Judged:
    """Judge the slices as they are, without mirror images."""
    with torch.inference_mode():
        output = head(torch.from_numpy(patient.views[0]))
        each = _slice_probabilities(output.heatmap)
    return Judged(float(output.probability[0, 0]), each.double().numpy())


def position_prior(
    trained_on: Sequence[EncodedPatient], patient: EncodedPatient, width: float = 0.1
) -> NDArray[np.float64]:
    """Say how often slices as high up as each of these were infected elsewhere; no pixels, (N,).

    The control: a model that knows no more than where in a chest pneumonia lies.
    """
    heights = np.concatenate([np.linspace(0, 1, len(one.infected)) for one in trained_on])
    infected = np.concatenate([one.infected for one in trained_on])
    here = np.linspace(0, 1, len(patient.infected))[:, None]
    weights = np.exp(-(((here - heights) / width) ** 2) / 2)
    return weights @ infected / weights.sum(axis=1)


def _draw(
    patient: EncodedPatient, config: CtTrainingConfig, chooser: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a bag: maps (B, C, h, w) and whether each is infected, float (B,)."""
    infected, clean = np.flatnonzero(patient.infected), np.flatnonzero(~patient.infected)
    wanted = 0 if chooser.random() < config.clean_bags else config.bag_slices // 2
    half = chooser.permutation(infected)[:wanted]
    rest = chooser.permutation(clean)[: config.bag_slices - len(half)]
    rows = np.concatenate([half, rest])
    view = patient.views[chooser.integers(len(patient.views))]
    return torch.from_numpy(view[rows]), torch.from_numpy(patient.infected[rows]).float()


def _loss(head: InsightHead, spatial: Tensor, infected: Tensor, config: CtTrainingConfig) -> Tensor:
    output = head(spatial)
    of_bag = insight_loss(output, infected.amax()[None, None], decoupling=config.decoupling)
    each = _slice_probabilities(output.heatmap).clamp(1e-6, 0.999)
    return of_bag + config.slice_share * F.binary_cross_entropy(each, infected)


def _slice_probabilities(heatmap: Tensor) -> Tensor:
    """Pool each slice of (B, 1, h, w) alone; (B,)."""
    cells = heatmap[:, 0].flatten(1)
    return smooth_max(cells, alpha_for(cells.shape[1]))
