"""Put a slide network into a bundle; without a calibrator it stays a research bundle."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from model.bundles import WEIGHTS, Bundle
from model.eligibility import EligibilityRules
from model.preprocessing import PreprocessingSpec
from model.slide.network import SlideNetwork
from model.slide.tiling import SlideTiling
from model.training.packing import DISCLAIMER, write_bundle

INTENDED_USE = (
    "Research on DICOM whole-slide images alone: a raw score and a heatmap, no probability,"
    " never on a worklist."
)


def write_slide_bundle(
    folder: Path,
    network: SlideNetwork,
    *,
    encoder: dict[str, Any],
    tiling: SlideTiling,
    name: str,
    version: str,
    licence: str,
    training: dict[str, Any],
    card: str,
) -> Bundle:
    """Write weights, card and description.

    Args:
        encoder: the specification that ``network`` was built from.
        licence: of the weights; those of a site's own encoder decide it.
        training: what the run was, or that the weights are random.
        card: Markdown under the disclaimer, which is put before it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    rules = EligibilityRules(
        modalities=("SM",), adults_only=False, chest_only=False, frontal_only=False
    )
    fields = {
        "name": name,
        "version": version,
        "pipeline": "slide",
        "encoder": encoder,
        "preprocessing": PreprocessingSpec(
            size_px=tiling.tile_px, mean=tiling.mean, std=tiling.std
        ).model_dump(),
        "slide_tiling": tiling.model_dump(),
        "eligibility": rules.model_dump(),
        "training": training,
        "intended_use": INTENDED_USE,
        "licence": licence,
    }
    return write_bundle(folder, f"{DISCLAIMER} Research only.\n\n{card}\n", fields)
