"""The ablation on a small twin: every arm runs, keeps what it did, and touches no boxed patient."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from firstread.cli import app
from model.bundles import read_bundle
from model.evaluation.lesion_boxes import BoxedImage, LesionBox
from model.insight import InsightOutput, insight_loss
from model.multi_scale_insight import MultiScaleInsightHead
from model.training.ablation import training_rows
from model.training.ablation_features import encode_stages
from model.training.ablation_fit import FitConfig
from model.training.ablation_heads import ARMS, Arm, OneBranchHead, build_arm
from model.training.ablation_segmenter import box_targets, cross_validated_maps
from model.training.manifests import ManifestRow
from tests.small_bundle import write_small_bundle

BOX_HEADER = "image,cxr_file,split,image_width,image_height,finding,x,y,w,h,patient_id"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of noise: abnormal images and boxed ones have a bright square."""
    folder = tmp_path_factory.mktemp("ablation")
    write_small_bundle(folder / "bundle")
    generator = np.random.default_rng(0)
    rows, boxes = ["file,label,group,split"], [BOX_HEADER]
    for number in range(30):
        image = generator.integers(60, 120, (64, 64)).astype(np.uint8)
        x, y = (int(place) for place in generator.integers(4, 40, 2))
        if number % 2:
            image[y : y + 16, x : x + 16] = 250
        cv2.imwrite(str(folder / f"{number}.png"), image)
        if number >= 22 and number % 2:
            split = "test" if number == 29 else "train"
            boxes.append(f"{number}.png,,{split},64,64,Mass,{x},{y},16,16,nih_{number:08d}")
        split = "val" if number < 8 else "test" if number == 29 else "train"
        rows.append(f"{number}.png,{number % 2},nih_{number:08d},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")
    return folder


