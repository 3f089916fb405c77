"""The audit chains on a real Postgres: threads, rollbacks, crashes, and every way to tamper."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from common.audit.key import key_id, read_key
from common.audit.sealing import HEAD, genesis
from common.audit.verification import Head, Report, read_heads, verify
from common.database import make_engine, make_sessions
from common.errors import ConfigurationError
from common.reading import audit
from common.settings import Settings, get_settings
from common.tables import AuditChain, AuditEvent
from tests.conftest import REPOSITORY

Sessions = sessionmaker[Session]


def add(sessions: Sessions, count: int = 5) -> None:
    for number in range(count):
        with sessions.begin() as session:
            audit(session, "anna", "study_opened", f"2.25.{number}", instances=number, part=0.5)


def report(sessions: Sessions, heads: list[Head] | None = None) -> Report:
    with sessions() as session:
        return verify(session, read_key(get_settings()), heads or [])


def heads(sessions: Sessions) -> list[Head]:
    """Give what would have been told outside, by way of its text."""
    with sessions() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.chain_id.is_not(None))).all()
    lines = [
        HEAD.format(chain_id=row.chain_id, sequence=row.sequence, hmac=(row.hmac or b"").hex())
        for row in rows
    ]
    return list(read_heads(f"<85>1 - host firstread 1 HEAD - audit_head {line}" for line in lines))


def tamper(engine: Engine, *statements: str) -> None:
    """Do what only the owner of the tables can, with the trigger out of the way."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE audit_event DISABLE TRIGGER audit_event_append_only"
        )
        for statement in statements:
            changed = connection.exec_driver_sql(statement)
            assert changed.rowcount > 0, statement
        connection.exec_driver_sql("ALTER TABLE audit_event ENABLE TRIGGER audit_event_append_only")


def test_what_nobody_touched_is_whole(sessions: Sessions) -> None:
    add(sessions)
    with sessions.begin() as session:  # odd content comes back as it went in
        audit(session, "Dr. Ünal \u202e", "ai_ranking_switched", on=True, big=2.0, none=None)
    found = report(sessions, heads(sessions))
    assert (found.problems, found.events, found.chains, found.heads) == ([], 6, 1, 6)


UP = "UPDATE audit_event SET "
MOVE = "sequence = sequence + 100 WHERE sequence >= 3"
BACK = "sequence = sequence - 99 WHERE sequence > 100"


@pytest.mark.parametrize(
    ("statements", "sequence", "says"),
    [
        ([UP + "actor = 'bela' WHERE sequence = 3"], 3, "changed"),
        ([UP + "study_instance_uid = NULL WHERE sequence = 3"], 3, "changed"),
        ([UP + "at = at - interval '1 second' WHERE sequence = 3"], 3, "changed"),
        ([UP + "detail = detail || '{\"instances\": 9}' WHERE sequence = 3"], 3, "changed"),
        (["DELETE FROM audit_event WHERE sequence = 3"], 3, "removed: 3 missing"),
        (["DELETE FROM audit_event WHERE sequence IN (3, 4)"], 3, "removed: 3 to 4 missing"),
        (["DELETE FROM audit_event WHERE sequence = 1"], 1, "removed: 1 missing"),
        (
            [
                UP + MOVE,
                UP + BACK,
                "INSERT INTO audit_event (actor, action, detail, chain_id, sequence, hmac) SELECT "
                "actor, action, detail, chain_id, 3, hmac FROM audit_event WHERE sequence = 2",
            ],
            3,
            "inserted",
        ),
        (
            [
                UP + "sequence = 103 WHERE sequence = 3",
                UP + "sequence = 3 WHERE sequence = 4",
                UP + "sequence = 4 WHERE sequence = 103",
            ],
            3,
            "reordered",
        ),
        (["DELETE FROM audit_event WHERE sequence > 3"], 4, "cut off behind 3: 5 were recorded"),
        (["DELETE FROM audit_event"], 1, "all rows are gone; 5 were recorded"),
    ],
)
def test_each_way_to_tamper_is_found_and_placed(
    sessions: Sessions, engine: Engine, statements: list[str], sequence: int, says: str
) -> None:
    add(sessions)
    told = heads(sessions)
    tamper(engine, *statements)
    found = report(sessions, told)
    assert found.problems
    first = found.problems[0]
    assert (first.chain_id, first.sequence) == (told[0].chain_id, sequence)
    assert says in str(first)
    assert str(told[0].chain_id) in str(first)


UNSEALED = "INSERT INTO audit_event (actor, action, detail) VALUES ('{}', 'x', '{{}}')"


