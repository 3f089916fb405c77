"""Find the bundle that a person names by folder, by name, or by name and version."""

from pathlib import Path

from common.errors import BundleError
from model.bundles import DESCRIPTION, SHIPPED, Bundle, find_bundles, read_bundle


def named_bundle(reference: str) -> Bundle:
    """Read a bundle: a folder, or NAME or NAME@VERSION of one that ships; the newest version.

    Raises:
        BundleError: there is none of that name; the message lists what there is.
    """
    folder = Path(reference)
    if (folder / DESCRIPTION).is_file():
        return read_bundle(folder)
    shipped = find_bundles(SHIPPED)
    for bundle in reversed(shipped):
        full = f"{bundle.name}-{bundle.version}"
        if reference in (bundle.name, f"{bundle.name}@{bundle.version}", full):
            return bundle
    known = ", ".join(f"{bundle.name}@{bundle.version}" for bundle in shipped)
    raise BundleError(f"no bundle {reference!r}: name its folder, or one that ships: {known}")
