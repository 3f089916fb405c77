"""Logins of the services' group roles on the tests' server, as an operator would make them."""

from sqlalchemy import create_engine, make_url, text

from common.settings import Settings

PASSWORD = "only-of-the-tests"  # noqa: S105


def as_member(settings: Settings, role: str) -> Settings:
    """Give settings whose database address is a login in this group role and in no other."""
    url = settings.database_address()
    name = f"{role}_test"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        known = connection.scalar(
            text("SELECT count(*) FROM pg_roles WHERE rolname = :name"), {"name": name}
        )
        if not known:
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
            connection.exec_driver_sql(f"GRANT {role} TO {name}")
    admin.dispose()
    own = make_url(url).set(username=name, password=PASSWORD)
    return Settings.model_validate(
        {**settings.model_dump(), "database_url": own.render_as_string(hide_password=False)}
    )
