"""Make bundles known to the database, and one of them live: audited, all or nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from common.errors import BundleError
from common.lifecycle import activate, live_version_id
from common.logs import get_logger
from common.reading import audit
from common.states import ModelState
from common.tables import ModelVersion
from worker.models import locate_bundle

if TYPE_CHECKING:
    from model.bundles import Bundle

REGISTRATION_LOCK = 7265003

log = get_logger()


def register_bundles(
    session: Session, folders: Iterable[Path] | None = None, *, actor: str = "system"
) -> list[ModelVersion]:
    """Register the bundles in these folders, and bring up pipelines that have no live version.

    A folder is a bundle or holds bundles; the shipped ones, if no folder is given. A complete
    bundle becomes live where its pipeline has none; a pipeline that already has one is left to
    ``activate_version``. Safe to repeat and to run twice at once; the caller commits.

    Returns:
        The versions newly registered.

    Raises:
        BundleError: a folder holds a damaged bundle.
    """
    from model.bundles import DESCRIPTION, SHIPPED, find_bundles, read_bundle

    bundles: list[Bundle] = []
    for folder in folders if folders is not None else (SHIPPED,):
        alone = (folder / DESCRIPTION).is_file()
        bundles += [read_bundle(folder)] if alone else find_bundles(folder)
    return register(session, bundles, actor=actor)


def register(session: Session, bundles: Iterable["Bundle"], *, actor: str) -> list[ModelVersion]:
    """Register bundles already read; see ``register_bundles``."""
    session.execute(select(func.pg_advisory_xact_lock(REGISTRATION_LOCK)))
    newest_first = sorted(
        bundles, key=lambda item: [int(part) for part in item.version.split(".")], reverse=True
    )
    known = set(session.scalars(select(ModelVersion.bundle_sha256)))
    versions = [_register(session, bundle, actor) for bundle in newest_first]
    for version in versions:
        complete = version.threshold is not None and version.state is not ModelState.RETIRED
        if complete and live_version_id(session, version.pipeline) is None:
            _activate(session, version, actor)
    return [version for version in versions if version.bundle_sha256 not in known]


def activate_version(session: Session, version: ModelVersion, *, actor: str) -> int:
    """Make a registered version live; the caller commits.

    Returns:
        How many queued analyses now wait for it.

    Raises:
        BundleError: the bundle is damaged, gone or incomplete; the message names what is missing.
    """
    bundle = locate_bundle(version)
    missing = bundle.missing()
    if missing:
        raise BundleError(
            f"{bundle.name} {bundle.version} is not complete; missing: {', '.join(missing)}"
        )
    version.threshold = bundle.threshold
    session.flush()
    return _activate(session, version, actor)


def _register(session: Session, bundle: "Bundle", actor: str) -> ModelVersion:
    """Add one bundle's row, or let the row that it has follow it to its new folder."""
    folder = str(bundle.folder.resolve())
    known = session.scalars(
        select(ModelVersion).where(ModelVersion.bundle_sha256 == bundle.sha256)
    ).one_or_none()
    if known is not None:
        if known.folder != folder and not Path(known.folder).is_dir():
            known.folder = folder
        return known
    missing = bundle.missing()
    version_id = session.execute(
        insert(ModelVersion)
        .values(
            pipeline=bundle.pipeline,
            name=bundle.name,
            version=bundle.version,
            bundle_sha256=bundle.sha256,
            folder=folder,
            threshold=None if missing else bundle.threshold,
            state=ModelState.CANDIDATE,
        )
        .returning(ModelVersion.id)
    ).scalar_one()
    version = session.get_one(ModelVersion, version_id)
    audit(session, actor, "model_registered", **_described(version), missing=missing)
    log.info("model_registered", **_described(version), missing=missing)
    return version


def _activate(session: Session, version: ModelVersion, actor: str) -> int:
    repointed = activate(session, version)
    session.refresh(version)
    audit(session, actor, "model_activated", **_described(version), repointed=repointed)
    log.info("model_activated", **_described(version), repointed=repointed)
    return repointed


def _described(version: ModelVersion) -> dict[str, str]:
    return {
        "pipeline": version.pipeline,
        "name": version.name,
        "version": version.version,
        "bundle_sha256": version.bundle_sha256,
    }
