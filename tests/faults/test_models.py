"""A device without memory, an image that no batch survives, a model that fails for ever."""

import pytest

from common.states import AnalysisState
from tests.faults.objects import Objects, Sent
from tests.faults.stack import Stack
from tests.waiting import eventually
from tests.worker_parts import POISON


def test_a_device_out_of_memory_halves_the_batch_and_a_poison_image_fails_alone() -> None:
    with Stack(load="load_on_small_device") as stack:
        objects = Objects(stack.folder / "sent")
        poison: list[str] = []

        def make() -> Sent:
            is_poison = len(objects.made) % 25 == 7 and len(poison) < 4
            made = objects.make(int(POISON) if is_poison else None)
            if is_poison:
                poison.append(made.sop_instance_uid)
            return made

        sending = stack.send(objects=objects, make=make, at_least=200)
        sending.finish()
        stack.drain()
        told = stack.workers[0].told()
        out_of_memory = told.count('"reason": "OutOfMemoryError"')
        blamed = told.count("image_unpredictable")
        assert 0 < len(poison) <= blamed
        assert stack.states()[AnalysisState.FAILED] == len(poison)
        stack.more_faults["batches out of memory"] += out_of_memory
        stack.more_faults["poison images"] += len(poison)
        stack.tally("device out of memory, poison images", sending, failed=poison).check()


@pytest.mark.parametrize(
    ("load", "what"),
    [
        ("load_one_unloadable", "loads of the model failed"),
        ("load_one_failing", "predictions failed"),
        ("load_one_breaking", "device given up"),
    ],
)
@pytest.mark.faults
def test_a_model_that_fails_for_ever_delays_no_other(load: str, what: str) -> None:
    words = {
        "load_one_unloadable": "model_not_loaded",
        "load_one_failing": "image_unpredictable",
        "load_one_breaking": "model_broken",
    }
    with Stack(load=load, pipelines=("chest_xray", "phantom")) as stack:
        bad = stack.send(
            objects=Objects(stack.folder / "phantoms", is_phantom=True),
            associations=2,
            at_least=100,
        )
        good = stack.send(at_least=300, associations=6)
        bad.finish()
        good.finish()
        assert eventually(lambda: stack.done_of("chest_xray") == len(good.objects.made), 60, 0.2)
        assert stack.workers[0].running
        assert stack.done_of("phantom") == 0
        stack.more_faults[what] += stack.workers[0].told().count(words[load])
        stack.tally(f"one model failing for ever ({what})", good).check()
        stored = stack.tally("", bad, analysed=False)
        assert (stored.lost, stored.acknowledged) == (0, len(bad.objects.made))
