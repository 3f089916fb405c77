"""The fuzzers' targets on seeds and on mutations of them; make fuzz goes on where this ends."""

import random

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.fuzzing.corpus import make_corpus
from tests.fuzzing.targets import TARGETS
from tests.mutations import mutate_object
from tests.radiographs import NATIVE


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_whatever_comes(name: str) -> None:
    chooser = random.Random(name)
    for seed in make_corpus()[name]:
        TARGETS[name](seed)
        for _ in range(40):
            TARGETS[name](mutate_object(seed, chooser))


def test_a_uid_whose_kind_of_value_does_not_exist_is_no_finding() -> None:
    seed = make_corpus()["header"][NATIVE.index(ExplicitVRLittleEndian)]
    at = seed.index(b"\x08\x00\x18\x00UI") + 4
    TARGETS["header"](seed[:at] + b"VI" + seed[at + 2 :])
