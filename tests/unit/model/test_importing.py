"""Importing: the right file becomes a bundle, any other is named in one line."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from common.errors import BundleError, CheckpointError, ConfigurationError
from firstread.cli import app
from model.bundles import Bundle, read_bundle
from model.clip_tokenizer import ClipTokenizer
from model.encoders.medimageinsight import build_image_encoder, convert_state_dict
from model.encoders.medimageinsight_text import MedImageInsightText
from model.encoders.vit import VitEncoder
from model.importing import expected_medimageinsight, import_checkpoint
from model.pipelines import load_encoder, load_pipeline
from model.zero_shot import ZeroShot, score_labels
from tests.clip_vocabulary import write_tokenizer
from tests.pretrained_twins import DINOV2_TWIN, MEDIMAGEINSIGHT_TWIN, TEXT_TWIN, UNI_TWIN

SIZE_PX = 96
Tensors = dict[str, Tensor]


def official_tensors() -> Tensors:
    """Fill the official names of the twin at random."""
    torch.manual_seed(0)
    expected = expected_medimageinsight(MEDIMAGEINSIGHT_TWIN)
    tensors = {name: torch.randn(shape) * 0.2 for name, shape in expected.items()}
    return tensors | {"logit_scale": torch.tensor(2.0)}


def write_official(folder: Path, tensors: Tensors | None = None) -> Path:
    """Lay files out as they are published."""
    checkpoint = folder / "vision_model" / "medimageinsigt-v1.0.0.pt"
    checkpoint.parent.mkdir(parents=True)
    save_file(tensors if tensors is not None else official_tensors(), checkpoint)
    write_tokenizer(folder / "language_model" / "clip_tokenizer_4.16.2")
    return checkpoint


def import_twin(path: Path, folder: Path) -> Bundle:
    """Import as the command does, but at the twin's size."""
    return import_checkpoint(
        "medimageinsight", path, folder, encoder=MEDIMAGEINSIGHT_TWIN, size_px=SIZE_PX
    ).bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("official")
    write_official(folder / "2024.09.27")
    return import_twin(folder / "2024.09.27", folder / "bundle")


def test_what_is_imported_computes_what_the_checkpoint_holds(bundle: Bundle) -> None:
    tensors = official_tensors()
    twin = MEDIMAGEINSIGHT_TWIN
    davit = build_image_encoder(twin.widths, twin.heads, twin.depths)
    davit.load_state_dict(convert_state_dict(tensors), strict=True)
    images = torch.rand(2, 3, SIZE_PX, SIZE_PX)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (twin.mean, twin.std))

    with torch.inference_mode():
        embedding = load_encoder(bundle)(images).embedding
        expected = davit((images - mean) / std) @ tensors["image_projection"]

    expected = expected / expected.norm(dim=-1, keepdim=True)
    assert (embedding - expected).abs().max().item() < 1e-5


def test_a_bundle_without_head_says_what_it_lacks_and_what_to_do(bundle: Bundle) -> None:
    assert read_bundle(bundle.folder) == bundle
    assert bundle.missing() == [
        "head",
        "calibrator",
        "operating points",
        "default operating point",
        "evaluation on 100 cases per class, unseen by training and calibration",
    ]
    with pytest.raises(BundleError, match="firstread train"):
        load_pipeline(bundle, "cpu")


def test_every_further_file_is_bound_by_its_hash(bundle: Bundle, tmp_path: Path) -> None:
    for name in (*bundle.files, "bundle.json"):
        (tmp_path / name).write_bytes((bundle.folder / name).read_bytes())
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")

    with pytest.raises(BundleError, match=r"merges\.txt is not the file"):
        read_bundle(tmp_path)


def test_upstreams_old_names_are_understood(tmp_path: Path, bundle: Bundle) -> None:
    old = {
        name.replace("image_encoder.", "visual.")
        .replace("lang_encoder.", "text.")
        .replace("image_projection", "vision_projection")
        .replace("lang_projection", "text_projection"): tensor
        for name, tensor in official_tensors().items()
    }
    write_official(tmp_path / "old", old)

    imported = import_twin(tmp_path / "old", tmp_path / "bundle")

    assert load_file(imported.weights).keys() == load_file(bundle.weights).keys()
    assert imported.files == bundle.files | {"card.md": imported.files["card.md"]}


