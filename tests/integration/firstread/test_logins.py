"""``firstread migrate`` makes the services' logins where the site gives it their passwords."""

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url

from common.errors import ConfigurationError
from common.settings import Settings
from firstread.migrate import migrate


def login(settings: Settings, name: str, password: str) -> psycopg.Connection:
    """Connect to the database under another name."""
    address = make_url(settings.database_address()).set(
        drivername="postgresql", username=name, password=password
    )
    return psycopg.connect(address.render_as_string(hide_password=False), autocommit=True)


def member_of(settings: Settings, name: str) -> list[str]:
    """Name the groups that a login is in."""
    engine = create_engine(settings.database_address())
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid "
            "JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s",
            (name,),
        ).all()
    engine.dispose()
    return [row.rolname for row in rows]


def verifier(settings: Settings, name: str) -> str:
    """Read what the server keeps of a password; the tests' own asks for none on its socket."""
    engine = create_engine(settings.database_address())
    with engine.connect() as connection:
        asked = "SELECT rolpassword FROM pg_authid WHERE rolname = %s"
        kept = connection.exec_driver_sql(asked, (name,)).scalar_one()
    engine.dispose()
    return kept


def test_each_login_is_in_its_services_group_alone_and_its_password_can_be_renewed(
    settings: Settings,
) -> None:
    first = settings.model_copy(
        update={
            "listener_password": SecretStr("one"),
            "beat_password": SecretStr('it\'s \\ "another"'),
        }
    )
    assert any("firstread_listener_service" in sentence for sentence in migrate(first))
    assert member_of(settings, "firstread_listener_service") == ["firstread_listener"]
    assert member_of(settings, "firstread_beat_service") == ["firstread_worker"]
    before = verifier(settings, "firstread_beat_service")
    assert before.startswith("SCRAM-SHA-256$")
    migrate(first.model_copy(update={"beat_password": SecretStr("renewed")}))
    assert verifier(settings, "firstread_beat_service") != before
    with login(settings, "firstread_beat_service", "renewed") as beat:
        assert beat.execute("SELECT count(*) FROM analysis").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            beat.execute("UPDATE study SET accession_number = ''")


def test_no_login_is_made_without_its_password(settings: Settings) -> None:
    said = migrate(settings.model_copy(update={"worker_password": SecretStr("only")}))
    (logins,) = [sentence for sentence in said if sentence.startswith("logins")]
    assert "worker" in logins
    assert "dashboard" not in logins
    assert not any(sentence.startswith("logins") for sentence in migrate(settings))


def test_an_account_that_may_not_make_logins_is_told_what_to_do(settings: Settings) -> None:
    engine = create_engine(settings.database_address(), isolation_level="AUTOCOMMIT")
    name = make_url(settings.database_address()).database
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE modest LOGIN PASSWORD 'modest'")
        connection.exec_driver_sql(f"ALTER DATABASE {name} OWNER TO modest")
        connection.exec_driver_sql("ALTER TABLE alembic_version OWNER TO modest")
        connection.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO modest")
    engine.dispose()
    url = make_url(settings.database_address()).set(username="modest", password="modest")  # noqa: S106
    modest = settings.model_copy(
        update={
            "database_url": SecretStr(url.render_as_string(hide_password=False)),
            "dashboard_password": SecretStr("one"),
        }
    )
    with pytest.raises(ConfigurationError, match="unset FIRSTREAD_DASHBOARD_PASSWORD"):
        migrate(modest)
