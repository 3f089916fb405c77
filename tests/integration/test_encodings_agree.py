"""One exposure has one probability in whatever encoding it comes, from file to calibration."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from common.settings import Settings
from firstread.triage import TriageLine, triage_files
from model.bundles import SHIPPED, Bundle, find_bundles
from tests.radiographs import LOSSLESS, make_exposure, make_radiograph, write_radiograph
from tests.small_bundle import write_small_bundle

EXPOSURE = make_exposure(12, (500, 420))
DX = "1.2.840.10008.5.1.4.1.1.1.1"
ENCODINGS: list[dict[str, Any]] = [
    {"SOPClassUID": DX, "Modality": "DX", "PresentationLUTShape": "IDENTITY"},
    {"PhotometricInterpretation": "MONOCHROME1"},
    {
        "SOPClassUID": DX,
        "Modality": "DX",
        "PhotometricInterpretation": "MONOCHROME1",
        "PresentationLUTShape": "INVERSE",
    },
    {"WindowCenter": 2048, "WindowWidth": 4096},
    {"RescaleSlope": 0.25, "RescaleIntercept": -100},
]


def triage_encodings(folder: Path, bundle: Bundle) -> list[TriageLine]:
    """Write the exposure in every encoding and triage the files."""
    paths = [folder / "i.png"]
    Image.fromarray(EXPOSURE).save(paths[0])
    for syntax in LOSSLESS:
        dataset = make_radiograph(EXPOSURE, 12)
        paths.append(write_radiograph(dataset, folder / f"{syntax}.dcm", syntax))
    for number, tags in enumerate(ENCODINGS):
        inverted = tags.get("PhotometricInterpretation") == "MONOCHROME1"
        for bits, signed in ((12, False), (16, False), (16, True)):
            stored = 4095 - EXPOSURE if inverted else EXPOSURE
            dataset = make_radiograph(stored, bits, signed=signed, **tags)
            path = folder / f"{number}-{bits}-{signed}.dcm"
            paths.append(write_radiograph(dataset, path, ExplicitVRLittleEndian))
    settings = Settings(decode_processes=1, device="cpu")
    return list(triage_files(paths, bundles=[bundle], settings=settings))


def test_every_encoding_gets_the_same_probability_of_a_small_network(tmp_path: Path) -> None:
    check_agreement(triage_encodings(tmp_path, write_small_bundle(tmp_path / "bundle")))


def test_every_encoding_gets_the_same_probability_of_each_shipped_bundle(tmp_path: Path) -> None:
    shipped = [bundle for bundle in find_bundles(SHIPPED) if bundle.pipeline == "chest_xray"]
    assert shipped, "no chest radiograph bundle is shipped"
    for bundle in shipped:
        # The exposure is smooth noise, which a gate rightly refuses: here the rest is compared.
        check_agreement(triage_encodings(tmp_path, bundle.model_copy(update={"gate": None})))


def check_agreement(lines: list[TriageLine]) -> None:
    """Compare all lines with the first."""
    assert {line.state for line in lines} == {"done"}
    first = lines[0].probability
    assert first is not None
    assert 0 < first < 1
    for line in lines:
        assert line.probability == pytest.approx(first, abs=1e-4), line.path
