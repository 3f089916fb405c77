"""Put a trained network, and what is known of it, into a bundle."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

from model.bundles import CARD, WEIGHTS, Bundle, write_description
from model.gate import GATE, Gate
from model.measured import Evaluation

Network = TypeVar("Network", bound=nn.Module)

DISCLAIMER = "Not for clinical use. This is not a medical device."


def write_half_weights(network: Network, folder: Path) -> Network:
    """Write the weights in half precision, then load them back: what is measured is what ships."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)
    stored = load_file(folder / WEIGHTS)
    network.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    return network.eval()


def write_bundle(
    folder: Path,
    card: str,
    fields: dict[str, Any],
    gate: Gate | None = None,
    further_files: Sequence[str] = (),
) -> Bundle:
    """Write card, gate and description beside the weights and the further files that lie there.

    Raises:
        ValueError: the card does not begin with the disclaimer.
    """
    if not card.startswith(DISCLAIMER):
        raise ValueError("a card begins with what the model is not for")
    (folder / CARD).write_text(card)
    if gate is None:
        return write_description(folder, fields, further_files)
    gate.write(folder / GATE)
    return write_description(folder, {**fields, "gate": gate.spec}, (GATE, *further_files))


def evaluation_table(evaluations: Iterable[Evaluation]) -> str:
    """Lay evaluations out as a table in Markdown; a dash is a figure that cannot be had."""
    lines = [
        "| cases | abnormal / not | AUC (95 %) | sensitivity | specificity | Brier |"
        " slope, intercept | ECE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in evaluations:
        area = f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})" if row.auc else "-"
        line = (
            f"{row.calibration_slope:.2f}, {row.calibration_intercept:+.2f}"
            if row.calibration_slope is not None
            else "-"
        )
        figures = [_figure(row.sensitivity), _figure(row.specificity), _figure(row.brier)]
        cells = [row.name, f"{row.abnormal} / {row.not_abnormal}", area, *figures, line]
        lines.append(f"| {' | '.join([*cells, _figure(row.expected_calibration_error)])} |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
