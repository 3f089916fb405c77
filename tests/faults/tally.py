"""What a fault case counted: ``python -m tests.faults.tally FILE`` prints the table of a run."""

import csv
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

TABLE = "FIRSTREAD_FAULT_TABLE"  # names the CSV that every case appends to


@dataclass(frozen=True)
class Tally:
    """The counts of one case.

    acknowledged: objects whose Success stands in the sender's own log.
    stored: rows of ``instance`` whose file exists with the right SHA-256.
    done: analyses that ended as they should.
    duplicates: live results beyond one an image.
    lost: acknowledged objects without an intact stored object or, where workers run, without
        exactly one final analysis.
    faults: how often each fault was really done, by its name: {"SIGKILL of the listener": 50}.
    """

    case: str
    sent: int
    acknowledged: int
    stored: int
    done: int
    duplicates: int
    lost: int
    faults: Mapping[str, int]

    def check(self) -> None:
        """Print the line, append it to the run's table, and hold the case to its promise."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        row["faults"] = ", ".join(f"{count} x {name}" for name, count in self.faults.items())
        sys.stdout.write("  ".join(f"{name}: {value}" for name, value in row.items()) + "\n")
        table = os.environ.get(TABLE)
        if table:
            _append(Path(table), row)
        assert self.acknowledged > 0, "nothing was acknowledged: nothing was shown"
        assert self.faults, "no fault was named"
        for name, count in self.faults.items():
            assert count > 0, f"this fault did not happen: {name}"
        assert (self.lost, self.duplicates) == (0, 0), row


def add_failure(table: Path, case: str, why: str) -> None:
    """Append the line of a case that failed, whether or not it had come to count."""
    counted = {field.name: 0 for field in fields(Tally)}
    _append(table, {**counted, "case": case, "faults": f"FAILED: {why.replace('|', '/')}"})


def _append(table: Path, row: Mapping[str, object]) -> None:
    is_new = not table.exists()
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def print_table(table: Path) -> None:
    """Print a run's table as Markdown, with its sums."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    counted = [name for name in rows[0] if name not in {"case", "faults"}]
    sums = {name: str(sum(int(row[name]) for row in rows)) for name in counted}
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    lines.append(["all", *(sums[name] for name in counted), ""])
    for cells in lines:
        sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    print_table(Path(sys.argv[1]))
