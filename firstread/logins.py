"""The accounts of Postgres: the owner, and a login for each service in its group role.

On the embedded server each service finds its address in HOME/run/SERVICE.url (0600), which the
stack names to it alone. On a site's own server ``migrate`` makes them where it has their passwords.
"""

import hashlib
import hmac
from pathlib import Path

import psycopg
from psycopg import sql

from common.errors import ConfigurationError
from common.grants import DASHBOARD, LISTENER, ROLES, WORKER

OWNER = "firstread"
# A service's login is its group's name and this; beat is a worker that analyses nothing.
SUFFIX = "_service"
GROUPS = {"listener": LISTENER, "worker": WORKER, "beat": WORKER, "dashboard": DASHBOARD}


def login(service: str) -> str:
    """Name the login of a service."""
    return GROUPS[service] + SUFFIX


def address_file(run_folder: Path, service: str) -> Path:
    """Say where a service finds its database's address."""
    return run_folder / f"{service}.url"


def make_logins(
    connection: psycopg.Connection, database: str, owner_password: str, service_password: str
) -> None:
    """Make the owner, the group roles and the services' logins, as a superuser; safe to repeat."""
    _login(connection, OWNER, owner_password)
    for group in ROLES:
        if not _known(connection, group):
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(group)))
        name = group + SUFFIX
        _member(connection, name, group, derived(service_password, name))
    known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [database])
    names = sql.Identifier(database), sql.Identifier(OWNER)
    if known.fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
    _admit_services_alone(connection, database)


def make_service_logins(connection: psycopg.Connection, passwords: dict[str, str]) -> list[str]:
    """Make each of these services its own login on this database, or renew its password.

    All or nothing; the caller commits. The group roles are there: the database was migrated.

    Returns:
        The logins' names.

    Raises:
        ConfigurationError: this account may not.
    """
    names = {service: f"firstread_{service}{SUFFIX}" for service in passwords}
    try:
        for service, name in names.items():
            _member(connection, name, GROUPS[service], passwords[service])
        _admit_services_alone(connection, connection.info.dbname)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"This account may not make logins ({error.diag.message_primary}): let one that may "
            "create roles make them (docs/operations.md, logins), and unset "
            + ", ".join(f"FIRSTREAD_{service.upper()}_PASSWORD" for service in names)
        ) from error
    return list(names.values())


def derived(secret: str, name: str) -> str:
    """Give each login a password of its own from one stored secret."""
    return hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()


def _admit_services_alone(connection: psycopg.Connection, database: str) -> None:
    """Let nobody else's login connect to the database."""
    name = sql.Identifier(database)
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    for group in ROLES:
        connection.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, sql.Identifier(group))
        )


def _member(connection: psycopg.Connection, name: str, group: str, password: str) -> None:
    """Make a login that is in this group and in no other."""
    _login(connection, name, password)
    connection.execute(
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name))
    )


def _known(connection: psycopg.Connection, role: str) -> bool:
    found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
    return found.fetchone() is not None


def _login(connection: psycopg.Connection, role: str, password: str) -> None:
    """Make a login or renew its password; the server, and so its log, sees the verifier alone."""
    verifier = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    ).decode()
    verb = sql.SQL("ALTER ROLE" if _known(connection, role) else "CREATE ROLE")
    connection.execute(
        sql.SQL("{} {} LOGIN PASSWORD {}").format(verb, sql.Identifier(role), sql.Literal(verifier))
    )
