"""Count what a gate refuses and why, with intervals."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.evaluation.test_log import Look, log_looks
from model.gate import CHEST_REFUSAL, Gate, Kind, RefusalRate, Sight
from model.gate_features import describe
from model.operating_points import lower_bound
from model.training.gate_set import Part
from model.training.run_record import commit_of_code

CHESTS = (Kind.ADULT, Kind.CHILD)


def measure_parts(gate: Gate, parts: Iterable[Part]) -> tuple[RefusalRate, ...]:
    """Look at all images of these parts and count what is refused."""
    return count_parts(gate, [(part, weigh_all(gate, part.images)) for part in parts])


def count_parts(gate: Gate, seen: Sequence[tuple[Part, list[Sight]]]) -> tuple[RefusalRate, ...]:
    """Count refusals in each part, and over all adults and all that is no frontal chest.

    An image counts as one whose tags say nothing, so only its pixels count. Adults are counted
    three times: as of unknown age, as of known age, and with tags that say frontal chest.
    """
    rates: list[RefusalRate] = []
    for part, sights in seen:
        name = f"{part.split}: {part.name}"
        if part.kind in CHESTS:
            ages = "adults" if part.kind is Kind.ADULT else "children"
            name = f"{name}, {ages}, age unknown"
        rates.append(count_refusals(gate, sights, name))
    for split in sorted({part.split for part, _ in seen}):
        mine = [(part.kind, sights) for part, sights in seen if part.split == split]
        adults = [s for kind, sights in mine if kind is Kind.ADULT for s in sights]
        others = [s for kind, sights in mine if kind not in CHESTS for s in sights]
        known = f"{split}: all adults, age known"
        said = f"{split}: all adults, tags say so"
        rates += [
            count_refusals(gate, adults, f"{split}: all adults, age unknown"),
            count_refusals(gate, adults, known, age_unknown=False),
            count_refusals(gate, adults, said, stated=True, age_unknown=False),
            count_refusals(gate, others, f"{split}: all that is no frontal chest"),
        ]
    return tuple(rates)


def describe_all(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe glances, uint8 (N, 64, 64), by float32 (N, F)."""
    return np.stack([describe(image.astype(np.float32) / 255) for image in images])


def weigh_all(gate: Gate, images: NDArray[np.uint8]) -> list[Sight]:
    """Look at glances, uint8 (N, 64, 64), as ``Gate.look`` does at images."""
    return [
        sight if np.ptp(image) else Sight(Kind.BLANK)
        for image, sight in zip(images, gate.weigh(describe_all(images)), strict=True)
    ]


def count_refusals(
    gate: Gate,
    sights: Sequence[Sight],
    name: str,
    *,
    stated: bool = False,
    age_unknown: bool = True,
) -> RefusalRate:
    """Count the refused among sights; the note counts them by reason."""
    found = [gate.judge(sight, stated=stated, age_unknown=age_unknown) for sight in sights]
    reasons = Counter(reason.removeprefix(f"{CHEST_REFUSAL}: ") for reason in found if reason)
    return refusal_rate(name, len(found), reasons)


def log_gate_look(
    test_log: Path, rates: Sequence[RefusalRate], job: str, model: str, sha256: str
) -> None:
    """Log that a gate looked at test: what it refused of the adults, and of all that is no chest.

    ``sha256`` is that of the bundle, or of the gate alone where there is no bundle yet.
    """
    told = [rate for rate in rates if rate.name.startswith("test: all")]
    figures = "; ".join(f"{rate.name[6:]}: {rate.refused} of {rate.n} refused" for rate in told)
    look = Look(job, model, sha256, "test radiographs", None, None, commit_of_code())
    log_looks(test_log, look._replace(figures=figures))


def refusal_rate(name: str, n: int, reasons: Counter[str]) -> RefusalRate:
    """Give a share with its two-sided 95 % Clopper-Pearson interval."""
    refused = reasons.total()
    return RefusalRate(
        name=name,
        refused=refused,
        n=n,
        low=lower_bound(refused, n, 0.975),
        high=1 - lower_bound(n - refused, n, 0.975),
        note="; ".join(f"{reason}: {count}" for reason, count in reasons.most_common()),
    )
