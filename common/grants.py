"""What each service's login may do in the database: group roles without login, and their grants.

Applied after every run of the migrations (``alembic/env.py``), so that one table says it all. The
roles belong to the whole server; the operator makes logins and puts each into one of them. The
owner of the tables, who migrates, is none of the three.
"""

from sqlalchemy import Connection, inspect, text

LISTENER: str = "firstread_listener"
WORKER: str = "firstread_worker"
DASHBOARD: str = "firstread_dashboard"
ROLES = (LISTENER, WORKER, DASHBOARD)

_READ: dict[str, str] = dict.fromkeys(ROLES, "SELECT")
# A study's place is derived by whoever changes what it follows from. The dashboard changes what
# people decide and never what the models said: outcome, probability and leading image stay shut.
_PLACE = (
    "listed, prior, new_image_since_read, ai_ranked, band, due_at, order_priority, "
    "order_priority_source, reason"
)
_APPEND: dict[str, str] = dict.fromkeys(ROLES, "INSERT, SELECT (id)")  # told what it added

PRIVILEGES: dict[str, dict[str, str]] = {
    "alembic_version": _READ,
    "patient": _READ | {LISTENER: "SELECT, INSERT, UPDATE"},
    "study": _READ | {LISTENER: "SELECT, INSERT, UPDATE"},
    "series": _READ | {LISTENER: "SELECT, INSERT"},
    "instance": _READ
    | {
        LISTENER: "SELECT, INSERT, UPDATE (deleted_at, file_removed_at, received_at)",
        WORKER: "SELECT, UPDATE (deleted_at, file_removed_at)",  # retention, where it is on
    },
    "set_aside": _READ | {LISTENER: "SELECT, INSERT"},
    "commitment_request": _READ | {LISTENER: "SELECT, INSERT, UPDATE"},
    "commitment_item": _READ | {LISTENER: "SELECT, INSERT, UPDATE"},
    "model_version": _READ,
    "analysis": {
        LISTENER: "SELECT, INSERT, UPDATE (band, due_at)",
        WORKER: "SELECT, UPDATE",
        DASHBOARD: "SELECT, UPDATE (band, due_at)",  # what waits follows its study's new place
    },
    "worklist_item": {
        LISTENER: "SELECT, INSERT, UPDATE",
        WORKER: "SELECT, UPDATE",
        DASHBOARD: f"SELECT, UPDATE ({_PLACE})",
    },
    "reading": _READ | {DASHBOARD: "SELECT, INSERT, UPDATE"},
    "site": _READ | {DASHBOARD: "SELECT, UPDATE (ai_ranking)"},
    "audit_chain": {
        **dict.fromkeys(ROLES, "SELECT, INSERT"),
        WORKER: "SELECT, INSERT, UPDATE (sent_sequence, head_sequence)",
    },
    "audit_event": _APPEND | {WORKER: "SELECT, INSERT"},  # beat sends them on
}


def grant_privileges(connection: Connection) -> None:
    """Make the roles where that is allowed, and give them what the table says and no more.

    Safe to repeat. Roles that are missing and cannot be made are left out: ``missing_roles``.
    """
    _make_roles(connection)
    missing = missing_roles(connection)
    roles = [role for role in ROLES if role not in missing]
    tables = set(inspect(connection).get_table_names())
    for table, grants in PRIVILEGES.items():
        if table not in tables:
            continue
        for role in roles:
            connection.exec_driver_sql(f"REVOKE ALL ON {table} FROM {role}")
            if role in grants:
                connection.exec_driver_sql(f"GRANT {grants[role]} ON {table} TO {role}")


def missing_roles(connection: Connection) -> list[str]:
    """Name the group roles that this server does not have."""
    known = set(
        connection.scalars(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:roles)"), {"roles": list(ROLES)}
        )
    )
    return [role for role in ROLES if role not in known]


def _make_roles(connection: Connection) -> None:
    may = connection.scalar(
        text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    )
    for role in missing_roles(connection) if may else ():
        # Another database of the same server may make it in this instant.
        connection.exec_driver_sql(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
