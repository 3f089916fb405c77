"""Leave a patient out, fit INSIGHT to the others, and say what it makes of that patient."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from model.evaluation.discrimination import auc
from model.training.ct_insight import (
    CtTrainingConfig,
    EncodedPatient,
    fit_insight,
    judge_patient,
    position_prior,
)
from model.training.loop import report


class LeftOut(BaseModel):
    """What the heads that never saw a patient say of it, and the same heads' own patients.

    An area is None where a patient has slices of one kind only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patient: str
    diagnosis: str
    slices: int
    infected: int
    probability: tuple[float, ...]
    highest_slice: tuple[float, ...]
    slice_auc: tuple[float, ...] | None
    slice_auc_by_position_alone: float | None
    remarks: tuple[str, ...]


def leave_out(
    patients: Sequence[EncodedPatient],
    number: int,
    config: CtTrainingConfig,
    folder: Path,
    told: dict[str, Any],
) -> LeftOut:
    """Judge one patient by heads fitted to the others; what ``folder`` holds is not done again.

    ``told`` are the fields of ``LeftOut`` that come from the patient's files.
    """
    patient = patients[number]
    kept = folder / f"{patient.patient_id}.json"
    if kept.exists():
        return LeftOut.model_validate_json(kept.read_text())
    others = [one for one in patients if one is not patient]
    judged = []
    for seed in range(config.seeds):
        report(f"without {patient.patient_id}, seed {seed}: {config.steps} steps")
        judged.append(judge_patient(fit_insight(others, config, seed), patient))
    both = 0 < patient.infected.sum() < len(patient.infected)
    prior = position_prior(others, patient)
    left_out = LeftOut(
        patient=patient.patient_id,
        slices=len(patient.infected),
        infected=int(patient.infected.sum()),
        probability=tuple(one.probability for one in judged),
        highest_slice=tuple(float(one.slice_probability.max()) for one in judged),
        slice_auc=tuple(auc(patient.infected, one.slice_probability) for one in judged)
        if both
        else None,
        slice_auc_by_position_alone=auc(patient.infected, prior) if both else None,
        **told,
    )
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(left_out.model_dump_json(indent=2) + "\n")
    return left_out
