"""Say from its pixels whether an image is a frontal chest radiograph, and an adult's. No torch.

A network with one hidden layer over ``gate_features`` names what the image looks like; beside it
stands the distance from the space that frontal chests fill, so that what is like nothing known is
refused too. Letters of shapes: F features, H hidden units, K kinds, P principal directions.
"""

import hashlib
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.errors import BundleError
from model.gate_features import describe, glance

GATE = "gate.safetensors"
LEAST_SIDE_PX = 64
JUDGED_BY_PIXELS = "judged by its pixels"
CHILD_REFUSAL = "looks like a child's radiograph, and its age is unknown"
CHEST_REFUSAL = "does not look like a frontal chest radiograph"


class Kind(StrEnum):
    """What an image looks like; the first ten are the classifier's, in the order of its output."""

    ADULT = "an adult's frontal chest radiograph"
    CHILD = "a child's frontal chest radiograph"
    LATERAL = "lateral"
    OTHER_PART = "another body part, or only a part of the chest"
    SCAN_SLICE = "slice of a scan"
    PHOTOGRAPH = "photograph"
    PATTERN = "noise or pattern"
    DAMAGED = "damaged or incomplete"
    TURNED = "turned or upside down"
    INVERTED = "black and white exchanged"
    UNLIKE = "unlike any known"
    BLANK = "blank"
    TOO_SMALL = f"fewer than {LEAST_SIDE_PX} pixels along a side"


CLASSES = tuple(Kind)[:10]
TENSORS = (
    "mean",
    "scale",
    "hidden_weight",
    "hidden_bias",
    "weight",
    "bias",
    "directions",
    "remainder",
)


class RefusalRate(BaseModel):
    """How many images of one kind were refused; ``low`` to ``high`` is the exact 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    refused: int = Field(ge=0)
    n: int = Field(ge=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    note: str = ""


class GateSpec(BaseModel):
    """The limits of a gate and what was measured with them; part of bundle.json.

    ``least_chest`` and ``least_adult`` are log odds, under which an image is no frontal chest or a
    child's. ``most_unlike`` bounds the distance, which is 1 on average over what was trained on.
    Where the tags say frontal chest, they count as evidence: ``tags_worth`` is added to the log
    odds of a chest and the distance may be ``tags_leeway`` times as large.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_chest: float
    least_adult: float
    most_unlike: float = Field(gt=0)
    tags_worth: float = Field(default=4.0, ge=0)
    tags_leeway: float = Field(default=2.0, ge=1)
    chosen_on: str
    measured: tuple[RefusalRate, ...] = ()

    def __hash__(self) -> int:
        """Hash the limits; what was measured with them need not tell two gates apart."""
        return hash((self.least_chest, self.least_adult, self.most_unlike, self.chosen_on))


class Sight(NamedTuple):
    """What the gate makes of an image: log odds of a frontal chest, of an adult among chests."""

    kind: Kind
    chest: float = -np.inf
    adult: float = 0.0
    unlike: float = 0.0


class Gate:
    """A gate with its parameters in memory."""

    def __init__(self, spec: GateSpec, tensors: dict[str, NDArray[Any]]) -> None:
        self.spec = spec
        self._stored = {name: tensors[name] for name in TENSORS}
        self._tensors = {name: value.astype(np.float32) for name, value in self._stored.items()}

    def write(self, path: Path) -> None:
        """Write the parameters as they were given, without the limits."""
        path.write_bytes(save(self._stored))

    def with_limits(self, spec: GateSpec) -> "Gate":
        """Give the same gate with other limits."""
        return Gate(spec, self._stored)

    def look(self, image: NDArray[Any]) -> Sight:
        """Look at an image (H, W) of any grey scale, 0 black."""
        if min(image.shape) < LEAST_SIDE_PX:
            return Sight(Kind.TOO_SMALL)
        seen = glance(image)
        if np.ptp(seen) == 0:
            return Sight(Kind.BLANK)
        return self.weigh(describe(seen)[None])[0]

    def weigh(self, features: NDArray[np.float32]) -> list[Sight]:
        """Judge features (N, F)."""
        part = self._tensors
        standard = (features - part["mean"]) / part["scale"]
        hidden = np.maximum(standard @ part["hidden_weight"] + part["hidden_bias"], 0)
        logits = hidden @ part["weight"] + part["bias"]  # (N, K)
        chest = _log_sum(logits[:, :2]) - _log_sum(logits[:, 2:])
        along = standard @ part["directions"]  # (N, P)
        beyond = (standard**2).sum(axis=1) - (along**2).sum(axis=1)
        unlike = np.sqrt(np.maximum(beyond, 0) / part["remainder"])
        return [
            Sight(CLASSES[int(row.argmax())], float(c), float(row[0] - row[1]), float(u))
            for row, c, u in zip(logits, chest, unlike, strict=True)
        ]

    def judge(self, sight: Sight, *, stated: bool, age_unknown: bool) -> str | None:
        """Give the reason for which an image is refused; None if it is taken.

        Args:
            sight: What ``look`` gave.
            stated: Whether the tags say that it is a frontal chest radiograph.
            age_unknown: Whether the pixels are to say that it is no child's.
        """
        spec = self.spec
        leeway = spec.tags_leeway if stated else 1.0
        # Written so that a figure that is no number refuses.
        if not sight.chest + (spec.tags_worth if stated else 0.0) >= spec.least_chest:
            looks_like = sight.kind if sight.kind not in (Kind.ADULT, Kind.CHILD) else Kind.UNLIKE
            return f"{CHEST_REFUSAL}: {looks_like}"
        if not sight.unlike <= spec.most_unlike * leeway:
            return f"{CHEST_REFUSAL}: {Kind.UNLIKE}"
        if age_unknown and not sight.adult >= spec.least_adult:
            return CHILD_REFUSAL
        return None


@lru_cache(maxsize=4)
def load_gate(path: Path, spec: GateSpec, sha256: str | None = None) -> Gate:
    """Read a gate's parameters; kept, since a decoding child judges many images of few bundles.

    It looks at one image at once, so that parameters that do not fit together are refused here.

    Args:
        path: The file.
        spec: The limits that go with it.
        sha256: What the bundle says of the file, in hex; default: any bytes will do.

    Raises:
        BundleError: the file holds no gate, or another than the bundle says.
    """
    try:
        content = path.read_bytes()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise BundleError(f"{path} is not the file that the bundle was made with")
        gate = Gate(spec, load(content))
        gate.look(np.linspace(0, 1, LEAST_SIDE_PX**2).reshape(LEAST_SIDE_PX, LEAST_SIDE_PX))
        return gate
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise BundleError(f"{path} holds no gate: {error}") from error


def _log_sum(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
