"""Turn the checkpoint of a public encoder into a bundle: checked, renamed, still without a head."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import CheckpointError, ConfigurationError
from model.bundles import CARD, WEIGHTS, Bundle, read_bundle, write_description
from model.checkpoint_files import check_tensors, file_sha256, read_safetensors_header
from model.clip_tokenizer import MERGES, VOCABULARY, ClipTokenizer
from model.encoders.building import build_encoder
from model.encoders.medimageinsight import (
    PREFIX,
    PROJECTION,
    MedImageInsightSpec,
    convert_name,
    official_name,
)
from model.encoders.medimageinsight_text import MedImageInsightText, TextSpec
from model.encoders.vit import DinoV2Spec, UniSpec
from model.import_families import FAMILIES, Family, import_card
from model.preprocessing import PreprocessingSpec
from model.vit_checkpoint import open_vit_checkpoint

TEXT = "text.safetensors"
TOKENIZER_FILES = (VOCABULARY, MERGES)
# Names that upstream's loader accepts beside today's.
OLD_PREFIXES = {"visual.": PREFIX, "text.": "lang_encoder."}
OLD_NAMES = {"vision_projection": PROJECTION, "text_projection": "lang_projection"}

Say = Callable[[str], None]


class Imported(NamedTuple):
    """A bundle that was just written, and whether its weights are the published bytes."""

    bundle: Bundle
    checkpoint_sha256: str
    official: bool


class _Renamed(NamedTuple):
    """Tensors under the names of the bundle's files."""

    encoder: dict[str, Tensor]
    text: dict[str, Tensor]


def import_checkpoint(
    family: Family,
    path: Path,
    folder: Path,
    *,
    tokenizer: Path | None = None,
    size_px: int | None = None,
    encoder: MedImageInsightSpec | DinoV2Spec | UniSpec | None = None,
    say: Say = lambda _: None,
) -> Imported:
    """Check a checkpoint, name by name and shape by shape, and write it as a bundle.

    Args:
        family: Whose checkpoint it should be.
        path: The file, or a folder that holds it alone, as deep as the official one lies.
        folder: The bundle to write; must not exist. It appears whole or not at all.
        tokenizer: Folder of vocab.json and merges.txt; None: found beside the checkpoint.
        size_px: Side of the encoder's input; None: the one it was trained for.
        encoder: Another size than the official network; for twins.
        say: Told of progress, a line at a time.

    Raises:
        CheckpointError: the file, its tokenizer or the folder cannot be used; one line says why.
        ConfigurationError: the encoder cannot take images of ``size_px``.
        OSError: a file cannot be read or written.
    """
    about = FAMILIES[family]
    spec = encoder or about.encoder
    patch_px = {"medimageinsight": 32, "dinov2": 14, "uni": 16}[family]
    if (size_px or about.size_px) % patch_px:
        raise ConfigurationError(f"--size-px must be a multiple of {patch_px} for {family}")
    if folder.exists():
        raise CheckpointError(f"{folder} exists; name another with --to, or remove it")
    checkpoint = find_checkpoint(path)
    say(f"{checkpoint}: reading names and shapes")
    found_tokenizer = None
    if isinstance(spec, MedImageInsightSpec):
        found_tokenizer = _check_tokenizer(tokenizer, checkpoint, spec.text)
        renamed = _read_medimageinsight(checkpoint, spec)
    else:
        renamed = _read_vit(checkpoint, spec)
    _check_numbers(checkpoint, renamed)
    say(f"{checkpoint}: all tensors fit; hashing")
    sha256 = file_sha256(checkpoint)
    official = sha256 in about.sha256
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    say(f"writing {folder}")
    save_file(renamed.encoder, partial / WEIGHTS)
    further: tuple[str, ...] = ()
    if found_tokenizer is not None:
        further = (TEXT, *TOKENIZER_FILES)
        save_file(renamed.text, partial / TEXT)
        for name in TOKENIZER_FILES:
            shutil.copyfile(found_tokenizer / name, partial / name)
    source = {"file": checkpoint.name, "sha256": sha256, "official": official}
    (partial / CARD).write_text(import_card(about, source), encoding="utf-8")
    fields: dict[str, Any] = {
        "name": family,
        "version": about.version,
        "pipeline": about.pipeline,
        "encoder": spec.model_dump(),
        "preprocessing": PreprocessingSpec(
            size_px=size_px or about.size_px,
            interpolation="pil_bicubic",
            stretch=False,
            mean=0.0,
            std=1.0,
        ),
        "eligibility": about.eligibility,
        "training": {"imported": source},
        "intended_use": about.intended_use,
        "licence": about.licence,
    }
    write_description(partial, fields, further)
    partial.rename(folder)
    return Imported(read_bundle(folder), sha256, official)


