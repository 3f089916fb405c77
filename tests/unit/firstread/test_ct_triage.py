"""``firstread triage --pipeline chest_ct``: series in, scores and heatmaps out; random weights."""

import json
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from firstread.cli import app
from model.ct.heatmap_volume import read_heatmap_volume
from tests.ct_bundles import write_ct_bundle
from tests.ct_series import COLUMNS, ROWS, make_slices, write_slices

SLICES = 32  # 160 mm


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ct_bundle(tmp_path_factory.mktemp("bundle")).folder


def triage(*arguments: object) -> tuple[int, list[dict[str, object]]]:
    command = ["triage", *map(str, arguments), "--pipeline", "chest_ct", "--json"]
    result = CliRunner().invoke(app, command)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_every_series_of_a_folder_is_answered_for(bundle: Path, tmp_path: Path) -> None:
    good, gap = make_slices(SLICES), make_slices(SLICES)
    head = make_slices(SLICES, BodyPartExamined="HEAD")
    del gap[10:13]
    write_slices(good, tmp_path / "in" / "good")
    write_slices(gap, tmp_path / "in" / "gap")
    write_slices(head, tmp_path / "in" / "head")

    status, lines = triage(tmp_path / "in", "--bundle", bundle, "--heatmaps", tmp_path / "out")

    assert status == 0
    gap_line, good_line, head_line = sorted(lines, key=lambda line: str(line["path"]))
    assert good_line["state"] == "done"
    assert isinstance(good_line["score"], float)
    assert "probability" not in good_line
    assert good_line["series_instance_uid"] == good[0].SeriesInstanceUID
    assert good_line["reasons"] == ["no view position stated"]
    assert good_line["measured"]["slices"] == SLICES  # pyright: ignore
    assert gap_line["state"] == head_line["state"] == "not_eligible"
    assert str(gap_line["reasons"]).startswith("['slices missing: about 3")
    assert head_line["reasons"] == ["other body part"]

    volume, *pictures = [Path(str(path)) for path in good_line["heatmaps"]]  # pyright: ignore
    heatmap = read_heatmap_volume(volume)
    assert heatmap.heatmap.shape[0] == SLICES
    assert heatmap.size_px.tolist() == [ROWS, COLUMNS]
    assert len(pictures) == 4
    assert all(cv2.imread(str(path)) is not None for path in pictures)


def test_a_slice_that_cannot_be_decoded_fails_its_series_and_names_the_file(
    bundle: Path, tmp_path: Path
) -> None:
    slices = make_slices(SLICES)
    slices[4].PixelData = slices[4].PixelData[:100]
    write_slices(slices, tmp_path / "in")

    status, (line,) = triage(tmp_path / "in", "--bundle", bundle)

    assert status == 1
    assert line["state"] == "failed"
    assert str(line["reasons"]).startswith("['IM0004.dcm: ")


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_slices(make_slices(SLICES), folder)
    (folder / "letter.txt").write_text("no image")
    (folder / "README").write_text("no image either")
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere.dcm")
    (folder / "broken.dcm").symlink_to("/proc/self/mem")  # opens, and then cannot be read
    (folder / "cut").write_bytes((folder / "IM0000.dcm").read_bytes()[:140])
    missing = tmp_path / "missing.dcm"

    status, lines = triage(missing, folder, "--bundle", bundle)

    assert status == 1
    failed = {
        str(line["path"]): str(line["reasons"]) for line in lines if line["state"] == "failed"
    }
    assert set(failed) == {
        str(missing), str(folder / "gone.dcm"), str(folder / "broken.dcm"), str(folder / "cut"),
    }  # fmt: skip
    assert "No such file" in failed[str(missing)]
    assert "No such file" in failed[str(folder / "gone.dcm")]
    assert "cannot be read: Input/output error" in failed[str(folder / "broken.dcm")]
    assert "DICOM" in failed[str(folder / "cut")]
    (done,) = [line for line in lines if line["state"] != "failed"]
    assert (done["state"], done["path"]) == ("done", str(folder))


def test_what_is_no_ct_is_answered_for_too(bundle: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    named = tmp_path / "letter.txt"
    named.write_text("no image")

    status, lines = triage(empty, named, "--bundle", bundle)

    assert status == 0
    assert {line["state"] for line in lines} == {"not_eligible"}
    assert all("no CT slices" in str(line["reasons"]) for line in lines)
    assert {str(named)} <= {line["path"] for line in lines}
