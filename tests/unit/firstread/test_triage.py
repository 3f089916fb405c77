"""Triage of files: one line each, in order, whatever lies between them."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.errors import ConfigurationError, PredictionError
from common.settings import Settings
from firstread.triage import TriageLine, find_files, triage, triage_files
from model.bundles import Bundle
from model.pipelines import Prediction
from tests.radiographs import make_exposure, make_radiograph, write_radiograph
from tests.worker_parts import make_bundle

EXPOSURE = make_exposure(12)
SETTINGS = Settings(decode_processes=1, max_batch=3, decode_deadline_s=30)
KEYS = [
    *("path", "sop_instance_uid", "state", "outcome", "probability", "score", "reasons"),
    *("bundle", "heatmap"),
]


class MeanPipeline:
    """Scores an image by its mean; fails on batches that hold one with a bright top left corner."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.batches: list[int] = []

    def predict(self, images: NDArray[np.float32]) -> list[Prediction]:
        """Score images (B, S, S)."""
        self.batches.append(len(images))
        if (images[:, :2, :2].min(axis=(1, 2)) > 1.9).any():
            raise PredictionError("no finite answer")
        heatmap = np.zeros((4, 4), np.float16)
        heatmap[0, 3] = 1
        return [Prediction(float(image.mean()), 0.5, heatmap) for image in images]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    bundle = make_bundle(tmp_path_factory.mktemp("bundles") / "echo")
    rules = bundle.eligibility.model_copy(update={"phantoms_only": True})
    phantom = bundle.model_copy(
        update={"name": "toy", "pipeline": "phantom", "sha256": "1", "eligibility": rules}
    )
    return [bundle, phantom]


