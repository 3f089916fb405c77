"""The compact recipe: what a second phase begins with, draws and leaves out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import ConfigurationError
from model.bundles import WEIGHTS
from model.network import build_network
from model.training.cases import Case
from model.training.compact_recipe import first_phase, second_phase
from model.training.compact_start import AVERAGE, mean_of_starts, read_start
from model.training.feature_store import file_sha256
from model.training.run_record import RECORD
from model.training.sampling import sampling_probabilities
from tests.small_bundle import ENCODER, write_small_bundle

TRAINING: dict[str, Any] = {
    "config": {"stages": [{"size_px": 96, "samples": 10}, {"size_px": 192, "samples": 5}]},
    "data": {"train_images": 3},
    "commit": "abc",
    "versions": {},
    "machine": "any",
}


def write_run(folder: Path, fill: float) -> Path:
    (folder / AVERAGE).parent.mkdir(parents=True)
    save_file({"weight": torch.full((2,), fill)}, folder / AVERAGE)
    (folder / RECORD).write_text(json.dumps(TRAINING))
    return folder


def test_a_run_and_a_bundle_can_both_be_gone_on_from_and_name_their_weights(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", training=TRAINING)
    run = write_run(tmp_path / "run", 1.0)

    of_bundle, of_run = read_start(bundle.folder), read_start(run)

    build_network(ENCODER.model_dump()).load_state_dict(of_bundle.weights)
    assert {tensor.dtype for tensor in of_bundle.weights.values()} == {torch.float32}
    assert of_bundle.described()["sha256"] == file_sha256(bundle.folder / WEIGHTS)
    assert of_run.described() == {
        "sha256": file_sha256(run / AVERAGE),
        **{key: TRAINING[key] for key in ("config", "data", "commit", "versions")},
    }
    assert of_run.size_px == 192


def test_the_mean_of_two_runs_names_both_and_keeps_the_last_record(tmp_path: Path) -> None:
    one, other = (write_run(tmp_path / str(fill), fill) for fill in (1.0, 3.0))

    mean = mean_of_starts([read_start(one), read_start(other)])

    assert mean.weights["weight"].tolist() == [2.0, 2.0]
    assert load_file(one / AVERAGE)["weight"].tolist() == [1.0, 1.0]
    assert mean.sha256 == file_sha256(other / AVERAGE)
    assert mean.record["averaged_with"] == [file_sha256(one / AVERAGE)]


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{tmp_path} holds neither"):
        read_start(tmp_path)


def test_only_an_nih_image_whose_findings_are_withheld_is_disputed() -> None:
    assert case("nih_cxr14", findings=None).disputed
    assert not case("nih_cxr14", findings=frozenset({"Mass"})).disputed
    assert not case("hannover_covid", findings=None).disputed


def test_the_second_phase_draws_four_in_five_from_nih_and_half_abnormal() -> None:
    shares = second_phase(0).shares
    cases = [
        case(dataset, abnormal=abnormal, adult=dataset != "kermany_pediatric")
        for dataset in ("nih_cxr14", "crd_normal", "hannover_covid", "kermany_pediatric")
        for abnormal in (False, True)
    ]

    chances = sampling_probabilities(cases, shares)

    assert sum(shares.values()) == pytest.approx(1)
    assert chances[[one.dataset == "nih_cxr14" for one in cases]].sum() == pytest.approx(0.8)
    assert chances[[one.abnormal for one in cases]].sum() == pytest.approx(0.5)


def test_phases_of_other_seeds_differ_in_nothing_else() -> None:
    for phase in (first_phase, second_phase):
        one, other = phase(0), phase(1)
        assert one.config == other.config.model_copy(update={"seed": 0})
        assert one.described() == other.described()


def case(
    dataset: str,
    *,
    abnormal: bool = False,
    adult: bool = True,
    findings: frozenset[str] | None = None,
) -> Case:
    return Case(Path("x.jpg"), "train", dataset, abnormal, adult, "", findings, "", "", None)
