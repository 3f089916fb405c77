"""The model card of the compact bundle, written from its own figures."""

from collections.abc import Mapping
from typing import Any

from model.calibrators import AnyCalibrator
from model.measured import Metrics
from model.operating_points import OperatingPoint
from model.training.against_thumbnails import LAST_PHASE
from model.training.packing import DISCLAIMER, evaluation_table

INTENDED_USE = (
    "Research on the triage of frontal chest radiographs of adults: bring studies that look"
    " abnormal forward in a reading list. Never to rule anything out."
)

TEXT = """{disclaimer}

# {name} {version}

{intended_use}

## What it is

A DaViT of 3.3 million parameters with a linear triage head on its embedding, and INSIGHT on its
feature map of stride 16 (12 x 12 cells at 192 px). The raw score of an image is the sum of the
log odds of both, so INSIGHT's probability is a part of the score, not a second opinion on it.
Encoder and heads were trained on all sources. A triage head fitted anew on the {head_cases} NIH
adults of train (penalty {head_penalty:g}, chosen by cross-validation grouped by patients there)
gave an AUC of {head_after:.3f} on NIH val, the one trained with the encoder {head_before:.3f}:
{head_kept} is in the bundle. Weights in half precision. The whole image is resized to
192 x 192 px, so findings of a few pixels at that size (small nodules, thin pneumothoraces) are
beyond it.

## Figures

The headline is **{headline}**: few cases, so wide intervals (DeLong). No figure pools sources:
knowing only where an image comes from would score 0.91. All at the default operating point.

{table}

Each row's cases were left out of training. NIH val also chose the calibration and the thresholds,
and the run was watched on it, so its rows, and those of val and test together, flatter; the
latter stand here because they alone have 100 cases of each class. NIH labels were mined from
reports: part of what counts as error here is theirs. The children are outside the intended use.
Every look at test, earlier versions' included, is a line of `docs/test_log.csv`.

- Against a logistic regression on 32 x 32 thumbnails of all training images, on the headline's
  cases: {thumbnails:.3f} there; difference {better:+.3f} ({better_low:+.3f} to
  {better_high:+.3f}), p {better_p:.4f} (paired DeLong).{last_phase}
- A PA view alone says "abnormal" more often here than an AP view: how the cases were gathered.
  Pairs of the same view alone, on the headline's cases: {within:.3f}, thumbnails
  {within_thumbnails:.3f}; difference {within_better:+.3f} ({within_low:+.3f} to
  {within_high:+.3f}), p {within_p:.4f}.{last_phase_within}
- Mean AUC of NIH test (all ages) and Kermany test: {mean_auc:.3f}.
- INSIGHT's own probability, not calibrated: AUC {insight_auc:.3f} on the headline's cases.
- Source: among normals alone, NIH can be told from RSNA with AUC {from_embedding:.3f} from the
  embedding, {from_score:.3f} from the score (0.5 would be unreadable).

## Calibration and operating points

{method} on {n} adults of NIH val, prevalence {prevalence:.2f}; cross-validated log loss
{log_loss:.3f}. Where fewer images are abnormal, the probability is too high unless it is
corrected to the site's prevalence. The headline's calibration error (5 bins of equal size) is
{ece:.3f}; probabilities that were true would show {chance:.3f} by chance, 95 % of the time
{chance_low:.3f} to {chance_high:.3f}.

| point | flagged from | sensitivity (lower bound, n) | specificity (lower bound, n) | flag rate |
|---|---|---|---|---|
{points}

Default: `default`: a more sensitive point would flag most normal images too, and a list of which
most is flagged is in no order. Bounds are one-sided 95 %, Clopper-Pearson, on the cases that chose
the point.

## Training

{train_images} images of NIH ChestX-ray14, RSNA normals, Hannover COVID-19, ieee8023 and, for
features only, children; batches balanced by source and label;
{samples:,} images drawn ({stages}) from {start}.{average} Left out:
{boxed} images of patients with lesion boxes, {near} RSNA normals whose thumbnail lies within a
cosine of {cosine} of an NIH val or test image{disputed}.
Children are in no calibration, threshold or headline. Images were mirrored in training: the side
of the heart means little to this model.

Data fingerprint: `{fingerprint}`.
The run's choices, seed, commit and versions: `training` in `bundle.json`.

## Not measured

Other hospitals and makers, portable against upright, subgroups of age and sex beyond what NIH's
few cases carry, supports and devices, lateral views, and whether it helps anyone.
"""


