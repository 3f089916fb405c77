"""``firstread triage --pipeline slide``: a line a slide, research only, with its heatmaps."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from firstread.cli import app
from model.bundles import Bundle
from model.slide.dicom_writing import write_slide
from tests.radiographs import make_exposure, make_radiograph, write_radiograph
from tests.slides import write_pink_slide, write_random_slide_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_slide_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide, a blank one, and a radiograph between them."""
    folder = tmp_path_factory.mktemp("archive")
    write_pink_slide(folder / "a_slide")
    write_slide(folder / "b_blank", np.full((300, 300, 3), 244, np.uint8), mpp_um=0.5)
    write_radiograph(make_radiograph(make_exposure(12), 12), folder / "radiograph.dcm")
    return folder


def triage(*arguments: str | Path) -> Result:
    return CliRunner().invoke(
        app, ["triage", *map(str, arguments)], env={"FIRSTREAD_DEVICE": "cpu"}
    )


def test_each_slide_has_a_line_with_a_score_and_no_probability(
    archive: Path, bundle: Bundle, tmp_path: Path
) -> None:
    radiograph = archive / "radiograph.dcm"
    result = triage(
        archive, radiograph, tmp_path, "--json",
        *("--pipeline", "slide", "--bundle", bundle.folder, "--heatmaps", tmp_path / "maps"),
    )  # fmt: skip

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0, result.output
    assert [(line["path"], line["state"]) for line in lines] == [
        (str(archive / "a_slide"), "done"),
        (str(archive / "b_blank"), "not_eligible"),
        (str(radiograph), "not_eligible"),
        (str(tmp_path), "not_eligible"),
    ]
    assert [line["reasons"] for line in lines] == [
        [],
        ["no tissue found"],
        ["not a whole-slide image: CR"],
        ["no DICOM whole-slide image in this folder"],
    ]
    done = lines[0]
    assert not {"probability", "outcome"} & set(done)
    assert done["use"].startswith("research only")
    assert done["measured"]["tiles"] == 16
    assert 0 < done["insight_probability"] < 1
    assert [Path(written).is_file() for written in done["heatmaps"]] == [True, True]


def test_the_overlay_is_hot_on_the_tissue_alone(
    archive: Path, bundle: Bundle, tmp_path: Path
) -> None:
    result = triage(
        archive / "a_slide", "--json",
        *("--pipeline", "slide", "--bundle", bundle.folder, "--heatmaps", tmp_path),
    )  # fmt: skip

    (overlay,) = tmp_path.glob("*.png")
    drawn = cv2.imread(str(overlay))
    assert drawn is not None
    assert result.exit_code == 0
    shown = drawn[:, :-96]  # the legend
    rows, columns = shown.shape[:2]
    assert columns / rows == pytest.approx(640 / 512, rel=0.02)
    glass = shown[: rows // 8, : columns // 8]
    middle = shown[rows // 2, columns // 2]
    assert (glass > 235).all()
    assert (middle < 235).any()


def test_a_cut_slide_fails_alone_and_the_status_says_so(
    archive: Path, bundle: Bundle, tmp_path: Path
) -> None:
    content = (archive / "a_slide" / "level_0.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[: len(content) // 2])

    result = triage(
        tmp_path / "cut.dcm", archive / "a_slide", "--json",
        *("--pipeline", "slide", "--bundle", bundle.folder),
    )  # fmt: skip

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [line["state"] for line in lines] == ["failed", "done"]
    assert len(lines[0]["reasons"]) == 1


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    archive: Path, bundle: Bundle, tmp_path: Path
) -> None:
    folder, missing = tmp_path / "in", tmp_path / "missing.dcm"
    folder.mkdir()
    (folder / "slide.dcm").write_bytes((archive / "a_slide" / "level_0.dcm").read_bytes())
    (folder / "gone.dcm").symlink_to(missing)
    (folder / "broken").symlink_to("/proc/self/mem")  # opens, and then cannot be read

    result = triage(missing, folder, "--json", "--pipeline", "slide", "--bundle", bundle.folder)

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [(line["path"], line["state"]) for line in lines] == [
        (str(missing), "failed"),
        (str(folder / "broken"), "failed"),
        (str(folder / "gone.dcm"), "failed"),
        (str(folder), "done"),
    ]
    assert lines[1]["reasons"] == ["cannot be read: Input/output error"]
    assert lines[2]["reasons"] == ["cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pipeline", "slide"], "--pipeline slide needs --bundle"),
        (["--pipeline", "chest_ct", "--bundle", "BUNDLE"], "pipeline slide, not of chest_ct"),
        (["--bundle", "BUNDLE"], "--bundle needs --pipeline"),
        (["--pipeline", "slide", "--bundle", "ARCHIVE"], "bundle.json is missing"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, archive: Path, bundle: Bundle
) -> None:
    known = {"BUNDLE": str(bundle.folder), "ARCHIVE": str(archive)}

    result = triage(archive, *[known.get(word, word) for word in arguments])

    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
