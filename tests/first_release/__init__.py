"""What the services of the first release, of the tables at revision 0001, say to Postgres.

The SQL is its own, as text, so that no later change of the code changes it: the listener's as it
was written, the others' as SQLAlchemy made it, with the constants that it sent put in. The steps
around it do what its services did, in their order, a transaction each.
"""

from importlib.resources import files


def read_statements(service: str) -> dict[str, bytes]:
    """Read the statements of a service, each under the name in the comment above it."""
    parts = files(__name__).joinpath(f"{service}.sql").read_text().split("-- name: ")[1:]
    named = (part.partition("\n") for part in parts)
    return {name.strip(): statement.strip().encode() for name, _, statement in named}
