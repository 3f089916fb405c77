"""The fuzzers' targets on seeds and on mutations of them; make fuzz goes on where this ends."""

import random

import pytest

from tests.fuzzing.corpus import make_corpus
from tests.fuzzing.targets import TARGETS
from tests.mutations import mutate_object


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_whatever_comes(name: str) -> None:
    chooser = random.Random(name)
    for seed in make_corpus()[name]:
        TARGETS[name](seed)
        for _ in range(40):
            TARGETS[name](mutate_object(seed, chooser))