def test_a_row_without_a_seal_among_sealed_ones_is_found(
    sessions: Sessions, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(UNSEALED.format("old"))
    add(sessions, 2)
    assert report(sessions).problems == []
    assert report(sessions).unsealed == 1
    with engine.begin() as connection:
        connection.exec_driver_sql(UNSEALED.format("new"))
    (problem,) = report(sessions).problems
    assert "has no seal" in str(problem)


def test_without_the_key_nobody_can_write_a_fitting_row(sessions: Sessions, engine: Engine) -> None:
    forged = uuid4()
    guess = genesis(b"another key that is long enough!", forged).hex()
    tamper(
        engine,
        "INSERT INTO audit_chain (chain_id, key_id, service, host, process) SELECT "
        f"'{forged}', '{key_id(read_key(get_settings()))}', 's', 'h', 1",
        "INSERT INTO audit_event (actor, action, detail, chain_id, sequence, hmac) VALUES "  # noqa: S608
        f"('x', 'y', '{{}}', '{forged}', 1, '\\x{guess}')",
    )
    (problem,) = report(sessions).problems
    assert (problem.chain_id, problem.sequence) == (forged, 1)


def test_threads_of_one_process_share_a_chain_without_gaps(sessions: Sessions) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: add(sessions, 5), range(8)))
    found = report(sessions)
    assert (found.problems, found.events, found.chains) == ([], 40, 1)


def test_a_rollback_leaves_no_gap_and_no_event(sessions: Sessions) -> None:
    add(sessions, 2)
    with sessions() as session:
        audit(session, "anna", "undone")
        session.rollback()
        session.commit()
    with sessions.begin() as session:
        savepoint = session.begin_nested()
        audit(session, "anna", "undone")
        savepoint.rollback()
        with session.begin_nested():
            audit(session, "anna", "kept")
    with pytest.raises(DBAPIError), sessions.begin() as session:
        audit(session, "a" * 65, "study_opened")  # longer than its column: the commit fails
    add(sessions, 2)
    found = report(sessions)
    assert (found.problems, found.events, found.unsealed) == ([], 5, 0)
    with sessions() as session:
        assert "undone" not in session.scalars(select(AuditEvent.action)).all()


def lose(sessions: Sessions, engine: Engine) -> None:
    """End the connection of an audited transaction just before its commit."""
    with sessions.begin() as session:
        audit(session, "anna", "lost")
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            other.commit()


def test_a_connection_lost_at_commit_begins_a_new_chain(sessions: Sessions, engine: Engine) -> None:
    add(sessions, 2)
    for _ in range(2):
        with pytest.raises(DBAPIError):
            lose(sessions, engine)
    add(sessions, 2)
    found = report(sessions)
    assert (found.problems, found.events) == ([], 4)


WRITER = """
import sys
from common.database import make_engine, make_sessions
from common.reading import audit
sessions = make_sessions(make_engine(sys.argv[1]))
while True:
    with sessions.begin() as session:
        audit(session, "process", "study_opened", "2.25.1")
    print("one", flush=True)
"""


def test_processes_killed_at_any_instant_leave_whole_chains(
    sessions: Sessions, database_url: str
) -> None:
    written = 0
    for _ in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, database_url],
                stdout=subprocess.PIPE, cwd=REPOSITORY, env=os.environ,
            )
            for _ in range(3)
        ]  # fmt: skip
        for number, writer in enumerate(writers):
            assert writer.stdout is not None
            for _ in range(5 + number):
                assert writer.stdout.readline() == b"one\n"
            writer.send_signal(signal.SIGKILL)
            assert writer.wait() == -signal.SIGKILL
            written += 5 + number + len(writer.stdout.readlines())
            writer.stdout.close()
    found = report(sessions)
    assert found.problems == []
    assert found.chains == 6
    assert found.events >= written  # a commit whose line was not printed yet is no loss


def test_an_audited_commit_waits_for_locks_before_it_holds_the_chain(
    sessions: Sessions, engine: Engine
) -> None:
    add(sessions, 1)
    waiting = threading.Event()

    def change() -> None:
        with sessions.begin() as session:
            audit(session, "late", "site_changed")
            waiting.set()
            session.execute(text("UPDATE site SET ai_ranking = ai_ranking"))

    with engine.connect() as holder:
        holder.execute(text("UPDATE site SET ai_ranking = ai_ranking"))
        thread = threading.Thread(target=change)
        thread.start()
        assert waiting.wait(10)
        add(sessions, 1)  # would wait for ever if the chain were held meanwhile
        holder.rollback()
    thread.join(10)
    assert not thread.is_alive()
    assert report(sessions).problems == []


def test_two_databases_have_chains_of_their_own(
    sessions: Sessions, empty_database_url: str, database_url: str
) -> None:
    other = make_engine(database_url)
    add(sessions, 2)
    add(make_sessions(other), 2)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(AuditChain)) == 2
    other.dispose()
    assert report(sessions).problems == []


@pytest.mark.parametrize("content", ["", "abcd", "no hexadecimal digits, these"])
def test_a_file_that_holds_no_key_is_refused(
    settings: Settings, content: str, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    wrong = settings.model_copy(update={"audit_key_file": path})
    with pytest.raises(ConfigurationError, match="FIRSTREAD_AUDIT_KEY_FILE"):
        read_key(wrong)


def test_a_key_is_made_once_for_its_owner_alone(settings: Settings) -> None:
    own = settings.model_copy(update={"audit_key_file": None})
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: read_key(own), range(16)))
    assert len(keys) == 1
    path = own.home / "run" / "audit.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["audit.key"]
