"""The chances of a run: every one comes from FAULT_SEED, so that a failure can be met again."""

import os
import random
import sys

SEED = int(os.environ.get("FAULT_SEED", "20261123"))


def chance(case: str) -> random.Random:
    """Make a case's own chances, the same each time the seed is the same."""
    sys.stdout.write(f"{case}: FAULT_SEED={SEED}\n")
    return random.Random(f"{SEED} {case}")


def seed_of(case: str) -> int:
    """Give a case's own seed, for who spreads chances over threads."""
    return chance(case).randrange(1 << 32)
