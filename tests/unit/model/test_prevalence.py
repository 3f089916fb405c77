"""Prevalence: Bayes' rule for the probability, no change of outcome, an interval that covers."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from firstread.cli import app
from model.bundles import read_bundle
from model.prevalence import (
    SitePrevalence,
    correct_for_prevalence,
    estimate_prevalence,
    propose_prevalence,
)
from tests.small_bundle import CALIBRATOR, write_small_bundle

share = st.floats(0.01, 0.99)


def unlabelled(prevalence: float, n: int, seed: int, fitted_at: float = 0.5) -> NDArray[np.float64]:
    """Give true probabilities at ``fitted_at`` of images drawn at another prevalence."""
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < prevalence
    scores = generator.normal(np.where(labels, 1.0, -1.0), np.sqrt(2))  # log odds at even shares
    return 1 / (1 + np.exp(-(scores + np.log(fitted_at / (1 - fitted_at)))))


@given(st.floats(0.001, 0.999), share, share)
def test_a_correction_there_and_back_changes_nothing(p: float, one: float, other: float) -> None:
    there = correct_for_prevalence(p, one, other)
    assert correct_for_prevalence(there, other, one) == pytest.approx(p, rel=1e-9)
    assert correct_for_prevalence(p, one, one) == pytest.approx(p, rel=1e-12)


def test_the_correction_is_bayes_rule() -> None:
    # sensitivity 0.8 and false alarms 0.1: at even shares 8 of 9 alarms are true
    assert correct_for_prevalence(8 / 9, 0.5, 0.1) == pytest.approx(0.08 / (0.08 + 0.09))


@pytest.mark.parametrize("true", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("fitted_at", [0.5, 0.6])
def test_the_estimate_comes_near_the_true_share(true: float, fitted_at: float) -> None:
    p = unlabelled(true, 20_000, 0, fitted_at)
    assert estimate_prevalence(p, fitted_at) == pytest.approx(true, abs=0.02)


def test_the_estimate_maximises_the_likelihood() -> None:
    p = unlabelled(0.25, 300, 1)
    found = estimate_prevalence(p, 0.5)

    def log_likelihood(share: float) -> float:
        return float(np.log(p * share / 0.5 + (1 - p) * (1 - share) / 0.5).sum())

    assert log_likelihood(found) >= max(map(log_likelihood, np.linspace(0.001, 0.999, 999)))


def test_the_interval_covers_the_true_share_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(40):
        proposal = propose_prevalence(unlabelled(0.3, 200, seed), 0.5, resamples=60, seed=seed)
        covered += proposal.low <= 0.3 <= proposal.high
    assert covered >= 33


def test_images_of_one_patient_are_drawn_together() -> None:
    p = unlabelled(0.3, 200, 3)
    alone = propose_prevalence(p, 0.5, resamples=100)
    repeated = propose_prevalence(
        np.repeat(p, 4), 0.5, groups=np.repeat(np.arange(200), 4), resamples=100
    )
    assert repeated.groups == 200
    assert repeated.images == 800
    assert repeated.high - repeated.low > 0.8 * (alone.high - alone.low)


def test_a_corrected_bundle_says_so_and_changes_no_outcome(tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path / "plain")
    site = SitePrevalence(prevalence=0.1, source="audit of 2026")
    corrected = write_small_bundle(tmp_path / "corrected", site_prevalence=site)

    for score in np.linspace(-4, 4, 41):
        before, after = plain.interpret(score), corrected.interpret(score)
        assert after.outcome == before.outcome
        assert after.probability < before.probability
        assert (after.probability >= corrected.threshold) == (after.outcome == "flagged")
    assert plain.remarks == ()
    assert corrected.remarks == (
        "probability corrected to the site's prevalence of 10.0% (calibrated at 50.0%)",
    )
    assert corrected.sha256 != plain.sha256


def scores_file(path: Path, prevalence: float, n: int, bundle: Path) -> Path:
    """Write scores that the small bundle's calibrator reads as true at even shares."""
    p = unlabelled(prevalence, n, 5)
    lines = ["file,label,group,split,score,probability,bundle_sha256"]
    by = read_bundle(bundle).sha256
    lines += [f"{i}.png,0,p{i},,{CALIBRATOR.score_at(float(q))},,{by}" for i, q in enumerate(p)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_commands_propose_a_share_and_write_a_bundle_that_holds_it(tmp_path: Path) -> None:
    folder = write_small_bundle(tmp_path / "small").folder
    scores = scores_file(tmp_path / "scores.csv", 0.2, 1500, folder)
    group = ["train", "prevalence"]
    proposed = CliRunner().invoke(
        app, [*group, "propose", "--bundle", str(folder), "--predictions", str(scores)]
    )
    assert proposed.exit_code == 0, proposed.output
    found = re.search(r"prevalence: (\S+) \(95 %: (\S+) to (\S+)\)", proposed.stdout)
    assert found is not None
    assert float(found[2]) < 0.2 < float(found[3])
    assert "1500 images of 1500 patients" in proposed.stdout
    other = write_small_bundle(tmp_path / "other", intended_use="other tests").folder
    refused = CliRunner().invoke(
        app, [*group, "propose", "--bundle", str(other), "--predictions", str(scores)]
    )
    assert refused.exit_code == 2
    assert "scores of another bundle" in refused.stderr

    command = [*group, "set", "--bundle", str(folder), "--out", str(tmp_path / "site")]
    written = CliRunner().invoke(app, [*command, "--prevalence", "0.2", "--source", "500 reports"])
    assert written.exit_code == 0, written.output
    bundle = read_bundle(tmp_path / "site")
    assert bundle.site_prevalence == SitePrevalence(prevalence=0.2, source="500 reports")
    assert "500 reports" in (tmp_path / "site" / "card.md").read_text()
    assert bundle.missing() == []

    wrong = CliRunner().invoke(app, [*command, "--prevalence", "20", "--source", "reports"])
    assert wrong.exit_code == 2
    assert "between 0 and 1" in wrong.stderr


def test_few_scores_propose_nothing(tmp_path: Path) -> None:
    folder = write_small_bundle(tmp_path / "small").folder
    scores = scores_file(tmp_path / "scores.csv", 0.2, 20, folder)
    result = CliRunner().invoke(
        app,
        ["train", "prevalence", "propose", "--bundle", str(folder), "--predictions", str(scores)],
    )
    assert result.exit_code == 2
    assert "at least 100" in result.stderr
