"""Bundles: read whole or refused by name, complete or told what is missing."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from common.errors import BundleError
from model.bundles import Bundle, find_bundles, read_bundle
from model.measured import Metrics
from tests.small_bundle import CALIBRATOR, EVALUATION, write_small_bundle

EVALUATED = "evaluation on 100 cases per class, unseen by training and calibration"
CALIBRATED_ON = {"calibrated_on": True}
# As bundles before 1.1.1 say it: the note alone.
BEFORE_RECORDED = {"calibrated_on": None, "note": "val also set calibration and thresholds"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "small-0.0.1")


def edit_description(folder: Path, **changes: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_written_is_read_again(bundle: Bundle) -> None:
    assert read_bundle(bundle.folder) == bundle
    assert len(bundle.sha256) == 64
    assert bundle.missing() == []


def cut_weights(folder: Path) -> None:
    weights = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights[:-1])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors"),
        (lambda folder: (folder / "card.md").unlink(), "card.md"),
        (lambda folder: (folder / "bundle.json").unlink(), "bundle.json"),
        (cut_weights, "weights.safetensors"),
        (lambda folder: (folder / "card.md").write_text("Cleared for all use."), "card.md"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "bundle.json"),
        (lambda folder: (folder / "bundle.json").write_text("[1]"), "bundle.json"),
        (lambda folder: (folder / "bundle.json").write_bytes(b"\xff\xfe"), "bundle.json"),
        (lambda folder: edit_description(folder, surprise=1), "surprise"),
        (lambda folder: edit_description(folder, pipeline="knee"), "pipeline"),
        (lambda folder: edit_description(folder, files={}), "weights.safetensors"),
        (lambda folder: edit_description(folder, version="newest"), "version"),
    ],
)
def test_damage_is_refused_and_named(
    bundle: Bundle, damage: Callable[[Path], None], named: str
) -> None:
    damage(bundle.folder)

    with pytest.raises(BundleError, match=named):
        read_bundle(bundle.folder)


def test_any_change_gives_another_hash(bundle: Bundle) -> None:
    edit_description(bundle.folder, intended_use="other tests")

    assert read_bundle(bundle.folder).sha256 != bundle.sha256


def test_the_same_bundle_has_the_same_hash_in_another_folder(
    bundle: Bundle, tmp_path: Path
) -> None:
    moved = bundle.folder.rename(tmp_path / "elsewhere")

    assert read_bundle(moved).sha256 == bundle.sha256


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"calibrator": None}, "calibrator"),
        ({"operating_points": ()}, "operating points"),
        ({"default_operating_point": "none"}, "default operating point"),
        ({"metrics": Metrics()}, EVALUATED),
        (
            {"metrics": Metrics(evaluations=(EVALUATION.model_copy(update={"abnormal": 99}),))},
            EVALUATED,
        ),
        (
            {"metrics": Metrics(evaluations=(EVALUATION.model_copy(update={"held_out": False}),))},
            EVALUATED,
        ),
        (
            {"metrics": Metrics(evaluations=(EVALUATION.model_copy(update=CALIBRATED_ON),))},
            EVALUATED,
        ),
        (
            {"metrics": Metrics(evaluations=(EVALUATION.model_copy(update=BEFORE_RECORDED),))},
            EVALUATED,
        ),
    ],
)
def test_an_incomplete_bundle_says_what_is_missing(
    tmp_path: Path, changes: dict[str, Any], missing: str
) -> None:
    assert missing in write_small_bundle(tmp_path, **changes).missing()


def test_a_bundle_without_a_head_says_so(bundle: Bundle) -> None:
    path = bundle.folder / "weights.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if not k.startswith("triage.")}, path)

    assert bundle.missing() == ["head"]


def test_a_score_is_flagged_from_the_threshold_on(bundle: Bundle) -> None:
    at_threshold = CALIBRATOR.score_at(bundle.threshold)

    above, below = bundle.interpret(at_threshold + 1e-6), bundle.interpret(at_threshold - 1e-6)

    assert (above.outcome, below.outcome) == ("flagged", "not_flagged")
    assert above.probability == pytest.approx(bundle.threshold, abs=1e-5)
    assert bundle.interpret(math.inf).probability == 1.0


def test_between_its_bounds_the_model_abstains(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path, abstain_between=(0.4, 0.6))

    outcomes = [bundle.interpret(CALIBRATOR.score_at(p)).outcome for p in (0.39, 0.5, 0.61)]

    assert outcomes == ["not_flagged", "abstained", "flagged"]


@pytest.mark.parametrize("absent", ["calibrator", "default_operating_point"])
def test_without_calibrator_or_operating_point_nothing_is_read_into_a_score(
    tmp_path: Path, absent: str
) -> None:
    bundle = write_small_bundle(tmp_path, **{absent: None})

    with pytest.raises(BundleError, match=absent.replace("_", " ")):
        bundle.interpret(0.0)


def test_bundles_are_found_by_name_and_version(tmp_path: Path) -> None:
    for version in ("0.10.0", "0.9.0"):
        write_small_bundle(tmp_path / f"small-{version}", version=version)

    assert [b.version for b in find_bundles(tmp_path, tmp_path / "absent")] == ["0.9.0", "0.10.0"]


def test_reading_a_bundle_needs_no_torch() -> None:
    code = "import model.bundles, model.calibration, model.operating_points, sys\n"
    code += "sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
