"""The migrations of a version to come: a copy of ours with more behind them."""

import shutil
from pathlib import Path

from alembic.config import Config

from common.schema import NEEDED_REVISION
from tests.conftest import REPOSITORY

HEAD = '''"""Change something.

Revision ID: {revision}
Revises: {before}
"""

from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
{body}
'''


def later_migrations(folder: Path, *bodies: str) -> Config:
    """Write one migration for each body of an ``upgrade``, and give Alembic's configuration."""
    shutil.copytree(REPOSITORY / "alembic", folder / "alembic")
    before = NEEDED_REVISION
    for number, body in enumerate(bodies, start=9001):
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        path = folder / "alembic" / "versions" / f"{number}_later.py"
        path.write_text(HEAD.format(revision=number, before=before, body=lines))
        before = str(number)
    described = folder / "pyproject.toml"
    described.write_text(f'[tool.alembic]\nscript_location = "{folder / "alembic"}"\n')
    return Config(toml_file=str(described))
