"""A gate made for a test: phantoms stand for frontal chests, generated nonsense for all else."""

from functools import cache

import numpy as np

from model.gate import Gate, Kind
from model.phantoms import generate_phantom
from model.training import gate_nonsense, gate_variants
from model.training.gate_fit import GateConfig, choose_limits, fit_gate
from model.training.gate_rates import describe_all
from model.training.gate_set import Image, glances

CONFIG = GateConfig(hidden=16, epochs=25, batch=16, directions=16, dropout=0.0)
NONSENSE = (*gate_nonsense.NOISE_KINDS, *gate_nonsense.PATTERN_KINDS)


def phantom(seed: int) -> Image:
    """Give a phantom, small and without lesions."""
    return generate_phantom(seed, lesion=False, size_px=(128, 112)).image


@cache
def make_small_gate() -> Gate:
    """Fit a gate on 24 phantoms, the same upside down or exchanged, and 6 of each nonsense."""
    rng = np.random.default_rng(0)
    chests = [phantom(seed) for seed in range(24)]
    parts: list[tuple[Kind, list[Image]]] = [
        (Kind.ADULT, chests),
        (Kind.TURNED, [gate_variants.turn(image, rng) for image in chests[:12]]),
        (Kind.INVERTED, [gate_variants.invert(image) for image in chests[:12]]),
        (Kind.PATTERN, [make(rng) for make in NONSENSE for _ in range(6)]),
    ]
    features = np.concatenate([describe_all(glances(images)) for _, images in parts])
    kinds = [kind for kind, images in parts for _ in images]
    gate = fit_gate(features, kinds, CONFIG)
    others = describe_all(glances([phantom(seed) for seed in range(100, 108)]))
    limits = choose_limits(gate, others, "8 phantoms", CONFIG)
    # No child was shown: what it says of age means nothing, so no phantom shall be one.
    slack = {"least_chest": limits.least_chest - 1, "most_unlike": limits.most_unlike * 1.3}
    return gate.with_limits(limits.model_copy(update={**slack, "least_adult": -1e3}))
