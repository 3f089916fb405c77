"""Propose a site's prevalence from what the live model said of the site's own images."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from common.errors import BundleError, ConfigurationError, TrainingDataError
from common.settings import Settings
from common.tables import Analysis, AnalysisState, ModelVersion, Study
from model.bundles import Bundle

LEAST_IMAGES = 100


class UnlabelledScores(NamedTuple):
    """Raw scores (N,) and the patient, or group, of each (N,)."""

    scores: NDArray[np.float64]
    groups: NDArray[np.str_]


def scores_of_ledger(settings: Settings, bundle: Bundle, days: int) -> UnlabelledScores:
    """Read the scores of this bundle's finished analyses of the last days; labels are unknown.

    Raises:
        BundleError: the ledger does not know this bundle.
    """
    from datetime import UTC, datetime, timedelta

    from firstread.ledger import Ledger

    since = datetime.now(UTC) - timedelta(days=days)
    with Ledger(settings) as ledger, ledger.sessions() as session:
        version = session.scalars(
            select(ModelVersion.id).where(ModelVersion.bundle_sha256 == bundle.sha256)
        ).one_or_none()
        if version is None:
            raise BundleError(
                f"the ledger has no results of {bundle.name} {bundle.version}; "
                "`firstread models list` says which versions it knows"
            )
        rows = session.execute(
            select(Analysis.score, Study.patient_id)
            .join(Study, Study.id == Analysis.study_id)
            .where(
                Analysis.model_version_id == version,
                Analysis.state == AnalysisState.DONE,
                Analysis.finished_at >= since,
            )
        ).all()
    return UnlabelledScores(
        np.array([row.score for row in rows], dtype=np.float64),
        np.array([str(row.patient_id) for row in rows]),
    )


def describe_proposal(bundle: Bundle, unlabelled: UnlabelledScores, seed: int) -> list[str]:
    """Estimate the prevalence and say it, its interval and what it rests on, a line each.

    Raises:
        TrainingDataError: too few images.
        BundleError: the bundle has no calibrator.
    """
    from model.prevalence import propose_prevalence

    if bundle.calibrator is None:
        raise BundleError(f"{bundle.folder}: no calibrator; run `firstread train calibrate` first")
    if len(unlabelled.scores) < LEAST_IMAGES:
        raise TrainingDataError(
            f"{len(unlabelled.scores)} scores: a proposal needs at least {LEAST_IMAGES}"
        )
    calibrator = bundle.calibrator
    p = np.array([calibrator.calibrate(score) for score in unlabelled.scores])
    found = propose_prevalence(p, calibrator.prevalence, groups=unlabelled.groups, seed=seed)
    return [
        f"proposed prevalence: {found.prevalence:.3f} (95 %: {found.low:.3f} to {found.high:.3f})",
        f"from {found.images} images of {found.groups} patients; calibrated at "
        f"{calibrator.prevalence:.3f}",
        "It assumes that abnormal images, and the others, look here as they did where the model was"
        " calibrated; the interval knows nothing of that. Compare it with an audit of reports.",
    ]


def corrected_version(
    bundle: Bundle, folder: Path, prevalence: float, source: str, version: str | None
) -> Bundle:
    """Write a version of the bundle whose probabilities are corrected to a prevalence.

    Raises:
        ConfigurationError: no share between 0 and 1, or no word on where it comes from.
        BundleError: the bundle has no calibrator.
    """
    from model.prevalence import SitePrevalence
    from model.training.bundle_versions import next_version, write_new_version

    if bundle.calibrator is None:
        raise BundleError(f"{bundle.folder}: no calibrator; run `firstread train calibrate` first")
    if not 0 < prevalence < 1 or not source.strip():
        raise ConfigurationError(
            "a prevalence lies between 0 and 1, and --source says how it is known"
        )
    site = SitePrevalence(prevalence=prevalence, source=source)
    section = (
        "## Prevalence of a site\n\nProbabilities are corrected from "
        f"{bundle.calibrator.prevalence:.1%} to {prevalence:.1%} abnormal images. "
        f"Source: {source}. Outcomes do not change."
    )
    changes = {"version": version or next_version(bundle), "site_prevalence": site}
    return write_new_version(bundle, folder, changes, section)
