"""``firstread audit`` and ``firstread retain`` as an operator types them."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from common.audit.sealing import HEAD
from common.reading import audit
from common.settings import Settings, get_settings
from common.tables import AuditEvent
from firstread.cli import app

Sessions = sessionmaker[Session]


@pytest.fixture
def operator(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    """Give an operator whose environment names the test's servers."""
    monkeypatch.setenv("FIRSTREAD_HOME", str(settings.home))
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", settings.database_address())
    get_settings.cache_clear()
    yield CliRunner()
    get_settings.cache_clear()


def add(sessions: Sessions, count: int = 3) -> None:
    for number in range(count):
        with sessions.begin() as session:
            audit(session, "anna", "study_opened", f"2.25.{number}")


def test_verify_says_what_is_wrong_and_ends_with_status_1(
    operator: CliRunner, sessions: Sessions, engine: Engine, tmp_path: Path
) -> None:
    add(sessions)
    well = operator.invoke(app, ["audit", "verify"])
    assert well.exit_code == 0, well.output
    assert "3 events in 1 chains" in well.output
    with sessions() as session:
        last = session.query(AuditEvent).order_by(AuditEvent.sequence.desc()).first()
    assert last is not None
    assert last.hmac is not None
    recorded = tmp_path / "syslog.txt"
    head = HEAD.format(chain_id=last.chain_id, sequence=3, hmac=last.hmac.hex())
    recorded.write_text(f"Nov 23 00:00:00 host firstread: audit_head {head}\n")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_event DISABLE TRIGGER ALL")
        assert connection.exec_driver_sql("DELETE FROM audit_event WHERE sequence = 3").rowcount
    assert operator.invoke(app, ["audit", "verify"]).exit_code == 0  # no record, no proof
    cut = operator.invoke(app, ["audit", "verify", "--heads", str(recorded)])
    assert cut.exit_code == 1
    assert f"PROBLEM chain {last.chain_id} number 3: cut off behind 2" in cut.output
    log = Path(get_settings().home) / "logs" / "beat.log"  # where this stack's own beat tells them
    log.parent.mkdir(parents=True)
    log.write_text(recorded.read_text())
    assert operator.invoke(app, ["audit", "verify"]).exit_code == 1


def test_the_export_is_private_whole_and_audited_itself(
    operator: CliRunner, sessions: Sessions, tmp_path: Path
) -> None:
    add(sessions)
    out = tmp_path / "messages.txt"
    result = operator.invoke(app, ["audit", "export", "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = out.read_text(encoding="utf-8").splitlines()
    assert [fromstring(line).tag for line in lines] == ["AuditMessage"] * 3  # noqa: S314 - our own
    assert out.stat().st_mode & 0o777 == 0o600
    again = operator.invoke(app, ["audit", "export", "--out", str(out), "--since", "2026-11-01"])
    assert "4 messages" in again.output


def test_retain_without_a_rule_says_what_to_set(operator: CliRunner) -> None:
    result = operator.invoke(app, ["retain", "--delete"])
    assert result.exit_code == 2
    assert "FIRSTREAD_RETAIN_DAYS" in result.output


def test_retain_says_what_would_go_and_notes_what_the_archive_confirmed(
    operator: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uids = tmp_path / "uids.txt"
    uids.write_text("2.25.1\n2.25.2\n")
    noted = operator.invoke(app, ["retain", "--confirmed", str(uids)])
    assert noted.exit_code == 0, noted.output
    assert "0 objects newly confirmed" in noted.output
    monkeypatch.setenv("FIRSTREAD_RETAIN_DAYS", "30")
    get_settings.cache_clear()
    assert operator.invoke(app, ["retain"]).exit_code == 2  # there is no archive yet
    archive = get_settings().archive_path
    archive.mkdir(parents=True)
    archive.chmod(0o755)
    result = operator.invoke(app, ["retain"])
    assert result.exit_code == 0, result.output
    assert "0 objects of 0 studies, 0.00 GB, would be deleted" in result.output
    assert f"chmod 700 {archive}" in result.output
