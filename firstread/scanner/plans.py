"""Plan what the simulated scanner sends: everything but the pixels, from one seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from common.states import OrderPriority, PrioritySource
from firstread.scanner.cases import INELIGIBLE, REFUSED, REPEATS, UNREADABLE, Case
from firstread.scanner.encodings import ENCODINGS, Encoding

# The stack that the simulator sends to must be told of these rules (FIRSTREAD_AE_PRIORITIES).
AE_PRIORITIES = {"SIM_ED": OrderPriority.URGENT, "SIM_TRAUMA": OrderPriority.STAT}
_T = TypeVar("_T")
_PLAIN_AE_TITLES = ("SIM_XR1", "SIM_XR2", "SIM_WARD")
_SIZES_PX = ((1024, 1024), (1024, 853), (960, 800), (1100, 1000))

DEFAULT_MIX: Mapping[OrderPriority, float] = {
    OrderPriority.STAT: 0.1,
    OrderPriority.URGENT: 0.2,
    OrderPriority.ROUTINE: 0.7,
}


@dataclass(frozen=True)
class OrderPlan:
    """How urgent a study is and how the receiver is to find out.

    Attributes:
        requested_procedure_priority: value of (0040,1003), "" to leave it out.
        study_priority_id: value of (0032,000C), "" to leave it out.
        calling_ae_title: who sends it.
    """

    priority: OrderPriority
    source: PrioritySource
    requested_procedure_priority: str = ""
    study_priority_id: str = ""
    calling_ae_title: str = _PLAIN_AE_TITLES[0]


@dataclass(frozen=True)
class StudyPlan:
    """One study: whose, what, how urgent, how stored.

    Attributes:
        number: counts the studies of a run from 0.
        patient_number: the patient; a prior shares it with a later study.
        cases: its objects in the order of sending.
        lesion: whether its frontal images show lesions.
        order: its priority.
        sop_class: of its radiographs.
        encoding: of its radiographs.
        size_px: (H, W) of its radiographs.
        acquired_days_ago: 0 for a study of today.
        states_view: whether View Position is given; the body part always is.
        states_age: whether Patient's Age is given beside the birth date.
    """

    number: int
    patient_number: int
    cases: tuple[Case, ...]
    lesion: bool
    order: OrderPlan
    sop_class: Literal["CR", "DX"]
    encoding: Encoding
    size_px: tuple[int, int]
    acquired_days_ago: int = 0
    states_view: bool = True
    states_age: bool = True


ORDERS = (
    OrderPlan(OrderPriority.ROUTINE, PrioritySource.DEFAULT),
    OrderPlan(OrderPriority.STAT, PrioritySource.REQUESTED_PROCEDURE, "STAT"),
    OrderPlan(OrderPriority.ROUTINE, PrioritySource.REQUESTED_PROCEDURE, "ROUTINE"),
    OrderPlan(OrderPriority.URGENT, PrioritySource.AE_TITLE, calling_ae_title="SIM_ED"),
    OrderPlan(OrderPriority.ROUTINE, PrioritySource.STUDY_PRIORITY, "", "LOW"),
    OrderPlan(OrderPriority.URGENT, PrioritySource.REQUESTED_PROCEDURE, "HIGH"),
    OrderPlan(OrderPriority.ROUTINE, PrioritySource.DEFAULT, calling_ae_title="SIM_XR2"),
    OrderPlan(OrderPriority.URGENT, PrioritySource.STUDY_PRIORITY, "", "HIGH"),
    OrderPlan(OrderPriority.STAT, PrioritySource.AE_TITLE, calling_ae_title="SIM_TRAUMA"),
    # what the order says is believed before the rule of its sender
    OrderPlan(
        OrderPriority.ROUTINE, PrioritySource.REQUESTED_PROCEDURE, "LOW", "HIGH", "SIM_ED"
    ),
    OrderPlan(OrderPriority.ROUTINE, PrioritySource.DEFAULT, calling_ae_title="SIM_WARD"),
)  # fmt: skip


def plan_demo(seed: int, *, frontals: int = 24) -> list[StudyPlan]:
    """Plan the demo: each source of priority, encoding, refusal and breakage at least once.

    Args:
        seed: gives the order, the patients and the images.
        frontals: ordinary frontal studies, every other one with lesions; from 14 on, every
            encoding occurs.
    """
    rng = np.random.default_rng([seed, 201])
    plain = [(Case.FRONTAL,)] * frontals
    special = [
        (Case.FRONTAL, Case.LATERAL),
        (Case.FRONTAL, Case.LATERAL),
        *((case,) for case in (*INELIGIBLE, *UNREADABLE, *REFUSED)),
        *((Case.FRONTAL, repeat) for repeat in REPEATS),
    ]
    plans = [
        _plan(rng, number, cases, order=ORDERS[number % len(ORDERS)])
        for number, cases in enumerate([*plain, *special])
    ]
    priors = [
        _plan(
            rng, len(plans) + i, (Case.FRONTAL,), order=ORDERS[0], patient=i, days_ago=days
        )
        for i, days in enumerate((31, 190, 730))
    ]  # fmt: skip
    shuffled = [*plans, *priors]
    rng.shuffle(shuffled)  # pyright: ignore[reportArgumentType]
    return shuffled


def plan_stream(
    seed: int,
    count: int,
    *,
    mix: Mapping[OrderPriority, float] = DEFAULT_MIX,
    special_share: float = 0.15,
) -> Iterator[StudyPlan]:
    """Plan ``count`` studies as a department might send them.

    Args:
        seed: gives everything; the first n studies are the same whatever the count.
        count: of studies.
        mix: weight of each priority; how it is told is drawn among the ways that there are.
        special_share: of studies that are not one plain frontal image of today.
    """
    rng = np.random.default_rng([seed, 202])
    weights = np.array([mix.get(priority, 0.0) for priority in OrderPriority])
    if weights.sum() <= 0 or weights.min() < 0:
        raise ValueError("the priorities need weights of at least 0, one of them above")
    shares = weights / weights.sum()
    for number in range(count):
        priority = list(OrderPriority)[int(rng.choice(len(shares), p=shares))]
        order = _pick(rng, [one for one in ORDERS if one.priority is priority])
        cases, days_ago, patient = (Case.FRONTAL,), 0, number
        if rng.random() < special_share:
            kind = rng.integers(5)
            if kind == 0:
                days_ago, patient = int(rng.integers(20, 900)), max(0, number - 1)
            elif kind == 1:
                cases = (Case.FRONTAL, Case.LATERAL)
            elif kind == 2:
                cases = (_pick(rng, INELIGIBLE),)
            elif kind == 3:
                cases = (_pick(rng, (*UNREADABLE, *REFUSED)),)
            else:
                cases = (Case.FRONTAL, _pick(rng, REPEATS))
        lesion = bool(rng.random() < 0.35)
        yield _plan(
            rng, number, cases, order=order, patient=patient, days_ago=days_ago, lesion=lesion
        )


def _plan(
    rng: np.random.Generator,
    number: int,
    cases: tuple[Case, ...],
    *,
    order: OrderPlan,
    patient: int | None = None,
    days_ago: int = 0,
    lesion: bool | None = None,
) -> StudyPlan:
    return StudyPlan(
        number=number,
        patient_number=number if patient is None else patient,
        cases=cases,
        lesion=number % 2 == 0 if lesion is None else lesion,
        order=order,
        sop_class="CR" if rng.random() < 0.4 else "DX",
        encoding=ENCODINGS[number % len(ENCODINGS)],
        size_px=_pick(rng, _SIZES_PX),
        acquired_days_ago=days_ago,
        states_view=bool(rng.random() < 0.85),
        states_age=bool(rng.random() < 0.8),
    )


def _pick(rng: np.random.Generator, among: Sequence[_T]) -> _T:
    return among[int(rng.integers(len(among)))]
