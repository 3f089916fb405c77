"""What travels to the browser for one image."""

import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.archive import Archive
from common.pixels.rendition import write_rendition
from common.states import AnalysisState, Outcome
from dashboard.study_panel import viewer_link
from dashboard.study_record import Heatmap, ImageRecord
from dashboard.viewer import payload

AFFINE = (40.0, 0.0, 0.0, 0.0, 30.0, 0.0)
IMAGE = ImageRecord(
    instance_id=7,
    sop_instance_uid="2.25.7",
    modality="DX",
    view_position="PA",
    received_at=datetime(2026, 11, 22, tzinfo=UTC),
    analysis_id=9,
    pipeline="phantom",
    model="test 1",
    state=AnalysisState.DONE,
    outcome=Outcome.FLAGGED,
    probability=0.9,
    threshold=0.4,
    reasons=(),
    error=None,
    rows=30,
    columns=40,
    rendition="renditions/ab/ab.png",
    deleted=False,
    heatmap=Heatmap(np.array([[0.0, 0.5]], np.float32), AFFINE),
    leading=True,
)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    path = archive.path("renditions/ab/ab.png")
    path.parent.mkdir(parents=True)
    write_rendition(np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40), path)
    return archive


def unpack(packed: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<I", packed)
    return json.loads(packed[4 : 4 + length]), packed[4 + length :]


def test_the_picture_travels_as_it_lies_in_the_archive(archive: Archive) -> None:
    header, picture = unpack(payload(IMAGE, archive, "Image 1 of 1"))
    assert picture == archive.path("renditions/ab/ab.png").read_bytes()
    assert header["missing"] == ""
    assert header["title"] == "Image 1 of 1"


def test_the_heatmap_keeps_its_absolute_scale(archive: Archive) -> None:
    header, _ = unpack(payload(IMAGE, archive, ""))
    assert header["heatmap"] == {
        "rows": 1,
        "columns": 2,
        "values": [0.0, 0.5],
        "affine": list(AFFINE),
    }


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [(Outcome.FLAGGED, True), (Outcome.NOT_FLAGGED, False), (Outcome.ABSTAINED, False)],
)
def test_only_a_flagged_image_shows_its_heatmap_unasked(
    archive: Archive, outcome: Outcome, shown: bool
) -> None:
    header, _ = unpack(payload(replace(IMAGE, outcome=outcome), archive, ""))
    assert header["overlay_shown"] is shown


def test_a_flag_without_localisation_is_said_to_have_none(archive: Archive) -> None:
    image = replace(IMAGE, reasons=("no localisation supports the flag",))
    header, _ = unpack(payload(image, archive, ""))
    assert "No localisation supports the flag" in header["overlay_text"]
    assert header["caution"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rendition": None}, "No picture was made"),
        ({"rendition": None, "state": AnalysisState.QUEUED}, "waits for its turn"),
        ({"rendition": None, "state": AnalysisState.FAILED}, "could not be read"),
        ({"rendition": "renditions/cd/cd.png"}, "missing from the archive"),
        ({"rendition": "../../etc/passwd"}, "missing from the archive"),
        ({"rendition": "renditions/damaged.png"}, "damaged"),
    ],
)
def test_where_there_is_no_picture_a_sentence_stands(
    archive: Archive, change: dict[str, Any], words: str
) -> None:
    archive.path("renditions/damaged.png").write_bytes(b"not a picture")
    header, picture = unpack(payload(replace(IMAGE, **change), archive, ""))
    assert words in header["missing"]
    assert picture == b""


def test_what_a_sender_wrote_cannot_leave_its_place_in_the_viewers_address() -> None:
    link = viewer_link(
        "https://pacs.test/?s={study_instance_uid}&a={accession_number}",
        study_instance_uid="2.25.1",
        accession_number="A&b=1#x/../{study_instance_uid}",
    )
    assert link == ("https://pacs.test/?s=2.25.1&a=A%26b%3D1%23x%2F..%2F%7Bstudy_instance_uid%7D")
    assert viewer_link("", study_instance_uid="2.25.1", accession_number="") == ""