def compact_card(
    name: str,
    version: str,
    metrics: Metrics,
    calibrator: AnyCalibrator,
    points: tuple[OperatingPoint, ...],
    training: dict[str, Any],
) -> str:
    """Write the card from the figures that the bundle carries."""
    data, config, head = training["data"], training["config"], training["triage_head"]
    further = metrics.further
    headline = next(row for row in metrics.evaluations if row.name == metrics.headline)
    return TEXT.format(
        disclaimer=DISCLAIMER,
        name=name,
        version=version,
        intended_use=INTENDED_USE,
        headline=metrics.headline,
        table=evaluation_table(metrics.evaluations),
        thumbnails=further["thumbnail_auc_nih_test_adults"],
        better=further["better_than_thumbnails"],
        better_low=further["better_than_thumbnails_low"],
        better_high=further["better_than_thumbnails_high"],
        better_p=further["better_than_thumbnails_p"],
        last_phase=_of_last_phase(further, ""),
        last_phase_within=_of_last_phase(further, "_within_views"),
        within=further["auc_within_views_nih_test_adults"],
        within_thumbnails=further["thumbnail_auc_within_views_nih_test_adults"],
        within_better=further["better_than_thumbnails_within_views"],
        within_low=further["better_than_thumbnails_within_views_low"],
        within_high=further["better_than_thumbnails_within_views_high"],
        within_p=further["better_than_thumbnails_within_views_p"],
        mean_auc=further["mean_auc_nih_and_kermany_test"],
        insight_auc=further["insight_auc_nih_test_adults"],
        from_embedding=further["source_auc_from_embedding"],
        from_score=further["source_auc_from_score"],
        ece=headline.expected_calibration_error,
        chance=further["ece_by_chance_nih_test_adults"],
        chance_low=further["ece_by_chance_low"],
        chance_high=further["ece_by_chance_high"],
        head_cases=head["fitted"]["cases"],
        head_penalty=head["fitted"]["penalty"],
        head_before=head["val_auc_before"],
        head_after=head["val_auc_after"],
        head_kept="the new one" if head["kept"] else "the latter",
        method=calibrator.method.capitalize(),
        n=calibrator.cases,
        prevalence=calibrator.prevalence,
        log_loss=calibrator.log_loss,
        points="\n".join(_row(point) for point in points),
        train_images=data["train_images"],
        start=_start(data.get("start")),
        samples=_samples(config),
        stages=_stages(config),
        average=_average(training.get("averaged_with", [])),
        disputed=_disputed(data["left_out"].get("disputed", 0)),
        boxed=data["left_out"]["patient_with_boxes"],
        near=data["left_out"]["crd_normal_near_neighbour"],
        cosine=data["near_neighbour_cosine"],
        fingerprint=data["fingerprint"],
    )


def _of_last_phase(further: Mapping[str, float], pairs: str) -> str:
    """Say how the thumbnails do that were drawn as the last phase draws."""
    named = f"better_than_thumbnails{pairs}"
    if f"{named}{LAST_PHASE}" not in further:
        return ""
    better, low, high, p = (
        further[f"{named}{part}{LAST_PHASE}"] for part in ("", "_low", "_high", "_p")
    )
    area = further[f"thumbnail_auc{pairs}_nih_test_adults{LAST_PHASE}"]
    return (
        f"\n  **Thumbnails drawn as the second phase draws have {area:.3f}**; difference"
        f" {better:+.3f}\n  ({low:+.3f} to {high:+.3f}), p {p:.4f}."
    )


def _start(start: dict[str, Any] | None) -> str:
    if start is None:
        return "random weights"
    drawn = f"{_samples(start['config']):,} drawn of {start['data']['train_images']} images"
    stages = _stages(start["config"])
    return f"the average of a first phase\n({drawn} from random weights: {stages})"


def _samples(config: dict[str, Any]) -> int:
    return sum(stage["samples"] for stage in config["stages"])


def _stages(config: dict[str, Any]) -> str:
    return ", ".join(f"{stage['samples']:,} at {stage['size_px']} px" for stage in config["stages"])


def _average(averaged_with: list[str]) -> str:
    return "\nThe weights are the mean of those of both phases." if averaged_with else ""


def _disputed(count: int) -> str:
    if count == 0:
        return ""
    return (
        f",\nand, in the second phase, {count} on whose label text mining and radiologists disagree"
    )


def _row(point: OperatingPoint) -> str:
    shares = [
        f"{share.value:.2f} ({share.lower_bound:.2f}, n = {share.n})"
        for share in (point.sensitivity, point.specificity)
    ]
    cells = [point.name, f"{point.threshold:.3f}", *shares, f"{point.flag_rate:.2f}"]
    return f"| {' | '.join(cells)} |"
