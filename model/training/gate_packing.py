"""Give a bundle a gate: python -m model.training.gate_packing GATE_FOLDER BUNDLE_FOLDER.

GATE_FOLDER is what ``model.training.gate`` wrote, or a bundle whose gate is carried over as it is.
The bundle is rewritten in place, with the gate's rates in its card; its hash changes, so a bundle
that was activated must get a new version: ``--version 1.2.3``.
"""

import argparse
import sys
from pathlib import Path

from common.errors import BundleError
from model.bundles import CARD, DESCRIPTION, WEIGHTS, Bundle, read_bundle
from model.gate import GATE, Gate
from model.training.gate import read_trained_gate
from model.training.packing import write_bundle

HEADING = "## Gate"
SUMMARISED = ("all adults", "all that is no frontal chest", "lateral", "children", "(new kind)")


def add_gate(
    folder: Path, gate: Gate, version: str | None = None, origin: Bundle | None = None
) -> Bundle:
    """Add a gate to the bundle in a folder, or replace the one that it has.

    ``origin`` is the bundle that it is carried over from; card and training record name it.

    Raises:
        BundleError: there is no bundle, or it is damaged.
    """
    bundle = read_bundle(folder)
    fields = bundle.model_dump(exclude={"files", "folder", "sha256", "gate"})
    if version is not None:
        fields["version"] = version
    described = describe_gate(gate)
    if origin is not None:
        named = f"{origin.name} {origin.version}"
        fields["training"] = {**bundle.training, "gate_carried_over_from": named}
        described += f"\nThe gate is that of {named}, carried over as it is.\n"
    card = (folder / CARD).read_text().split(f"\n{HEADING}\n")[0].rstrip("\n")
    others = sorted(bundle.files.keys() - {WEIGHTS, CARD, GATE})  # of an encoder that reads text
    return write_bundle(folder, f"{card}\n\n{described}", fields, gate, others)


def read_gate(folder: Path) -> tuple[Gate, Bundle | None]:
    """Read the gate that was trained into a folder, or that of the bundle that lies there, too.

    Raises:
        BundleError: the bundle is damaged or has no gate.
    """
    if not (folder / DESCRIPTION).exists():
        return read_trained_gate(folder), None
    bundle = read_bundle(folder)
    gate = bundle.load_gate()
    if gate is None:
        raise BundleError(f"{folder}: this bundle has no gate to carry over")
    return gate, bundle


def describe_gate(gate: Gate) -> str:
    """Write the card's section on the gate, in Markdown."""
    lines = [
        HEADING,
        "",
        "Before the model sees an image, a small network looks at it and refuses what does not",
        "look like a frontal chest radiograph. An image whose tags do not say what it is stands or",
        "falls by that; where they do, only a clear contradiction refuses it. The limits were",
        f"chosen on {gate.spec.chosen_on}.",
        "Laterals were simulated from CT volumes: no true lateral of a person was",
        "at hand. Children were mostly one to five years old; older ones pass.",
        "",
        "| images | refused | 95 % | why |",
        "|---|---|---|---|",
    ]
    for rate in gate.spec.measured:
        if rate.name.startswith("test: ") and any(name in rate.name for name in SUMMARISED):
            share = f"{rate.refused} of {rate.n}"
            interval = f"{rate.low:.3f} to {rate.high:.3f}"
            lines.append(f"| {rate.name[6:]} | {share} | {interval} | {rate.note or '-'} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Read the command line and add the gate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gate", type=Path, help="of model.training.gate, or a bundle")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--version", help="the bundle's new version")
    given = parser.parse_args()
    gate, origin = read_gate(given.gate)
    bundle = add_gate(given.bundle, gate, given.version, origin)
    sys.stdout.write(f"{bundle.name} {bundle.version} {bundle.sha256[:12]} has a gate\n")


if __name__ == "__main__":
    main()
