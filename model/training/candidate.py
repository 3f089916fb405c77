"""A candidate bundle: new weights under an old bundle's rules, before calibration."""

from pathlib import Path

from model.bundles import Bundle
from model.network import TriageNetwork
from model.training.packing import DISCLAIMER, write_bundle, write_half_weights

BUNDLE = "bundle"

CARD = """{disclaimer}

# {name} {version}

{start} {how}. A candidate: it has no calibrator and no operating points, so its scores are no
probabilities and it cannot be activated. `firstread train calibrate` is the next step, and
`firstread train evaluate` measures it.

{intended_use}

What it was trained on, with which choices, seed, commit and versions: `training` in `bundle.json`.
The figures on val stand in `result.json` beside this folder. Weights in half precision.
"""


def write_candidate(
    out: Path,
    network: TriageNetwork,
    start: Bundle,
    *,
    how: str,
    training: dict[str, object],
    suffix: str = "finetuned",
) -> Bundle:
    """Write ``out/bundle``; all but weights, name and figures is as in ``start``, its gate too."""
    folder = out / BUNDLE
    name = start.name if start.name.endswith(f"_{suffix}") else f"{start.name}_{suffix}"
    version = "0.1.0"
    write_half_weights(network, folder)
    started_from = f"{start.name} {start.version}"
    card = CARD.format(
        disclaimer=DISCLAIMER,
        name=name,
        version=version,
        start=started_from,
        how=how,
        intended_use=start.intended_use,
    )
    fields = {
        "name": name,
        "version": version,
        "pipeline": start.pipeline,
        "encoder": start.encoder,
        "preprocessing": start.preprocessing,
        "eligibility": start.eligibility,
        "training": training,
        "intended_use": start.intended_use,
        "licence": start.licence,
    }
    return write_bundle(folder, card, fields, start.load_gate())
