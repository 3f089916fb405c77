"""Put an evaluation on untouched cases into a bundle: the last thing that completes it."""

from datetime import UTC, datetime
from pathlib import Path

from common.errors import BundleError
from model.bundles import Bundle
from model.evaluation.evaluate import evaluate
from model.evaluation.prediction_table import PredictionTable
from model.training.bundle_versions import next_version, write_new_version
from model.training.packing import evaluation_table

SAME = "of the manifest that it was trained on"
OTHER = "of another manifest than it was trained on: nobody has compared their patients"


def write_evaluated(
    bundle: Bundle, table: PredictionTable, folder: Path, *, name: str, manifest_sha256: str
) -> Bundle:
    """Write the next version of a bundle, with what it reached on the test rows of a manifest.

    Weights, calibrator and thresholds stay as they are. A manifest keeps its groups apart, so
    neither training nor calibration on its other splits has seen these cases.

    Raises:
        BundleError: there is no calibrator or operating point to evaluate, or another bundle
            scored the table.
        ConfigurationError: the folder holds a bundle already.
    """
    if bundle.calibrator is None:
        raise BundleError(f"{bundle.folder}: no calibrator; run `firstread train calibrate` first")
    if table.bundle_sha256 != bundle.sha256:
        raise BundleError(f"{table.name}: scored by another bundle than {bundle.folder}")
    if set(table.splits.tolist()) != {"test"}:
        raise BundleError(f"{table.name}: only rows of test complete a bundle")
    row = evaluate(
        name,
        table.scores,
        table.labels,
        bundle.calibrator,
        bundle.operating_point.threshold,
        calibrated_on=False,
        note=SAME if manifest_sha256 in _manifests(bundle.training) else OTHER,
        abstained=table.abstained,
    )
    others = tuple(one for one in bundle.metrics.evaluations if one.name != name)
    metrics = bundle.metrics.model_copy(
        update={"headline": bundle.metrics.headline or name, "evaluations": (*others, row)}
    )
    section = (
        f"## Evaluation of {datetime.now(UTC).date()}\n\n{evaluation_table([row])}\n\n"
        f"On cases {row.note}; calibration has not seen them."
    )
    changes = {"version": next_version(bundle), "metrics": metrics}
    return write_new_version(bundle, folder, changes, section)


def _manifests(training: object) -> set[str]:
    """Give the manifests that a training record names, its earlier stages' too."""
    if not isinstance(training, dict):
        return set()
    data = training.get("data")
    named = data.get("manifest_sha256", "") if isinstance(data, dict) else ""
    return ({named} if named else set()) | _manifests(training.get("start"))