def pickled(tensors: Tensors, path: Path) -> None:
    torch.save(tensors, path)


def shortened(_: Tensors, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def cut_in_the_header(_: Tensors, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def garbage(_: Tensors, path: Path) -> None:
    path.write_bytes(b"<!doctype html>" * 100)


def empty(_: Tensors, path: Path) -> None:
    path.write_bytes(b"")


def without_norms(tensors: Tensors, path: Path) -> None:
    save_file({k: v for k, v in tensors.items() if not k.startswith("image_encoder.norms")}, path)


def with_a_classifier(tensors: Tensors, path: Path) -> None:
    save_file(tensors | {"head.weight": torch.zeros(2)}, path)


def of_another_size(tensors: Tensors, path: Path) -> None:
    save_file(tensors | {"image_projection": torch.zeros(64, 31)}, path)


def of_whole_numbers(tensors: Tensors, path: Path) -> None:
    save_file(tensors | {"logit_scale": torch.tensor(4)}, path)


def with_no_number(tensors: Tensors, path: Path) -> None:
    save_file(tensors | {"logit_scale": torch.tensor(float("nan"))}, path)


def without_tokenizer(_: Tensors, path: Path) -> None:
    next(path.parent.parent.rglob("vocab.json")).unlink()


def with_another_tokenizer(_: Tensors, path: Path) -> None:
    tokenizer = next(path.parent.parent.rglob("vocab.json")).parent
    write_tokenizer(tokenizer, official_numbers=True)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (pickled, "is a pickle"),
        (shortened, "cut off"),
        (cut_in_the_header, "ends within its header"),
        (garbage, "is no safetensors file"),
        (empty, "is no safetensors file"),
        (without_norms, r"lacks 2 of \d+ tensors: image_encoder\.norms"),
        (with_a_classifier, r"1 tensors that the encoder does not know: head\.weight"),
        (of_another_size, r"image_projection is \[64, 31\], not \[64, 32\]"),
        (of_whole_numbers, "no floats: logit_scale"),
        (with_no_number, "logit_scale holds what is no finite number"),
        (without_tokenizer, "no tokenizer beside"),
        (with_another_tokenizer, "has 49408 pieces"),
    ],
)
def test_any_other_file_is_named_in_one_line_and_leaves_nothing(
    tmp_path: Path, spoil: Callable[[Tensors, Path], None], complaint: str
) -> None:
    tensors = official_tensors()
    spoil(tensors, write_official(tmp_path / "official", tensors))

    with pytest.raises(CheckpointError, match=complaint) as raised:
        import_twin(tmp_path / "official", tmp_path / "bundles" / "new")

    assert "\n" not in str(raised.value)
    assert not (tmp_path / "bundles").exists()


def test_an_existing_folder_is_never_written_over(bundle: Bundle, tmp_path: Path) -> None:
    write_official(tmp_path)

    with pytest.raises(CheckpointError, match="exists"):
        import_twin(tmp_path, bundle.folder)


def test_the_command_wants_the_official_network_and_says_so(tmp_path: Path) -> None:
    write_official(tmp_path / "twin")
    write_tokenizer(tmp_path / "tokenizer", official_numbers=True)
    arguments = ["models", "import", "medimageinsight", str(tmp_path / "twin")]

    result = CliRunner().invoke(
        app, [*arguments, "--tokenizer", str(tmp_path / "tokenizer"), "--to", str(tmp_path / "b")]
    )

    assert result.exit_code == 2
    assert "lacks" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("family", ["dinov2", "uni"])
