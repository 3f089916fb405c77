"""What each service's login may do in the database: group roles without login, and their grants.

Applied after every run of the migrations (``alembic/env.py``), so that one table says it all. The
roles belong to the whole server; the operator makes logins and puts each into one of them. The
owner of the tables, who migrates, is none of the three.
"""

import re

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
# "at" is read by the first release alone, and its services must work on these tables, too.
_APPEND: dict[str, str] = dict.fromkeys(ROLES, "INSERT, SELECT (id, at)")  # told what it added

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


# A privilege and the column that it is limited to; None: the whole table.
Granted = set[tuple[str, str | None]]

_GRANTED = """
SELECT c.relname AS "table", r.rolname AS role, a.privilege_type AS privilege, NULL AS "column"
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
UNION ALL
SELECT c.relname, r.rolname, a.privilege_type, t.attname
FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid
CROSS JOIN aclexplode(t.attacl) a JOIN pg_roles r ON r.oid = a.grantee
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
"""


def grant_privileges(connection: Connection) -> None:
    """Make the roles where that is allowed, and give them what the table says and no more.

    Of columns that this revision of the tables does not have nothing is said. The caller commits:
    until then services have what they had. Safe to repeat; where nothing differs nothing is
    written. Roles that are missing and cannot be made are left out: ``missing_roles``.
    """
    _make_roles(connection)
    missing = missing_roles(connection)
    granted: dict[tuple[str, str], Granted] = {}
    for row in connection.execute(text(_GRANTED)):
        granted.setdefault((row.table, row.role), set()).add((row.privilege, row.column))
    inspector = inspect(connection)
    for table in sorted(PRIVILEGES.keys() & set(inspector.get_table_names())):
        columns = {column["name"] for column in inspector.get_columns(table)}
        for role in (role for role in ROLES if role not in missing):
            wanted = _wanted(PRIVILEGES[table].get(role, ""), columns)
            if granted.get((table, role), set()) == wanted:
                continue
            connection.exec_driver_sql(f"REVOKE ALL ON {table} FROM {role}")
            for privilege, column in sorted(wanted, key=str):
                of = f" ({column})" if column else ""
                connection.exec_driver_sql(f"GRANT {privilege}{of} ON {table} TO {role}")


def _wanted(grants: str, columns: set[str]) -> Granted:
    """Read ``SELECT, UPDATE (a, b)``, without what names a column that is not there."""
    wanted: Granted = set()
    for privilege, limits in re.findall(r"([A-Z]+)(?: \(([^)]*)\))?", grants):
        named = limits.split(", ") if limits else [None]
        wanted |= {(privilege, column) for column in named if column is None or column in columns}
    return wanted


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
