"""Backup and restore by the very commands of docs/operations.md: what was acknowledged is there."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from common.archive import Archive
from common.database import make_engine, make_sessions
from common.lifecycle import claim, finish
from common.reading import mark_read
from common.settings import Settings
from common.states import AnalysisState, Outcome
from common.tables import Analysis, Base, Instance, Study, WorklistItem
from dashboard.queries import worklist_page
from tests.conftest import REPOSITORY, TEMPLATE, _database
from tests.integration.listener.conftest import (
    data_set_bytes,
    free_port,
    radiograph,
    running_listener,
    send,
)
from tests.ledger import add_model, result

PAGE = REPOSITORY / "docs" / "operations.md"


@pytest.fixture
def other_database_url(postgres: str) -> Iterator[str]:
    """Give the database of a second, fresh stack."""
    yield from _database(postgres, TEMPLATE)


def commands(part: str) -> str:
    """Take the commands of a part of the page's section, as an operator would copy them."""
    section = PAGE.read_text().split("## Back up and restore\n")[1].split("\n## ")[0]
    block = section.split(f"{part}:\n")[1]
    found = re.match(r"\n((?:    .*\n)+)", block)
    assert found is not None, part
    return "\n".join(line[4:] for line in found[1].splitlines())


def run(part: str, settings: Settings, backup: Path) -> None:
    """Run the page's commands as a stack's operator."""
    settings.endpoints_file.parent.mkdir(parents=True, exist_ok=True)
    address = {"database_url": settings.database_address()}
    settings.endpoints_file.write_text(json.dumps(address))
    done = subprocess.run(
        ["bash", "-euc", commands(part)],
        cwd=REPOSITORY,
        env={
            "PATH": "/usr/bin:/bin",
            "FIRSTREAD_HOME": str(settings.home),
            "BACKUP": str(backup),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def rows(sessions: sessionmaker[Session]) -> dict[str, list[tuple[object, ...]]]:
    """Read every table but the log of migrations."""
    with sessions() as session:
        return {
            table.name: sorted(
                (tuple(row) for row in session.execute(select(table))), key=lambda row: repr(row)
            )
            for table in Base.metadata.sorted_tables
        }


def received(settings: Settings, changes: dict[str, object]) -> Settings:
    """Give the settings of a listener."""
    return settings.model_copy(
        update={"dicom_port": free_port(), "archive_reserve_bytes": 0, **changes}
    )


def test_after_a_restore_every_image_and_result_is_there_and_repeats_are_known(
    settings: Settings,
    sessions: sessionmaker[Session],
    other_database_url: str,
    tmp_path: Path,
) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    objects = [radiograph(PatientID=f"P{number}") for number in range(6)]
    with sessions.begin() as session:
        model = add_model(session)
    first = received(settings, {})
    with running_listener(first):
        assert send(first, *objects) == [0x0000] * 6
    for probability in (0.9, 0.2, 0.7):
        with sessions.begin() as session:
            claimed = claim(session, worker="test", model_version_ids=[model], lease_s=60)
            assert claimed is not None
            assert finish(session, claimed, result(probability), settings)
    with sessions.begin() as session:
        study = session.scalars(select(Study).order_by(Study.id)).first()
        assert study is not None
        mark_read(session, study, "reader", settings, instances_seen=1)
    run("To back up", settings, backup)
    before = rows(sessions)
    assert len(before["instance"]) == 6
    assert len(before["audit_event"]) >= 1

    home = tmp_path / "restored"
    second = received(settings, {"home": home, "database_url": _secret(other_database_url)})
    Archive(second.archive_path).prepare()
    run("To restore", second, backup)
    engine = make_engine(other_database_url)
    restored = make_sessions(engine)
    assert rows(restored) == before
    check_objects(restored, second, objects)
    check_results(restored)
    with running_listener(second):
        assert send(second, *objects) == [0x0000] * 6
        assert {name: len(found) for name, found in rows(restored).items()} == {
            name: len(found) for name, found in before.items()
        }
        assert send(second, radiograph(PatientID="NEW")) == [0x0000]  # keys go on where they were
    with restored() as session:
        assert session.scalar(select(func.count()).select_from(Instance)) == 7
    assert_append_only(other_database_url)
    engine.dispose()


def check_objects(
    sessions: sessionmaker[Session], settings: Settings, objects: list[Dataset]
) -> None:
    """See that each row's file lies in the restored archive, bit for bit."""
    archive = Archive(settings.archive_path)
    with sessions() as session:
        instances = session.scalars(select(Instance)).all()
    assert {one.sop_instance_uid for one in instances} == {
        str(one.SOPInstanceUID) for one in objects
    }
    for one in instances:
        content = data_set_bytes(archive.path(one.path))
        assert hashlib.sha256(content).digest() == one.sha256


def check_results(sessions: sessionmaker[Session]) -> None:
    """See that results, places on the list and what waits are as they were."""
    with sessions() as session:
        ends = dict(
            session.execute(select(Analysis.state, func.count()).group_by(Analysis.state)).all()
        )
        assert ends == {AnalysisState.DONE: 3, AnalysisState.QUEUED: 3}
        flagged = session.scalars(
            select(WorklistItem.probability).where(WorklistItem.outcome == Outcome.FLAGGED)
        ).all()
        assert sorted(one or 0 for one in flagged) == [0.7, 0.9]
        assert len(worklist_page(session).rows) == 5


def assert_append_only(url: str) -> None:
    """See that the restored audit trail cannot be changed either."""
    engine = create_engine(url)
    with engine.connect() as connection, pytest.raises(Exception, match="append-only"):
        connection.execute(text("DELETE FROM audit_event"))
    engine.dispose()


def _secret(url: str) -> object:
    from pydantic import SecretStr

    return SecretStr(url)
