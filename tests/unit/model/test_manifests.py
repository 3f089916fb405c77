"""Manifests: what is refused, and what is made of the data sets that are known here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from common.errors import TrainingDataError
from firstread.cli import app
from model.training.manifests import ManifestRow, read_manifest, write_manifest
from model.training.nih_manifest import nih_manifest

HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
HEADER_OTHER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position"
)


def chestxray14(folder: Path, header: str = HEADER_2017, *, patients: int = 24) -> Path:
    """Write a small folder in the layout of ChestX-ray14: two images a patient."""
    (folder / "images_001" / "images").mkdir(parents=True)
    (folder / "images").mkdir()
    lines, names = [header], []
    for number in range(1, patients + 1):
        for follow_up in range(2):
            name = f"{number:08d}_{follow_up:03d}.png"
            findings = "No Finding" if number % 2 else "Effusion|Mass"
            age = {3: "013M", 4: "414", 5: "012Y"}.get(number, f"{20 + number:03d}Y")
            lines.append(f"{name},{findings},{follow_up},{number},{age},F,PA,2682,2749,0.143,0.143")
            where = folder / ("images" if follow_up else "images_001/images")
            Image.fromarray(np.full((4, 4), number, dtype=np.uint8)).save(where / name)
            names.append(name)
    (folder / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(names[:32]))
    (folder / "test_list.txt").write_text("\n".join(names[32:]) + "\n")
    return folder


@pytest.mark.parametrize("header", [HEADER_2017, HEADER_OTHER])
def test_the_official_lists_make_the_splits_and_val_is_cut_by_patient(
    tmp_path: Path, header: str
) -> None:
    made = nih_manifest(chestxray14(tmp_path, header), adults_only=False, val_share=0.25, seed=3)
    by_split = {split: [r for r in made.rows if r.split == split] for split in ("train", "val")}
    assert [r.path.name for r in made.rows if r.split == "test"] == (
        tmp_path / "test_list.txt"
    ).read_text().split()
    assert len({row.group for row in by_split["val"]}) == 4
    assert not {r.group for r in by_split["val"]} & {r.group for r in by_split["train"]}
    assert {row.label for row in made.rows if row.columns["findings"] == "No Finding"} == {False}
    assert {row.label for row in made.rows if row.columns["findings"] != "No Finding"} == {True}
    assert made.rows[0].columns["sex"] == "F"


def test_children_and_impossible_ages_are_left_out_and_counted(tmp_path: Path) -> None:
    made = nih_manifest(chestxray14(tmp_path))
    assert made.counts["left out: under 18 years"] == 4
    assert made.counts["left out: age unknown or impossible"] == 2
    assert made.counts["in the table"] == 48
    assert len(made.rows) == 42


def test_an_age_filter_moves_no_patient_between_splits(tmp_path: Path) -> None:
    chestxray14(tmp_path)
    every_age = {r.path: r.split for r in nih_manifest(tmp_path, adults_only=False).rows}
    assert all(every_age[row.path] == row.split for row in nih_manifest(tmp_path).rows)
    other = {r.path: r.split for r in nih_manifest(tmp_path, adults_only=False, seed=1).rows}
    assert other != every_age


def test_missing_images_stop_the_command_unless_allowed(tmp_path: Path) -> None:
    folder, out = chestxray14(tmp_path / "nih"), tmp_path / "manifest.csv"
    (folder / "images" / "00000007_001.png").unlink()
    command = ["train", "manifest", "nih", str(folder), "--out", str(out)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "00000007_001.png" in refused.stderr
    assert "--allow-missing" in refused.stderr
    assert not out.exists()
    allowed = CliRunner().invoke(app, [*command, "--allow-missing"])
    assert allowed.exit_code == 0
    assert "missing files: 1" in allowed.stdout
    manifest = read_manifest(out)
    assert len(manifest.rows) == 41
    assert all(row.path.is_file() for row in manifest.rows)
    assert manifest.fingerprint in (tmp_path / "manifest.run.json").read_text()


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        ManifestRow(
            tmp_path / "images" / "a.png", True, "p1", "train", {"sex": "F", "note": "x,y"}
        ),
        ManifestRow(Path("/elsewhere/b.dcm"), False, "p2", "", {"sex": "", "note": "ä"}),
    ]
    manifest = write_manifest(tmp_path / "manifest.csv", rows)
    assert list(manifest.rows) == rows
    assert manifest.of("train") == (rows[0],)
    assert "images/a.png,1" in manifest.path.read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("file,label,group\na.png,1,p\n", "no column split"),
        ("file,label,group,split\na.png,yes,p,train\n", "line 2, column label: 'yes'"),
        ("file,label,group,split\na.png,1,,train\n", "line 2, column group"),
        ("file,label,group,split\na.png,1,p,dev\n", "line 2, column split: 'dev'"),
        ("file,label,group,split\na.png,1,p\n", "line 2: not 4 values"),
        ("file,label,group,split\na.png,1,p,train\nb.png,0,p,val\n", "line 3, column group: 'p'"),
        ("file,label,group,split\na.png,1,p,val\na.png,0,p,val\n", "line 3, column file"),
        ("file,label,group,split\n", "no rows"),
    ],
)
def test_a_wrong_manifest_is_refused_by_line_and_column(
    tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    with pytest.raises(TrainingDataError) as refusal:
        read_manifest(path)
    assert told in str(refusal.value)


def test_a_manifest_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="firstread train manifest --help"):
        read_manifest(tmp_path / "none.csv")
