"""The radiograph in the browser: its payload, and what stands there where there is no picture."""

import json
import struct
from typing import Any

from streamlit.components.v2 import component

from common.archive import Archive
from common.states import AnalysisState, Outcome
from dashboard.study_record import Heatmap, ImageRecord
from dashboard.theme import asset
from dashboard.wording import plain

MAX_RENDITION_BYTES = 48 << 20  # 2,048 by 2,048 pixels of 16 bits are 8 MiB before compression
_PNG_START = b"\x89PNG\r\n\x1a\n"
_OVERLAY = (
    "Heatmap, 0 to 1 on the same scale for every image.\nIt may be wrong; look outside it too."
)
_UNSUPPORTED = "No localisation supports the flag.\nThe heatmap does not show what was flagged."


def draw_viewer(image: ImageRecord, archive: Archive, *, key: str, title: str) -> Any:  # noqa: ANN401
    """Draw one image; its pixels travel inside the session, never at an address of their own.

    Returns:
        The component's result; ``heatmap_asked`` is set when the reader asked for an overlay that
        was not shown by itself.
    """
    return component(
        "firstread_viewer",
        html=asset("viewer.html"),
        css=asset("viewer.css"),
        js=asset("picture.js", "viewer.js"),
    )(key=key, data=payload(image, archive, title), on_heatmap_asked_change=lambda: None)


def payload(image: ImageRecord, archive: Archive, title: str) -> bytes:
    """Pack uint32 length (little-endian), header as JSON, PNG as it lies in the archive."""
    picture, missing = _picture(image, archive)
    header = {
        "instance_id": image.instance_id,
        "version": f"{image.analysis_id}-{image.state}",
        "title": title,
        "rows": image.rows,
        "columns": image.columns,
        "missing": missing,
        "heatmap": _grid(image.heatmap),
        "overlay_shown": overlay_by_itself(image),
        "overlay_text": _UNSUPPORTED if image.unsupported_flag else _OVERLAY,
        "caution": image.unsupported_flag,
        "no_heatmap": "No heatmap" if image.state is AnalysisState.DONE else "No AI result",
    }
    packed = json.dumps(header, allow_nan=False).encode()
    return struct.pack("<I", len(packed)) + packed + picture


def overlay_by_itself(image: ImageRecord) -> bool:
    """Whether the heatmap shows unasked: of flagged images alone."""
    return image.outcome is Outcome.FLAGGED and image.heatmap is not None


def image_title(image: ImageRecord, position: int, total: int) -> str:
    """Name an image: its place in the study, modality and view."""
    parts = [f"Image {position} of {total}", plain(image.modality), plain(image.view_position)]
    if not image.view_position:
        parts[2] = "view not stated"
    size = f"{image.columns} by {image.rows}" if image.rows and image.columns else ""
    return " · ".join(part for part in (*parts, size) if part)


def _picture(image: ImageRecord, archive: Archive) -> tuple[bytes, str]:
    if image.deleted:
        return b"", "Deleted here after it was read.\nOpen the study in the PACS viewer to see it."
    if image.state in (None, AnalysisState.QUEUED, AnalysisState.RUNNING) and not image.rendition:
        return b"", "No picture yet: this image waits for its turn.\nThe page shows it by itself."
    if image.state is AnalysisState.FAILED and not image.rendition:
        return b"", "No picture: the pixels could not be read.\nOpen the study in the PACS viewer."
    if not image.rendition:
        return b"", (
            "No picture was made of this object.\nOpen the study in the PACS viewer to see it."
        )
    try:
        path = archive.path(image.rendition)
        if path.stat().st_size > MAX_RENDITION_BYTES:
            return b"", "The picture is too large to show here."
        content = path.read_bytes()
    except (OSError, ValueError):
        return b"", (
            "The picture is missing from the archive.\nAsk for the study to be reprocessed."
        )
    if not content.startswith(_PNG_START) or not image.rows or not image.columns:
        return b"", "The picture is damaged.\nAsk for the study to be reprocessed."
    return content, ""


def _grid(heatmap: Heatmap | None) -> dict[str, Any] | None:
    if heatmap is None:
        return None
    rows, columns = heatmap.values.shape
    return {
        "rows": rows,
        "columns": columns,
        "values": [round(float(value), 4) for value in heatmap.values.ravel()],
        "affine": list(heatmap.affine),
    }
