"""The gate of the shipped model against real radiographs and real files of every other kind."""

import csv
from pathlib import Path

import pytest

from common.errors import ImageError, SenderError
from common.pixels.reading import read_pixels
from model.bundles import SHIPPED, find_bundles
from model.gate import CHILD_REFUSAL, GATE, Gate, load_gate
from model.training.cases import read_case, read_cases

pytestmark = pytest.mark.data

# A dog on its side, and a chest whose photometric interpretation is exchanged: filed as chests.
NO_CHESTS = ("dx_image.dcm", "Fake_MONOHR1.dcm")


@pytest.fixture(scope="module")
def gate() -> Gate:
    with_gate = [bundle for bundle in find_bundles(SHIPPED) if bundle.gate is not None]
    if not with_gate:
        pytest.skip("no shipped bundle has a gate")
    bundle = with_gate[-1]
    assert bundle.gate is not None
    return load_gate(bundle.folder / GATE, bundle.gate)


def test_real_files_of_other_things_are_refused_and_chests_are_not(
    gate: Gate, test_data: Path
) -> None:
    chests: list[str | None] = []
    others: list[str | None] = []
    with (test_data / "dicom" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        try:
            image = read_pixels(test_data / "dicom" / row["file"])
        except (ImageError, SenderError):
            continue
        said = gate.judge(gate.look(image), stated=False, age_unknown=False)
        is_chest = row["category"] == "cxr" and not row["file"].endswith(NO_CHESTS)
        (chests if is_chest else others).append(said)
    assert len(others) > 150
    assert sum(said is not None for said in others) >= 0.95 * len(others)
    assert len(chests) >= 9
    assert set(chests) == {None}


def test_adults_pass_and_small_children_do_not_where_the_age_is_unknown(
    gate: Gate, test_data: Path
) -> None:
    cases = [case for case in read_cases(test_data / "cxr") if case.split == "val"]
    adults = [case for case in cases if case.adult]
    children = [case for case in cases if case.dataset == "kermany_pediatric"][:200]
    said = {
        name: [
            gate.judge(gate.look(read_case(case)), stated=False, age_unknown=True) for case in group
        ]
        for name, group in (("adults", adults), ("children", children))
    }
    assert sum(one is not None for one in said["adults"]) <= 0.02 * len(adults)
    assert said["children"].count(CHILD_REFUSAL) >= 0.95 * len(children)
