"""A bundle: weights and everything that gives their output a meaning, in one folder.

``bundle.json`` says what it is and how its output is read, ``weights.safetensors`` holds the
numbers, ``card.md`` tells a person; an encoder that reads text brings further files. They move
together or not at all: hashes bind them. No torch.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import BundleError
from model.abstention import ConformalAbstention
from model.calibrators import AnyCalibrator
from model.checkpoint_files import file_sha256
from model.ct.hounsfield_window import HounsfieldWindow
from model.eligibility import EligibilityRules
from model.gate import GATE, Gate, GateSpec, load_gate
from model.measured import Metrics
from model.operating_points import OperatingPoint
from model.preprocessing import PreprocessingSpec
from model.prevalence import SitePrevalence, correct_for_prevalence
from model.slide.tiling import SlideTiling

SHIPPED = Path(__file__).parent / "bundles_shipped"
DESCRIPTION, WEIGHTS, CARD = "bundle.json", "weights.safetensors", "card.md"
EVALUATED_PER_CLASS = 100
HEAD_PREFIX = "triage."
BAG_HEAD_PREFIX = "insight."  # a scan or a slide has no other: its score is INSIGHT's

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
Outcome = Literal["flagged", "not_flagged", "abstained"]


class Verdict(NamedTuple):
    """A score, read: the calibrated probability and what follows from it.

    The probability is corrected to the site's prevalence where the bundle has one; the outcome is
    the same with and without.
    """

    probability: float
    outcome: Outcome


class Bundle(BaseModel):
    """One version of one model. Everything but ``folder`` and ``sha256`` stands in bundle.json.

    ``encoder`` is the specification that the encoder's own module reads. ``abstain_between`` are
    probabilities between which the model gives no opinion, ``conformal`` the limits of the score
    within which it gives none; ``site_prevalence`` is what probabilities are corrected to.
    ``insight_support`` is INSIGHT's own
    probability under which no localisation supports a flag. ``hounsfield_window`` is what a slice
    of a scan is cut to, in place of the preprocessing's percentiles; ``slide_tiling`` is how a
    slide is cut; its tile is the encoder's input. ``gate`` holds the limits for the network in
    gate.safetensors, which refuses images by their pixels; without it the tags alone decide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    pipeline: Literal["chest_xray", "chest_ct", "slide", "phantom"]
    encoder: dict[str, Any]
    preprocessing: PreprocessingSpec
    hounsfield_window: HounsfieldWindow | None = None
    slide_tiling: SlideTiling | None = None
    calibrator: AnyCalibrator | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    default_operating_point: str | None = None
    abstain_between: tuple[float, float] | None = None
    conformal: ConformalAbstention | None = None
    site_prevalence: SitePrevalence | None = None
    insight_support: float | None = None
    eligibility: EligibilityRules
    gate: GateSpec | None = None
    metrics: Metrics = Metrics()
    training: dict[str, Any] = {}
    intended_use: str
    licence: str
    files: dict[FileName, str] = Field(description="SHA-256 of each of the other files, in hex")
    folder: Path = Field(exclude=True)
    sha256: str = Field(exclude=True, description="of all files and their names")

    @cached_property
    def operating_point(self) -> OperatingPoint:
        """The default operating point.

        Raises:
            BundleError: the bundle has none.
        """
        for point in self.operating_points:
            if point.name == self.default_operating_point:
                return point
        raise BundleError(f"{self.folder}: no default operating point")

    @property
    def threshold(self) -> float:
        """The probability, as ``interpret`` gives it, from which an image is flagged."""
        return self._as_shown(self.operating_point.threshold)

    def interpret(self, score: float) -> Verdict:
        """Read a raw score as a probability and an outcome.

        Raises:
            BundleError: there is no calibrator or no operating point.
        """
        if self.calibrator is None:
            raise BundleError(f"{self.folder}: no calibrator")
        probability = self.calibrator.calibrate(score)
        shown = self._as_shown(probability)
        if self.abstains(score):
            return Verdict(shown, "abstained")
        flagged = probability >= self.operating_point.threshold
        return Verdict(shown, "flagged" if flagged else "not_flagged")

    @property
    def may_abstain(self) -> bool:
        """Whether there are scores on which the model gives no opinion."""
        return self.abstain_between is not None or self.conformal is not None

    def abstains(self, score: float) -> bool:
        """Say whether the model gives no opinion on a raw score."""
        if self.conformal is not None and self.conformal.abstains(score):
            return True
        if self.abstain_between is None or self.calibrator is None:
            return False
        low, high = self.abstain_between
        return low <= self.calibrator.calibrate(score) <= high

    def load_gate(self) -> Gate | None:
        """Give the network that refuses images by their pixels; None if the tags alone decide.

        Raises:
            BundleError: it cannot be read, or is not the one that the bundle was made with.
        """
        if self.gate is None:
            return None
        return load_gate(self.folder / GATE, self.gate, self.files.get(GATE))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be said wherever a probability of this bundle is shown."""
        if self.calibrator is None or self.site_prevalence is None:
            return ()
        site, fitted = self.site_prevalence.prevalence, self.calibrator.prevalence
        return (
            f"probability corrected to the site's prevalence of {site:.1%} "
            f"(calibrated at {fitted:.1%})",
        )

    def _as_shown(self, probability: float) -> float:
        if self.calibrator is None or self.site_prevalence is None:
            return probability
        return correct_for_prevalence(
            probability, self.calibrator.prevalence, self.site_prevalence.prevalence
        )

    def missing(self) -> list[str]:
        """Name what keeps the bundle from being complete; empty if nothing does."""
        names = {point.name for point in self.operating_points}
        enough = any(
            min(row.abnormal, row.not_abnormal) >= EVALUATED_PER_CLASS
            for row in self.metrics.evaluations
            if row.untouched
        )
        of_bag = self.pipeline in ("chest_ct", "slide")
        head = BAG_HEAD_PREFIX if of_bag else HEAD_PREFIX
        try:
            self.load_gate()
            gate_can_be_read = True
        except BundleError:
            gate_can_be_read = False
        parts = {
            "gate that can be read": gate_can_be_read,
            "head": any(name.startswith(head) for name in tensor_names(self.weights)),
            "calibrator": self.calibrator is not None,
            "operating points": bool(names),
            "default operating point": self.default_operating_point in names,
            f"evaluation on {EVALUATED_PER_CLASS} cases per class, unseen by training and "
            "calibration": enough,
        }
        return [part for part, is_there in parts.items() if not is_there]

    @property
    def weights(self) -> Path:
        """Where the weights lie."""
        return self.folder / WEIGHTS


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: a file is missing or was changed, or the description cannot be understood.
    """
    for name in (DESCRIPTION, WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise BundleError(f"{folder}: {name} is missing")
    description = (folder / DESCRIPTION).read_bytes()
    try:
        fields = {**json.loads(description), "folder": folder, "sha256": ""}
        bundle = Bundle.model_validate(fields)
    except (ValueError, TypeError, ValidationError) as error:
        raise BundleError(f"{folder}: {DESCRIPTION} cannot be understood: {error}") from error
    hashes = {DESCRIPTION: hashlib.sha256(description).hexdigest()}
    for name in (WEIGHTS, CARD, *sorted(bundle.files.keys() - {WEIGHTS, CARD})):
        if not (folder / name).is_file():
            raise BundleError(f"{folder}: {name} is missing")
        hashes[name] = file_sha256(folder / name)
        if bundle.files.get(name) != hashes[name]:
            raise BundleError(f"{folder}: {name} is not the file that {DESCRIPTION} names")
    if bundle.gate is not None and GATE not in hashes:
        raise BundleError(f"{folder}: {DESCRIPTION} describes a gate and names no {GATE}")
    return bundle.model_copy(update={"sha256": _hash_of_hashes(hashes)})


def write_description(
    folder: Path, fields: dict[str, Any], further_files: Sequence[str] = ()
) -> Bundle:
    """Write bundle.json beside the weights and the card that already lie there, then read it.

    ``fields`` are those of ``Bundle`` without ``files``, ``folder`` and ``sha256``;
    ``further_files`` are the names of others that belong to the bundle.
    """
    files = {name: file_sha256(folder / name) for name in (WEIGHTS, CARD, *further_files)}
    bundle = Bundle.model_validate({**fields, "files": files, "folder": folder, "sha256": ""})
    (folder / DESCRIPTION).write_text(bundle.model_dump_json(indent=2) + "\n")
    return read_bundle(folder)


def find_bundles(*roots: Path) -> list[Bundle]:
    """Read every bundle directly under these folders, by name and version.

    Raises:
        BundleError: one of them is damaged.
    """
    folders = [path.parent for root in roots for path in root.glob(f"*/{DESCRIPTION}")]
    bundles = [read_bundle(folder) for folder in folders]
    return sorted(bundles, key=lambda b: (b.name, [int(n) for n in b.version.split(".")]))


def tensor_names(path: Path) -> list[str]:
    """List the tensors of a safetensors file from its header alone.

    Raises:
        BundleError: the file is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("header longer than the file")
            header = json.loads(file.read(length))
    except (ValueError, struct.error) as error:
        raise BundleError(f"{path} is no safetensors file: {error}") from error
    return [name for name in header if name != "__metadata__"]


def _hash_of_hashes(hashes: dict[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(hashes):
        digest.update(f"{name} {hashes[name]}\n".encode())
    return digest.hexdigest()
