"""The gate: what it sees, what it refuses, and how it stands beside the tags."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from common.errors import BundleError
from model.bundles import SHIPPED, Bundle, find_bundles, read_bundle, write_description
from model.eligibility import Note, Policy
from model.examination import examine
from model.gate import (
    CHEST_REFUSAL,
    CHILD_REFUSAL,
    GATE,
    JUDGED_BY_PIXELS,
    Gate,
    GateSpec,
    Kind,
    Sight,
    load_gate,
)
from model.gate_features import describe, glance
from model.training.gate_nonsense import Kind as NonsenseKind
from model.training.gate_packing import add_gate, read_gate
from model.training.gate_variants import invert
from tests.radiographs import make_radiograph, write_radiograph
from tests.small_bundle import write_small_bundle
from tests.small_gate import NONSENSE, make_small_gate, phantom

UNSAID: dict[str, Any] = {"ViewPosition": "", "BodyPartExamined": ""}


@pytest.fixture(scope="module")
def gate() -> Gate:
    return make_small_gate()


@pytest.fixture(scope="module")
def bundle(gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_small_bundle(folder)
    return add_gate(folder, gate)


def write_phantom(path: Path, seed: int = 200, **tags: Any) -> Path:  # noqa: ANN401 - DICOM values
    stored = np.rint(phantom(seed) * 4095).astype(np.uint16)
    return write_radiograph(make_radiograph(stored, 12, **tags), path)


def refusal(gate: Gate, image: np.ndarray) -> str | None:
    return gate.judge(gate.look(image), stated=False, age_unknown=False)


def test_a_gate_takes_new_images_of_the_kind_that_it_was_shown(gate: Gate) -> None:
    assert [refusal(gate, phantom(seed)) for seed in range(300, 310)] == [None] * 10


@pytest.mark.parametrize("make", NONSENSE, ids=lambda make: make.__name__)
def test_nonsense_is_refused(gate: Gate, make: NonsenseKind) -> None:
    rng = np.random.default_rng(99)
    for _ in range(5):
        said = refusal(gate, make(rng))
        assert said is not None
        assert said.startswith(CHEST_REFUSAL)


def test_a_reason_names_what_the_image_looks_like(gate: Gate) -> None:
    assert refusal(gate, invert(phantom(301))) == f"{CHEST_REFUSAL}: {Kind.INVERTED}"
    grey = np.full((200, 180), 0.4, dtype=np.float32)
    assert refusal(gate, grey) == f"{CHEST_REFUSAL}: {Kind.BLANK}"
    assert refusal(gate, phantom(301)[:, :63]) == f"{CHEST_REFUSAL}: {Kind.TOO_SMALL}"


def test_size_and_grey_scale_change_no_judgement(gate: Gate) -> None:
    image = phantom(302)
    large = np.kron(image, np.ones((5, 5), dtype=np.float32))
    for other in (large, 0.2 + image / 3, np.rint(image * 65535).astype(np.uint16)):
        assert gate.look(other).chest == pytest.approx(gate.look(image).chest, abs=0.5)


def test_tags_that_say_frontal_chest_count_as_evidence() -> None:
    spec = GateSpec(least_chest=0, least_adult=0, most_unlike=2, chosen_on="nothing")
    gate = make_small_gate().with_limits(spec)
    doubtful = Sight(Kind.LATERAL, chest=-3, adult=5, unlike=1)
    hopeless = Sight(Kind.LATERAL, chest=-5, adult=5, unlike=1)
    strange = Sight(Kind.ADULT, chest=5, adult=5, unlike=3)
    for sight, unsaid, said in (
        (doubtful, f"{CHEST_REFUSAL}: lateral", None),
        (hopeless, f"{CHEST_REFUSAL}: lateral", f"{CHEST_REFUSAL}: lateral"),
        (strange, f"{CHEST_REFUSAL}: {Kind.UNLIKE}", None),
    ):
        assert gate.judge(sight, stated=False, age_unknown=False) == unsaid
        assert gate.judge(sight, stated=True, age_unknown=False) == said


def test_only_an_unknown_age_is_judged_by_pixels() -> None:
    spec = GateSpec(least_chest=0, least_adult=0, most_unlike=2, chosen_on="nothing")
    gate = make_small_gate().with_limits(spec)
    child = Sight(Kind.CHILD, chest=5, adult=-1, unlike=1)
    assert gate.judge(child, stated=True, age_unknown=False) is None
    assert gate.judge(child, stated=True, age_unknown=True) == CHILD_REFUSAL


def test_a_gate_read_from_its_file_judges_as_before(gate: Gate, tmp_path: Path) -> None:
    gate.write(tmp_path / GATE)
    again = load_gate(tmp_path / GATE, gate.spec)
    features = describe(glance(phantom(303)))[None]
    assert again.weigh(features) == gate.weigh(features)
    assert (tmp_path / GATE).stat().st_size < 1_500_000


def test_a_file_that_holds_no_gate_is_refused(tmp_path: Path, gate: Gate) -> None:
    (tmp_path / GATE).write_bytes(b"no gate")
    with pytest.raises(BundleError, match="holds no gate"):
        load_gate(tmp_path / GATE, gate.spec)


def test_the_gate_belongs_to_the_bundle_and_its_hash(tmp_path: Path, gate: Gate) -> None:
    without = write_small_bundle(tmp_path)
    packed = add_gate(tmp_path, gate)
    assert packed.gate == gate.spec
    assert packed.sha256 != without.sha256
    assert "## Gate" in (tmp_path / "card.md").read_text()
    (tmp_path / GATE).write_bytes((tmp_path / GATE).read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match=GATE):
        read_bundle(tmp_path)


def test_a_gate_is_carried_over_from_one_bundle_to_the_next_as_it_is(
    tmp_path: Path, gate: Gate
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_small_bundle(old)
    write_small_bundle(new)
    with pytest.raises(BundleError, match="no gate to carry over"):
        read_gate(old)
    before = add_gate(old, gate)

    carried, origin = read_gate(old)
    after = add_gate(new, carried, origin=origin)

    assert after.gate == before.gate
    assert after.files[GATE] == before.files[GATE]
    assert after.training["gate_carried_over_from"] == "small 0.0.1"
    assert "that of small 0.0.1, carried over as it is" in (new / "card.md").read_text()


def test_a_gate_whose_parts_do_not_fit_is_refused_at_loading_and_keeps_a_bundle_incomplete(
    tmp_path: Path, gate: Gate
) -> None:
    gate.write(tmp_path / GATE)
    tensors = load_file(tmp_path / GATE)
    tensors["weight"] = tensors["weight"][1:].copy()
    write_small_bundle(tmp_path / "bundle")
    save_file(tensors, tmp_path / "bundle" / GATE)
    fields = read_bundle(tmp_path / "bundle").model_dump(exclude={"files", "folder", "sha256"})
    described = write_description(tmp_path / "bundle", {**fields, "gate": gate.spec}, (GATE,))

    with pytest.raises(BundleError, match="holds no gate"):
        described.load_gate()
    assert described.missing() == ["gate that can be read"]


def test_a_bundle_with_a_text_tower_takes_a_gate_and_keeps_its_files(
    tmp_path: Path, gate: Gate
) -> None:
    write_small_bundle(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    fields = read_bundle(tmp_path).model_dump(exclude={"files", "folder", "sha256"})
    write_description(tmp_path, fields, ("vocab.json",))

    packed = add_gate(tmp_path, gate)

    assert {GATE, "vocab.json"} <= packed.files.keys()
    assert packed.load_gate() is not None


def test_a_described_gate_without_its_file_is_refused(tmp_path: Path, gate: Gate) -> None:
    with pytest.raises(BundleError, match="names no gate"):
        write_small_bundle(tmp_path, gate=gate.spec)


def test_an_image_that_says_nothing_is_judged_by_its_pixels(tmp_path: Path, bundle: Bundle) -> None:
    path = write_phantom(tmp_path / "i.dcm", **UNSAID)
    examined = examine(path, bundle, Policy(), tmp_path / "r.png")
    assert examined.eligible
    assert examined.reasons == (Note.NO_VIEW, Note.NO_BODY_PART, JUDGED_BY_PIXELS)
    assert examined.pixels is not None


def test_without_a_gate_such_an_image_stays_refused(tmp_path: Path, bundle: Bundle) -> None:
    path = write_phantom(tmp_path / "i.dcm", **UNSAID)
    examined = examine(path, bundle.model_copy(update={"gate": None}), Policy())
    assert (examined.eligible, examined.reasons) == (False, ("view unknown",))


def test_what_the_pixels_refuse_is_pictured_and_explained(tmp_path: Path, bundle: Bundle) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, size=(150, 120), dtype=np.uint16)
    path = write_radiograph(make_radiograph(noise, 12, **UNSAID), tmp_path / "i.dcm")
    examined = examine(path, bundle, Policy(), tmp_path / "r.png")
    assert not examined.eligible
    assert examined.pixels is None
    assert len(examined.reasons) == 1
    assert examined.reasons[0].startswith(CHEST_REFUSAL)
    assert examined.rendition_written
    assert (examined.rows, examined.columns) == (150, 120)


def test_tags_that_speak_against_an_image_win(tmp_path: Path, bundle: Bundle) -> None:
    path = write_phantom(tmp_path / "i.dcm", ViewPosition="LL")
    assert examine(path, bundle, Policy()).reasons == ("non-frontal view",)
    path = write_phantom(tmp_path / "j.dcm", BodyPartExamined="HAND")
    assert examine(path, bundle, Policy()).reasons == ("other body part",)


def test_an_unknown_age_is_left_to_the_pixels_where_the_site_says_so(
    tmp_path: Path, bundle: Bundle
) -> None:
    path = write_phantom(tmp_path / "i.dcm", PatientAge="")
    by_pixels = Policy(unknown_age="by_pixels")
    assert examine(path, bundle, Policy()).reasons == ("age unknown",)
    assert examine(path, bundle, by_pixels).reasons == (Note.NO_AGE, JUDGED_BY_PIXELS)
    without_gate = bundle.model_copy(update={"gate": None})
    assert examine(path, without_gate, by_pixels).reasons == ("age unknown",)
    assert bundle.gate is not None
    for_adults_alone = bundle.gate.model_copy(update={"least_adult": 1e3})
    strict = bundle.model_copy(update={"gate": for_adults_alone})
    assert examine(path, strict, by_pixels).reasons == (CHILD_REFUSAL,)


def test_a_picture_without_tags_passes_the_gate_or_not(tmp_path: Path, bundle: Bundle) -> None:
    Image.fromarray(np.rint(phantom(304) * 255).astype(np.uint8)).save(tmp_path / "i.png")
    assert examine(tmp_path / "i.png", bundle, Policy()).reasons == (
        Note.NO_TAGS,
        JUDGED_BY_PIXELS,
    )
    noise = np.random.default_rng(1).integers(0, 256, size=(200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "n.png")
    assert not examine(tmp_path / "n.png", bundle, Policy()).eligible


def test_the_phantom_pipeline_has_no_gate() -> None:
    (phantoms,) = [bundle for bundle in find_bundles(SHIPPED) if bundle.pipeline == "phantom"]
    assert phantoms.gate is None


def test_looking_needs_no_torch() -> None:
    asked = "import sys, model.gate, model.examination; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
