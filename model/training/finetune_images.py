"""The images of a manifest as chunks to fine-tune on.

Letters of shapes: B images, S pixels along a side, F findings named one by one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.preprocessing import PreprocessingSpec
from model.training.augmentation import Augmentation, augment
from model.training.feature_encoding import read_input
from model.training.manifests import ManifestRow

AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "light": Augmentation(
        rotation_deg=7.0,
        log_scale=0.1,
        log_aspect=0.05,
        shift=0.04,
        flip=0.0,  # the side of the heart means something
        log_gamma=0.2,
        window=0.08,
        sharpness=0.4,
        noise=0.02,
        erase=0.25,
    ),
    "full": Augmentation(),
}
CACHE_BYTES = 4 << 30


class FinetuneImages:
    """Images read once, augmented anew each time; a cache in eight bits as long as it fits."""

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        spec: PreprocessingSpec,
        findings: NDArray[np.float32],
        how: Augmentation | None,
    ) -> None:
        self._rows, self._spec, self._how = rows, spec, how
        self._labels = np.array([row.label for row in rows], dtype=np.float32)
        self._findings = findings
        self._keeps = len(rows) * spec.size_px**2 <= CACHE_BYTES
        self._read: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        """Count the images."""
        return len(self._rows)

    def chunk(
        self, rows: NDArray[np.intp], batch: NDArray[np.intp], generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Give the arguments of ``FinetuneModel.forward`` for a chunk."""
        images = torch.from_numpy(np.stack([self._image(int(row)) for row in rows])).float() / 255
        if self._how is not None:
            images = augment(images, self._how, generator)
        named = np.isfinite(self._findings)
        named_share = named[rows].sum() / max(1, named[batch].sum())
        return (
            ((images - self._spec.mean) / self._spec.std)[:, None],
            torch.from_numpy(self._labels[rows]),
            torch.from_numpy(self._findings[rows]),
            torch.tensor(len(rows) / len(batch)),
            torch.tensor(float(named_share)),
        )

    def _image(self, row: int) -> NDArray[np.uint8]:
        """Give an image (S, S) on the scale of [0, 1], as 0 to 255."""
        if row in self._read:
            return self._read[row]
        scaled = read_input(self._rows[row].path, self._spec) * self._spec.std + self._spec.mean
        image = np.rint(scaled * 255).astype(np.uint8)
        if self._keeps:
            self._read[row] = image
        return image


def findings_of(
    rows: Sequence[ManifestRow], names: Sequence[str], column: str = "findings"
) -> NDArray[np.float32]:
    """Read which of the named findings each image has, float (N, F).

    Findings stand in one column, parted by "|" or ";". A row where nothing stands named none of
    them: it is NaN throughout.
    """
    table = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    for number, row in enumerate(rows):
        listed = {text.strip() for text in row.columns.get(column, "").replace(";", "|").split("|")}
        if listed != {""}:
            table[number] = [name in listed for name in names]
    return table


def finding_names(rows: Sequence[ManifestRow], column: str = "findings") -> tuple[str, ...]:
    """List the findings that the rows name, but for "No Finding", in order of the alphabet."""
    texts = (row.columns.get(column, "").replace(";", "|") for row in rows)
    names = {name.strip() for text in texts for name in text.split("|")}
    return tuple(sorted(name for name in names if name and name.lower() != "no finding"))