@pytest.mark.parametrize("as_pickle", [False, True])
def test_vision_transformers_are_imported_from_either_kind_of_file(
    tmp_path: Path, family: str, as_pickle: bool
) -> None:
    spec = DINOV2_TWIN if family == "dinov2" else UNI_TWIN
    torch.manual_seed(0)
    encoder = VitEncoder(spec).eval()
    tensors = encoder.vit.state_dict()
    path = tmp_path / "weights.bin"
    torch.save(tensors, path) if as_pickle else save_file(tensors, path)

    assert family in ("dinov2", "uni")
    imported = import_checkpoint(family, path, tmp_path / "b", encoder=spec, size_px=112)  # pyright: ignore[reportArgumentType]

    images = torch.rand(1, 1, 112, 112)
    with torch.inference_mode():
        assert torch.equal(load_encoder(imported.bundle)(images).spatial, encoder(images).spatial)
    assert not imported.official
    assert imported.bundle.missing()[0] == "head"


def test_dinov2s_own_names_give_the_same_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VitEncoder(DINOV2_TWIN).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    own = encoder.vit.state_dict()
    of_class = torch.randn(1, 1, DINOV2_TWIN.width)
    own["register_tokens"] = own.pop("reg_token")
    own["cls_token"] = own["cls_token"] - of_class
    own["pos_embed"] = torch.cat([of_class, own["pos_embed"]], dim=1)
    own["mask_token"] = torch.zeros(1, DINOV2_TWIN.width)
    torch.save(own, tmp_path / "dinov2.pth")

    imported = import_checkpoint(
        "dinov2", tmp_path, tmp_path / "bundle", encoder=DINOV2_TWIN, size_px=112
    )

    images = torch.rand(1, 3, 112, 112)
    with torch.inference_mode():
        ours, theirs = load_encoder(imported.bundle)(images), encoder(images)
    assert (ours.embedding - theirs.embedding).abs().max().item() < 1e-4


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump(print, buffer)
    (tmp_path / "uni.bin").write_bytes(buffer.getvalue())

    with pytest.raises(CheckpointError, match="more than tensors") as raised:
        import_checkpoint("uni", tmp_path / "uni.bin", tmp_path / "bundle")

    assert "\n" not in str(raised.value)


def test_a_size_that_the_patches_do_not_fill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="multiple of 14"):
        import_checkpoint("dinov2", tmp_path, tmp_path / "bundle", size_px=500)


def test_labels_are_the_mean_of_their_prompts(bundle: Bundle) -> None:
    zero_shot = ZeroShot(bundle, torch.device("cpu"))
    templates = ("x-ray chest {}", "chest {} x-ray")
    text = MedImageInsightText(TEXT_TWIN).eval()
    stored = official_tensors()
    text.load_state_dict({name: stored[name] for name in text.state_dict()}, strict=True)
    ids, mask = ClipTokenizer(bundle.folder).encode(["x-ray chest finding", "chest finding x-ray"])

    with torch.inference_mode():
        one, other = text(torch.from_numpy(ids), torch.from_numpy(mask))
        (label,) = zero_shot.embed_labels(["finding"], templates)

    mean = (one + other) / 2
    assert (label - mean / mean.norm()).abs().max().item() < 1e-6
    assert zero_shot.scale == pytest.approx(7.389056, rel=1e-6)


def test_shares_are_a_softmax_of_scaled_cosines() -> None:
    images = torch.tensor([[1.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0], [0.6, 0.8]])

    cosines, shares = score_labels(images, labels, scale=10.0)

    assert cosines[0].tolist() == pytest.approx([1.0, 0.6])
    assert shares[0].tolist() == pytest.approx([0.982014, 0.017986], abs=1e-6)


def test_the_zero_shot_command_scores_each_file(bundle: Bundle, tmp_path: Path) -> None:
    Image.effect_noise((120, 100), 60).save(tmp_path / "a.png")
    (tmp_path / "b.dcm").write_bytes(b"no image")
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.dcm")]
    labels = ["--label", "No Finding", "--label", "Cardiomegaly"]

    result = CliRunner().invoke(
        app, ["models", "zero-shot", str(bundle.folder), *files, *labels, "--json"]
    )

    assert result.exit_code == 1  # the second file is no image; the first is scored all the same
    assert '"label": "No Finding"' in result.stdout
    assert result.stdout.count("\n") == 1
    assert "not calibrated" in result.stderr
    assert "b.dcm" in result.stderr
