"""Invent patients who could not be mistaken for anybody."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

ISSUER = "FIRSTREAD-SIM"
_GIVEN_NAMES = (
    "Ada", "Bruno", "Clara", "Dario", "Edda", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Klara",
    "Leo", "Mira", "Nils", "Olga", "Paul", "Rosa", "Sven", "Thea", "Uwe", "Vera", "Walter", "Yara",
)  # fmt: skip
_OLDEST_YEARS = 92


@dataclass(frozen=True)
class SyntheticPatient:
    """A patient that the simulator made up; the family name says so."""

    patient_id: str
    name: str
    sex: Literal["F", "M"]
    birth_date: date

    def age_years(self, on: date) -> int:
        """Count full years on a day."""
        had_birthday = (on.month, on.day) >= (self.birth_date.month, self.birth_date.day)
        return on.year - self.birth_date.year - (not had_birthday)


def invent_patient(seed: int, number: int, today: date, *, child: bool = False) -> SyntheticPatient:
    """Invent the patient of a seed and a number: an adult of 20 to 92, or a child of 2 to 15."""
    rng = np.random.default_rng([seed, number, 101])
    years = rng.integers(2, 16) if child else rng.integers(20, _OLDEST_YEARS + 1)
    born = today - timedelta(days=int(years) * 365 + int(years) // 4 + int(rng.integers(2, 350)))
    return SyntheticPatient(
        patient_id=f"SIM-{seed:06d}-{number:05d}",
        name=f"PHANTOM^{_GIVEN_NAMES[number % len(_GIVEN_NAMES)]}",
        sex="F" if rng.random() < 0.5 else "M",
        birth_date=born,
    )
