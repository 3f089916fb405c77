"""Logs carry DICOM keywords and never a patient."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
SERVICES = ("common", "dicom_listener", "worker", "dashboard", "model", "firstread")


def test_patient_fields_are_dropped_and_the_rest_is_json() -> None:
    code = (
        "from common.logs import configure_logs, get_logger; configure_logs('test');"
        "get_logger().info('instance_stored', sop_instance_uid='1.2', patient_name='A^B',"
        " patient_id='77')"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY
    ).stderr
    line = json.loads(printed)
    assert line["event"] == "instance_stored"
    assert line["service"] == "test"
    assert line["sop_instance_uid"] == "1.2"
    assert "A^B" not in printed
    assert "77" not in line.values()


def test_no_log_call_names_a_patient() -> None:
    lines = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for folder in SERVICES
        for path in (REPOSITORY / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "log." in line and "patient" in line.lower()
    ]
    assert lines == []
