"""The supervised control: a head of INSIGHT's size that is shown the boxes themselves.

There are a few dozen boxes in all, so each image is judged by a head that saw the boxes of other
patients alone: cross-validation grouped by patients. It bounds what the features allow, as far as
so few boxes can teach; the weakly supervised heads never see a box but learn from more images.

Letters of shapes: N images, C width of the map, h and w its rows and columns.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from model.evaluation.lesion_boxes import BoxedImage
from model.evaluation.localisation import box_mask
from model.insight import ChannelLayerNorm, branch, projection
from model.training.ablation_fit import FitConfig, descend

FOLDS = 5


def box_targets(images: list[BoxedImage], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Give for each image the share of each cell that its boxes cover, float32 (N, h, w)."""
    masks = [np.logical_or.reduce([box_mask(box) for box in image.boxes]) for image in images]
    size = (grid[1], grid[0])
    return np.stack(
        [cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) for mask in masks]
    )


def cross_validated_maps(
    spatial: Tensor, images: list[BoxedImage], config: FitConfig, seed: int
) -> NDArray[np.float32]:
    """Predict where the boxes lie, each image by a head that never saw its patient.

    Args:
        spatial: float (N, C, h, w), scaled.
        images: The same N.
        config: As for the other heads; the batches are of boxed images.
        seed: Of weights and batches.

    Returns:
        float32 (N, h, w) in [0, 1].
    """
    target = torch.from_numpy(box_targets(images, (spatial.shape[2], spatial.shape[3])))
    patients = [image.patient_id for image in images]
    maps = np.empty(target.shape, dtype=np.float32)
    folds = min(FOLDS, len(set(patients)))
    for train, held_out in GroupKFold(folds).split(target, groups=patients):
        torch.manual_seed(seed)
        head = nn.Sequential(
            projection(spatial.shape[1], ChannelLayerNorm), branch(1, 3, ChannelLayerNorm)
        )
        _fit(head, spatial[train], target[train], config, seed)
        with torch.inference_mode():
            maps[held_out] = head(spatial[held_out])[:, 0].sigmoid().numpy()
    return maps


def _fit(head: nn.Module, spatial: Tensor, target: Tensor, config: FitConfig, seed: int) -> None:
    generator = np.random.default_rng(seed)

    def loss() -> Tensor:
        drawn = generator.integers(len(spatial), size=min(config.batch_size, len(spatial)))
        return F.binary_cross_entropy_with_logits(head(spatial[drawn])[:, 0], target[drawn])

    descend(head, loss, config)