def find_checkpoint(path: Path) -> Path:
    """Give the file itself, or the one file of weights somewhere under a folder.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    suffixes = (".pt", ".pth", ".bin", ".safetensors")
    found = sorted(one for one in path.rglob("*") if one.is_file() and one.suffix in suffixes)
    # The official folder also has a language_model.pth, which upstream never reads.
    found = [one for one in found if one.name != "language_model.pth"]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(one.relative_to(path)) for one in found[:5])
    raise CheckpointError(
        f"{path} holds several files of weights ({names}): name one"
        if found
        else f"{path} holds no file of weights ({', '.join(suffixes)})"
    )


def find_tokenizer(checkpoint: Path) -> Path:
    """Find the tokenizer's folder beside the checkpoint, or beside its folder.

    Raises:
        CheckpointError: there is none.
    """
    for root in (checkpoint.parent, checkpoint.parent.parent):
        candidates = [root, *sorted(root.glob("language_model/*")), *sorted(root.glob("*/"))]
        for candidate in candidates:
            if all((candidate / name).is_file() for name in TOKENIZER_FILES):
                return candidate
    raise CheckpointError(
        f"no tokenizer beside {checkpoint}: name the folder of {VOCABULARY} and {MERGES} with "
        "--tokenizer (officially language_model/clip_tokenizer_4.16.2)"
    )


def expected_medimageinsight(spec: MedImageInsightSpec) -> dict[str, torch.Size]:
    """Give the official names and shapes; nothing is allocated."""
    davit = "davit."
    with torch.device("meta"):
        encoder = build_encoder(spec.model_dump())
        shapes = _shapes(encoder) | _shapes(MedImageInsightText(spec.text))
    return {
        official_name(name.removeprefix(davit)) if name.startswith(davit) else name: shape
        for name, shape in shapes.items()
    }


def _check_tokenizer(given: Path | None, checkpoint: Path, spec: TextSpec) -> Path:
    folder = given or find_tokenizer(checkpoint)
    size = ClipTokenizer(folder).size
    if size != spec.vocabulary:
        raise CheckpointError(
            f"{folder / VOCABULARY} has {size} pieces; the text encoder knows {spec.vocabulary}"
        )
    return folder


def _read_medimageinsight(path: Path, spec: MedImageInsightSpec) -> _Renamed:
    header = read_safetensors_header(path)
    todays = {name: _todays_name(name) for name in header}
    expected = expected_medimageinsight(spec)
    check_tensors(path, {todays[name]: tensor for name, tensor in header.items()}, expected)
    renamed = _Renamed({}, {})
    with safe_open(path, framework="pt") as file:
        for stored, name in todays.items():
            tensor = file.get_tensor(stored)
            if name.startswith(PREFIX):
                renamed.encoder[f"encoder.davit.{convert_name(name)}"] = tensor
            elif name == PROJECTION:
                renamed.encoder[f"encoder.{PROJECTION}"] = tensor
            else:
                renamed.text[name] = tensor
    return renamed


def _read_vit(path: Path, spec: DinoV2Spec | UniSpec) -> _Renamed:
    with torch.device("meta"):
        shapes = _shapes(build_encoder(spec.model_dump()))
    expected = {name.removeprefix("vit."): shape for name, shape in shapes.items()}
    tensors = open_vit_checkpoint(path, expected)
    return _Renamed({f"encoder.vit.{name}": tensor for name, tensor in tensors.items()}, {})


def _check_numbers(path: Path, renamed: _Renamed) -> None:
    for name, tensor in (renamed.encoder | renamed.text).items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds what is no finite number")


def _todays_name(name: str) -> str:
    for old, new in OLD_PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return OLD_NAMES.get(name, name)


def _shapes(module: object) -> dict[str, torch.Size]:
    if not isinstance(module, torch.nn.Module):
        raise TypeError("an encoder is a module")
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
