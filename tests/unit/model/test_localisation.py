"""Localisation measures what it says, and the controls know only what they may."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import TrainingDataError
from model.evaluation.lesion_boxes import BoxCase, LesionBox, box_cases, read_boxed_images
from model.evaluation.localisation import (
    RASTER,
    box_mask,
    hottest_box,
    interpolate,
    measure,
    points_at_a_box,
)
from model.evaluation.localisation_controls import mean_box_maps, random_maps
from model.evaluation.localisation_picture import Column, draw_grid, one_image_a_finding
from model.evaluation.localisation_table import localisation_report
from model.evaluation.localisation_text import localisation_text

HEADER = "image,split,image_width,image_height,finding,x,y,w,h,patient_id"


def case(box: LesionBox, *others: LesionBox, image: int = 0, patient: str = "a") -> BoxCase:
    return BoxCase(image, patient, box, others)


def blob(x: float, y: float, grid: int = 12) -> np.ndarray:
    centres = (np.arange(grid) + 0.5) / grid
    squares = (centres[None] - x) ** 2 + (centres[:, None] - y) ** 2
    return np.exp(-squares / 0.01).astype(np.float32)


def write_boxes(folder: Path, lines: list[str]) -> Path:
    for name in ("one.png", "two.png"):
        cv2.imwrite(str(folder / name), np.full((64, 64), 90, dtype=np.uint8))
    (folder / "boxes.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return folder / "boxes.csv"


def test_a_map_on_the_lesion_hits_and_one_elsewhere_misses() -> None:
    lesion = LesionBox("Mass", 0.6, 0.2, 0.2, 0.2)

    on, off = (measure([blob(*at)], [case(lesion)]) for at in ((0.7, 0.3), (0.2, 0.8)))

    assert (on.hit[0], off.hit[0]) == (1, 0)
    assert on.iou[0] > 0.4 > off.iou[0] == 0
    assert on.iobb[0] > 0.4
    assert on.pixel_auc[0] > 0.95
    assert off.pixel_auc[0] < 0.5


def test_a_peak_just_beside_the_box_is_a_near_hit_alone() -> None:
    found = measure([blob(0.7, 0.3)], [case(LesionBox("Mass", 0.74, 0.2, 0.2, 0.2))])

    assert (found.hit[0], found.near_hit[0]) == (0, 1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_the_scale_of_a_map_changes_no_figure(scale: float) -> None:
    cases = [case(LesionBox("Mass", 0.55, 0.25, 0.2, 0.2))]
    heatmap = blob(0.7, 0.3)

    plain, scaled = measure([heatmap], cases), measure([heatmap * scale - 3], cases)

    for one, other in zip(plain, scaled, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-3)


def test_the_hottest_box_takes_the_largest_part_and_a_flat_map_takes_all() -> None:
    raster = np.zeros((RASTER, RASTER), dtype=np.float32)
    raster[10:40, 20:50] = 1.0
    raster[100:105, 100:105] = 2.0

    assert hottest_box(raster, share=0.06) == pytest.approx(
        (20 / 128, 10 / 128, 30 / 128, 30 / 128)
    )
    assert hottest_box(np.ones_like(raster)) == (0.0, 0.0, 1.0, 1.0)


def test_places_in_another_box_of_the_image_count_neither_way() -> None:
    lesion, other = LesionBox("Mass", 0.1, 0.1, 0.2, 0.2), LesionBox("Mass", 0.6, 0.6, 0.2, 0.2)
    heatmap = blob(0.7, 0.7) + 0.5 * blob(0.2, 0.2)

    alone = measure([heatmap], [case(lesion)]).pixel_auc[0]
    spared = measure([heatmap], [case(lesion, other)]).pixel_auc[0]

    assert spared > alone


def test_a_box_smaller_than_the_raster_still_marks_one_place() -> None:
    assert box_mask(LesionBox("Nodule", 0.5, 0.5, 1e-4, 1e-4)).sum() == 1


def test_the_mean_box_never_sees_its_own_patient() -> None:
    mine, other = LesionBox("Mass", 0.0, 0.0, 0.5, 0.5), LesionBox("Nodule", 0.5, 0.5, 0.5, 0.5)
    cases = [
        case(mine, patient="a"),
        case(mine, image=1, patient="a"),
        case(other, image=2, patient="b"),
    ]

    maps = mean_box_maps(cases, per_finding=True)

    assert np.array_equal(maps[0], box_mask(other).astype(np.float32))
    assert np.array_equal(maps[2], box_mask(mine).astype(np.float32))


def test_random_maps_hit_as_often_as_the_box_is_large() -> None:
    box = LesionBox("Mass", 0.25, 0.25, 0.5, 0.5)
    cases = [case(box, image=number, patient=str(number)) for number in range(400)]

    maps = random_maps(cases, (12, 12), seed=0)
    hits = [points_at_a_box(heatmap, [box[1:]], tolerance=0) for heatmap in maps]

    assert np.mean(hits) == pytest.approx(0.25, abs=0.06)


def test_the_report_tells_a_good_method_from_chance_and_says_what_it_could_not_show() -> None:
    generator = np.random.default_rng(0)
    places = generator.uniform(0.1, 0.7, size=(40, 2))
    cases = [
        case(LesionBox("Mass", x, y, 0.2, 0.2), image=number, patient=str(number // 2))
        for number, (x, y) in enumerate(places)
    ]
    good = measure([blob(x + 0.1, y + 0.1) for x, y in places], cases)
    chance = [measure(random_maps(cases, (12, 12), seed), cases) for seed in range(3)]

    report = localisation_report({"good": [good], "random": chance}, cases, "good")

    by_name = {row.name: row for row in report.methods}
    assert (report.boxes, report.patients) == (40, 20)
    assert by_name["good"].hit.value > 0.9 > 0.4 > by_name["random"].hit.value
    assert by_name["good"].hit.low <= by_name["good"].hit.value <= by_name["good"].hit.high
    assert all(row.p_holm < 0.01 and row.difference.low > 0 for row in report.comparisons)
    least = report.smallest
    assert least.hit is not None
    assert least.hit_all_to_one is not None
    assert 0.1 < least.hit_all_to_one <= least.hit
    text = localisation_text(report, {"random": "control"})
    assert "| `random` | 3 |" in text
    assert f"{least.hit:.3f}" in text


def test_boxes_are_read_in_parts_of_their_image(tmp_path: Path) -> None:
    table = write_boxes(
        tmp_path,
        ["one.png,train,100,200,Mass,10,20,30,40,p", "one.png,train,100,200,Nodule,0,0,10,10,p"],
    )

    images = read_boxed_images(table)
    cases = box_cases(images)

    assert images[0].boxes[0] == LesionBox("Mass", 0.1, 0.1, 0.3, 0.2)
    assert [one.others[0].finding for one in cases] == ["Nodule", "Mass"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one.png,train,100,100,Mass,10,20,wide,40,p", "line 2, column w: 'wide' is no number"),
        ("one.png,train,100,100,Mass,10,20,0,40,p", "line 2: a box and its image"),
        ("three.png,train,100,100,Mass,10,20,5,40,p", "line 2: .*three.png is missing"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(TrainingDataError, match=message):
        read_boxed_images(write_boxes(tmp_path, [line]))


def test_a_table_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="--boxes"):
        read_boxed_images(tmp_path / "none.csv")
    with pytest.raises(TrainingDataError, match="no boxes"):
        read_boxed_images(write_boxes(tmp_path, []))


def test_the_picture_shows_every_method_and_marks_the_lesion(tmp_path: Path) -> None:
    table = write_boxes(
        tmp_path,
        ["one.png,train,64,64,Mass,10,20,30,20,p", "two.png,train,64,64,Nodule,5,5,9,9,q"],
    )
    images = read_boxed_images(table)
    chosen = one_image_a_finding(images, 5)
    grey = [np.full((64, 64), 0.4, dtype=np.float32)] * 2

    narrow = draw_grid(images, grey, [])
    wide = draw_grid(images, grey, [Column("insight", [blob(0.3, 0.4), blob(0.2, 0.2)])])

    assert chosen == [0, 1]
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] > narrow.shape[1]
    green = (wide[..., 1] > 200) & (wide[..., 0] < 150) & (wide[..., 2] < 150)
    assert green.sum() > 200
    assert interpolate(blob(0.3, 0.4)).shape == (RASTER, RASTER)
