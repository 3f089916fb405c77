"""INSIGHT learns from a handful of encoded slices where an infection lies; generated features."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from nibabel.loadsave import save
from nibabel.nifti1 import Nifti1Image

from common.errors import TrainingDataError
from model.bundles import Bundle
from model.ct.faults import Remark
from model.ct.pipeline import load_ct_pipeline
from model.training.chest_ct import train_chest_ct
from model.training.ct_insight import (
    CtTrainingConfig,
    EncodedPatient,
    fit_insight,
    judge_patient,
    position_prior,
)
from tests.ct_series import make_body
from tests.small_bundle import write_small_bundle

CONFIG = CtTrainingConfig(steps=80, bag_slices=8, seeds=1)


def make_patient(name: str, infected: list[int], seed: int) -> EncodedPatient:
    """Give 20 slices (16, 5, 5) of one tissue and noise; an infected one has a cell of another."""
    tissue, lesion = np.random.default_rng(0).normal(size=(2, 16, 1, 1))
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(20, 16, 5, 5))
    maps = (tissue + noise).astype(np.float32)
    maps[infected, :, 2, 3] += (lesion - tissue)[:, 0, 0].astype(np.float32)
    truth = np.isin(np.arange(20), infected)
    return EncodedPatient(name, truth, (maps, np.ascontiguousarray(maps[..., ::-1])))


def test_infected_slices_of_a_patient_never_seen_are_found() -> None:
    known = [make_patient("a", [2, 3, 4, 5, 6, 7], 1), make_patient("b", [], 2)]
    other = make_patient("c", [12, 17], 3)

    judged = judge_patient(fit_insight(known, CONFIG, seed=0), other)

    assert set(np.argsort(-judged.slice_probability)[:2]) == {12, 17}
    prior = position_prior(known, other)  # knows heights alone, and here they mislead
    assert prior[4] == prior.max()
    assert prior[[12, 17]].max() < 0.1


def test_the_same_seed_fits_the_same_head() -> None:
    known = [make_patient("a", [3, 4], 1)]
    config = CtTrainingConfig(steps=4, bag_slices=6)

    first, again = (
        judge_patient(fit_insight(known, config, seed=7), known[0]).slice_probability
        for _ in range(2)
    )

    np.testing.assert_array_equal(first, again)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two patients as NIfTI with tables, one with infected slices."""
    folder = tmp_path / "ct"
    folder.mkdir()
    labels, volumes = [], []
    for name, infected in (("ill", {4, 5, 6}), ("well", set())):
        volume = np.stack([make_body(number) for number in range(12)])
        for number in infected:
            volume[number, 10:14, 4:8] = -300
        image = Nifti1Image(volume.transpose(2, 1, 0), np.diag([2.0, 1.5, 5.0, 1]))
        save(image, folder / f"{name}.nii.gz")
        row = {"file": f"{name}.nii.gz", "patient_id": name, "diagnosis": name}
        volumes.append({**row, "sex": "F", "age": "054Y"})
        labels += [
            {
                "file": f"{name}.nii.gz",
                "slice_location": 5.0 * number,
                "infection": int(number in infected),
            }
            for number in range(12)
        ]
    write_table(folder / "volumes.csv", volumes)
    write_table(folder / "slice_labels.csv", labels)
    return folder


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_run_leaves_a_research_bundle_and_says_what_few_patients_show(
    data: Path, tmp_path: Path
) -> None:
    encoder = write_small_bundle(tmp_path / "encoder")  # random weights
    config = CtTrainingConfig(steps=2, bag_slices=4, seeds=1)
    out = tmp_path / "run"

    bundle = train_chest_ct(data, out, config, encoder)

    assert bundle.pipeline == "chest_ct"
    assert {"calibrator", "operating points"} <= set(bundle.missing())
    assert load_ct_pipeline(bundle, "cpu").bundle == bundle
    results = json.loads((out / "results.json").read_text())
    assert [one["patient"] for one in results] == ["ill", "well"]
    assert results[0]["infected"] == 3
    assert results[1]["slice_auc"] is None
    assert results[0]["remarks"] == [f"{Remark.SHORT}: 60 mm from end to end"]
    card = (out / "bundle" / "card.md").read_text()
    assert card.startswith("Not for clinical use.")
    assert "nothing about accuracy: 2 series are 2 cases" in card

    assert_resumes(data, out, config, encoder, bundle)


def assert_resumes(
    data: Path, out: Path, config: CtTrainingConfig, encoder: Bundle, first: Bundle
) -> None:
    """A second start takes what lies there and ends in the same weights; other choices do not."""
    encoded = {path: path.stat().st_mtime_ns for path in (out / "encoded").iterdir()}
    again = train_chest_ct(data, out, config, encoder)
    assert again.files["weights.safetensors"] == first.files["weights.safetensors"]
    assert {path: path.stat().st_mtime_ns for path in (out / "encoded").iterdir()} == encoded
    with pytest.raises(TrainingDataError, match="other data or choices"):
        train_chest_ct(data, out, CtTrainingConfig(steps=3), encoder)


def test_labels_that_do_not_fit_the_volume_are_refused(data: Path, tmp_path: Path) -> None:
    table = data / "slice_labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))

    with pytest.raises(TrainingDataError, match=r"12 slices, but 11 in slice_labels\.csv"):
        train_chest_ct(data, tmp_path / "run", CONFIG, write_small_bundle(tmp_path / "encoder"))
