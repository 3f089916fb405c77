"""The conformance statement says what the code does."""

import re
from pathlib import Path

import pytest

from common.settings import Settings
from dicom_listener.contexts import storage_classes, transfer_syntaxes
from dicom_listener.peers import Refusal
from dicom_listener.statuses import MEANINGS, StoreStatus

STATEMENT = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text()


def test_every_status_is_in_the_statement_and_no_other() -> None:
    rows = re.findall(r"^\| 0x([0-9A-F]{4}) \| (.+) \| (.+) \|$", STATEMENT, re.MULTILINE)
    assert rows == [(f"{status:04X}", *MEANINGS[status]) for status in MEANINGS]
    assert set(MEANINGS) == set(StoreStatus)


@pytest.mark.parametrize("refusal", Refusal)
def test_every_rejection_is_in_the_statement(refusal: Refusal) -> None:
    assert f"| {refusal.value} |" in STATEMENT


def test_every_limit_is_in_the_statement_with_its_default() -> None:
    names = [name for name in Settings.model_fields if name.startswith("dicom_")]
    for name in [*names, "ae_title", "archive_reserve_bytes"]:
        assert f"`FIRSTREAD_{name.upper()}`" in STATEMENT
        default = Settings.model_fields[name].default
        if name != "dicom_peers":
            row = next(
                row
                for row in STATEMENT.splitlines()
                if row.startswith("|")
                and (f"_{name.upper()}` |" in row or f"_{name.upper()}`, " in row)
            )
            assert ("unset" if default is None else str(default)) in row


def test_the_statement_counts_classes_and_syntaxes() -> None:
    assert f"{len(storage_classes())} storage classes" in STATEMENT
    assert f"all {len(transfer_syntaxes())} of the standard" in STATEMENT