def run(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_one_command_runs_every_arm_and_control_and_goes_on_where_it_was_stopped(
    folder: Path,
) -> None:
    out = folder / "result"
    arguments = [
        *("ablate", "--bundle", str(folder / "bundle"), "--boxes", str(folder / "boxes.csv")),
        *("--manifest", str(folder / "manifest.csv"), "--out", str(out), "--steps", "2"),
    ]
    first = run(folder, *arguments, "--seeds", "1")
    kept = out / "runs" / "insight-0" / "result.json"
    written_at = kept.stat().st_mtime_ns
    (out / "runs" / "pcam-0" / "result.json").unlink()
    scores_before = json.loads((out / "ablation.json").read_text())["arms"]

    run(folder, *arguments, "--seeds", "1")

    assert kept.stat().st_mtime_ns == written_at
    report = json.loads((out / "ablation.json").read_text())
    assert report["arms"] == scores_before
    assert report["train_images"] == 18  # 21 of train, three of them boxed
    assert report["localisation"]["boxes"] == 3  # the one on a test image is left aside
    methods = {row["name"] for row in report["localisation"]["methods"]}
    controls = {"random", "untrained", "segmenter", "mean_box", "mean_box_of_finding"}
    assert methods == {arm.name for arm in ARMS} | controls | {"bundle_insight", "additive_map"}
    assert report["additive_error"] < 1e-5
    assert "`insight_two_stages`" in first
    assert cv2.imread(str(out / "maps.png")) is not None
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["boxed_splits"] == ["train"]
    assert len(record["earlier_starts"]) == 1


def test_localise_says_that_a_bundle_without_a_record_is_in_sample(folder: Path) -> None:
    out = folder / "localised"
    text = run(
        folder,
        *("localise", "--bundle", str(folder / "bundle"), "--boxes", str(folder / "boxes.csv")),
        *("--out", str(out), "--seeds", "1", "--steps", "2"),
        *("--test-log", str(folder / "test_log.csv")),
    )

    assert "take these figures as in-sample" in text
    _, look = (folder / "test_log.csv").read_text().splitlines()  # one box is on a test image
    assert ",1 lesion boxes on images of test," in look
    assert ",localise,over all 4 boxes: hit " in look.replace('"', "")
    assert json.loads((out / "localisation.json").read_text())["report"]["boxes"] == 4


def test_ablate_asks_for_a_store_or_a_manifest(folder: Path) -> None:
    result = CliRunner().invoke(
        app, ["train", "ablate", "--boxes", str(folder / "boxes.csv"), "--out", str(folder / "x")]
    )

    assert result.exit_code == 2
    assert "--features" in result.output
    assert "--manifest" in result.output


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_every_arm_gives_a_probability_and_a_map_in_range_and_can_learn(arm: Arm) -> None:
    head = build_arm(arm, 8, 12, seed=0)
    inputs = [torch.randn(4, 8, 6, 6), torch.randn(4, 12, 3, 3)][: 2 if arm.two_stages else 1]

    output: InsightOutput = head(*inputs)
    insight_loss(output, torch.ones(4, 1), decoupling=arm.decoupling).backward()

    assert output.probability.shape == (4, 1)
    assert output.heatmap.shape == (4, 1, 6, 6)
    for values in (output.probability, output.heatmap):
        assert 0 <= values.min().item() <= values.max().item() <= 1
    assert all(p.grad is not None for p in head.projection.parameters())  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


def test_detection_alone_has_as_many_parameters_as_the_published_baseline() -> None:
    published, spatial_norms = 310_721, 2 * (128 + 128 + 64 + 64) * 14 * 14
    channel_norms = 2 * (128 + 128 + 64 + 64)

    head = OneBranchHead(1024, "smooth_max")

    assert sum(p.numel() for p in head.parameters()) == published - spatial_norms + channel_norms


def test_pooled_attention_and_pcam_read_a_constant_map_like_one_of_its_cells() -> None:
    cell = torch.randn(1, 8, 1, 1)
    for pooling in ("mean", "lse", "pcam", "abmil"):
        torch.manual_seed(0)
        head = OneBranchHead(8, pooling)

        one, many = head(cell).probability, head(cell.expand(1, 8, 5, 5)).probability

        assert torch.allclose(one, many, atol=1e-6)


def test_the_multi_scale_head_takes_its_stages_in_either_order_of_grids() -> None:
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 8, 6, 6), torch.randn(2, 12, 3, 3)

    assert MultiScaleInsightHead(8, 12)(fine, coarse).heatmap.shape == (2, 1, 6, 6)
    assert MultiScaleInsightHead(12, 8)(coarse, fine).heatmap.shape == (2, 1, 6, 6)


def test_the_segmenter_judges_each_image_by_boxes_of_other_patients() -> None:
    generator = torch.Generator().manual_seed(0)
    spatial = torch.randn(12, 6, 6, 6, generator=generator) * 0.1
    images = []
    for number in range(12):
        row, column = number % 5, (2 * number) % 5
        spatial[number, 0, row, column] += 4
        box = LesionBox("Mass", column / 6, row / 6, 1 / 6, 1 / 6)
        images.append(BoxedImage(Path(f"{number}"), str(number // 2), "train", (box,)))

    maps = cross_validated_maps(spatial, images, FitConfig(steps=25, batch_size=6), seed=0)

    hottest = maps.reshape(12, -1).argmax(axis=1)
    assert (hottest == box_targets(images, (6, 6)).reshape(12, -1).argmax(axis=1)).mean() > 0.8


def test_patients_with_boxes_are_left_out_however_their_number_is_written(folder: Path) -> None:
    groups = ["nih_00000023", "00000023", "23", "nih_00000024"]
    rows = [
        ManifestRow(folder / f"x{n}.png", True, group, "train") for n, group in enumerate(groups)
    ]

    free, left_out = training_rows(rows, folder / "boxes.csv")

    assert [row.group for row in free] == ["nih_00000024"]
    assert left_out == 3


def test_the_additive_map_of_a_bundle_adds_up_on_real_files(folder: Path) -> None:
    features = encode_stages(
        read_bundle(folder / "bundle"), [folder / f"{n}.png" for n in range(5)], "cpu"
    )

    assert features.additive_error < 1e-5
    assert np.allclose(features.additive.shape, (5, 2, 2))