@pytest.fixture
def run(bundles: list[Bundle]) -> Callable[..., list[TriageLine]]:
    """Triage paths with pipelines that score by the mean."""

    def run_triage(paths: Sequence[Path], heatmaps: Path | None = None) -> list[TriageLine]:
        files = find_files(paths)
        return list(
            triage_files(
                files, bundles=bundles, heatmaps=heatmaps, settings=SETTINGS, load=MeanPipeline
            )
        )

    return run_triage


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Write one file of each fate, with more of them than a batch holds."""
    poison = EXPOSURE.copy()
    poison[:75, :60] = 4095
    real = make_radiograph(EXPOSURE, 12)
    phantom = make_radiograph(EXPOSURE, 12)
    block = phantom.private_block(0x0019, "FIRSTREAD SIMULATOR", create=True)
    block.add_new(0x01, "LO", "PHANTOM")
    (tmp_path / "letter.dcm").write_text("no image")
    Image.fromarray(EXPOSURE).save(tmp_path / "plain.png")
    cut = write_radiograph(real, tmp_path / "cut.dcm")
    cut.write_bytes(cut.read_bytes()[:-1000])
    return [
        write_radiograph(real, tmp_path / "real.dcm"),
        tmp_path / "letter.dcm",
        write_radiograph(make_radiograph(EXPOSURE, 12, PatientAge="005Y"), tmp_path / "child.dcm"),
        tmp_path / "plain.png",
        write_radiograph(phantom, tmp_path / "phantom.dcm"),
        write_radiograph(make_radiograph(poison, 12), tmp_path / "poison.dcm"),
        write_radiograph(real, tmp_path / "again.dcm"),
        cut,
        tmp_path / "nowhere.dcm",
    ]


def test_every_file_gets_its_line_in_input_order(
    mixed: list[Path], run: Callable[..., list[TriageLine]]
) -> None:
    lines = run(mixed)
    assert [line.path for line in lines] == [str(path) for path in mixed]
    assert [(line.state, line.reasons) for line in lines] == [
        ("done", []),
        ("failed", ["not a DICOM data set"]),
        ("not_eligible", ["under 18 years"]),
        ("done", ["no tags to check"]),
        ("done", []),
        ("failed", ["no finite answer"]),
        ("done", []),
        ("failed", ["35000 bytes of pixels where 36000 are declared"]),
        ("failed", ["cannot be read: No such file or directory"]),
    ]
    assert [line.bundle for line in lines if line.state == "done"] == [
        *("echo 1.0.0", "echo 1.0.0", "toy 1.0.0", "echo 1.0.0")
    ]


def test_encodings_of_one_exposure_get_one_probability(
    mixed: list[Path], run: Callable[..., list[TriageLine]]
) -> None:
    done = [line for line in run(mixed) if line.state == "done"]
    assert len(done) == 4
    for line in done:
        assert line.probability == pytest.approx(done[0].probability, abs=1e-4)
        assert line.outcome == ("flagged" if (line.probability or 0) >= 0.5 else "not_flagged")


def test_json_has_one_object_a_line_and_a_failure_sets_the_exit_status(
    mixed: list[Path], bundles: list[Bundle]
) -> None:
    out = io.StringIO()
    status = triage(
        mixed, bundles=bundles, json=True, settings=SETTINGS, load=MeanPipeline, out=out
    )
    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    assert status == 1
    assert len(objects) == len(mixed)
    assert all(list(one) == KEYS for one in objects)
    assert objects[1]["outcome"] is None
    assert objects[3]["sop_instance_uid"] is None


def test_the_table_names_each_image_and_success_is_zero(
    mixed: list[Path], bundles: list[Bundle]
) -> None:
    out = io.StringIO()
    status = triage(mixed[:1], bundles=bundles, settings=SETTINGS, load=MeanPipeline, out=out)
    head, row = out.getvalue().splitlines()
    assert status == 0
    assert head.split() == ["STATE", "OUTCOME", "PROBABILITY", "IMAGE"]
    assert row.startswith("done")
    assert row.endswith(str(mixed[0]))


def test_heatmaps_are_drawn_for_scored_images_alone(
    mixed: list[Path], run: Callable[..., list[TriageLine]], tmp_path: Path
) -> None:
    folder = tmp_path / "maps" / "new"
    lines = run(mixed[:5], heatmaps=folder)
    named = [line.heatmap for line in lines if line.heatmap]
    assert [line.heatmap is not None for line in lines] == [True, False, False, True, True]
    assert sorted(named) == sorted(str(path) for path in folder.iterdir())
    drawn = np.asarray(cv2.imread(named[0])).astype(int)
    grey = np.rint(EXPOSURE / 4095 * 255).astype(int)
    picture = drawn[: grey.shape[0], : grey.shape[1]]  # the caption is below it
    cold, hot = picture[80:, :60], picture[:15, -15:]
    assert np.abs(cold - grey[80:, :60, None]).max() <= 1  # 0 on the scale leaves it alone
    assert np.ptp(hot, axis=2).min() > 40  # 1 on the scale is coloured


def test_folders_are_searched_in_order_and_strangers_left_out(tmp_path: Path) -> None:
    for name in (
        "b/2.dcm",
        "b/1.png",
        "a/IM0001",
        "a/1.2.826.0.55",
        "c.txt",
        ".hidden",
        "DICOMDIR",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "in" / "a" / "1.2.826.0.55").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "named.txt").write_text("")
    found = list(find_files([tmp_path / "named.txt", tmp_path / "in"]))
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        *("named.txt", "in/a/1.2.826.0.55", "in/a/IM0001", "in/b/1.png", "in/b/2.dcm")
    ]


def test_thousands_of_files_are_not_read_ahead(tmp_path: Path, bundles: list[Bundle]) -> None:
    Image.fromarray(EXPOSURE).save(tmp_path / "i.png")
    taken = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(1)
            yield tmp_path / "i.png"

    lines = triage_files(endless(), bundles=bundles, settings=SETTINGS, load=MeanPipeline)
    assert next(lines).state == "done"
    assert len(taken) <= 4 * SETTINGS.max_batch
    lines.close()


def test_no_bundle_for_radiographs_is_the_operators_fault(bundles: list[Bundle]) -> None:
    with pytest.raises(ConfigurationError):
        next(triage_files([], bundles=bundles[1:], settings=SETTINGS, load=MeanPipeline))
