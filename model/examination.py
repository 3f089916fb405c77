"""Take one file to the encoder's input: tags, pixels, the gate, preprocessing. No torch."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import ImageError
from common.pixels.header import is_phantom, read_header
from common.pixels.image_files import is_image_file, read_image_file
from common.pixels.reading import DEFAULT_MAX_PIXELS, read_pixels
from common.pixels.rendition import write_rendition
from model.bundles import Bundle
from model.eligibility import Judgement, Note, Policy, judge
from model.gate import JUDGED_BY_PIXELS
from model.preprocessing import Affine, prepare


class Examined(NamedTuple):
    """What is known of an image before the model sees it.

    Attributes:
        eligible: Whether the pipeline was made for it.
        reasons: Refusals if it is not eligible, otherwise notes on missing tags.
        pixels: float32 (S, S), the encoder's input; None if not eligible.
        affine: From the encoder's input to image pixels, see ``Prepared``; None with ``pixels``.
        rows: Height of the image in pixels; None if its pixels were not read.
        columns: Width, likewise.
        rendition_written: Whether the page's picture was written.
    """

    eligible: bool
    reasons: tuple[str, ...]
    pixels: NDArray[np.float32] | None = None
    affine: Affine | None = None
    rows: int | None = None
    columns: int | None = None
    rendition_written: bool = False


def examine(
    path: str | PathLike[str],
    bundle: Bundle,
    policy: Policy,
    rendition: Path | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Examined:
    """Judge and prepare one DICOM, PNG or JPEG file for a bundle's encoder.

    An image that is not eligible still gets its rendition if its pixels can be read, since the
    page shows it; if they cannot, it is not eligible all the same and no error. What the tags say
    against an image wins; what they leave open, and what they may say wrongly, the gate judges.

    Args:
        path: The file.
        bundle: Whose eligibility rules and preprocessing count.
        policy: What the site decided.
        rendition: Where to write the page's picture; None: nowhere.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        ImageError: an eligible image whose pixels cannot be read.
        MalformedInstanceError: not DICOM, PNG or JPEG.
        StorageUnavailableError: the rendition cannot be written.
        OSError: the file cannot be opened or read.
    """
    without_tags = is_image_file(path)
    if without_tags:
        judgement = Judgement(True, (str(Note.NO_TAGS),))
    else:
        has_gate = bundle.gate is not None
        judgement = judge(read_header(path), bundle.eligibility, policy, has_gate=has_gate)
    if not judgement.eligible and rendition is None:
        return Examined(False, judgement.reasons)
    try:
        read = read_image_file if without_tags else read_pixels
        image = read(path, max_pixels)
    except ImageError:
        if judgement.eligible:
            raise
        return Examined(False, judgement.reasons)
    if judgement.eligible:
        judgement = judge_pixels(image, judgement, bundle, policy)
    if rendition is not None:
        write_rendition(image, rendition)
    rows, columns = image.shape
    pixels, affine = prepare(image, bundle.preprocessing) if judgement.eligible else (None, None)
    return Examined(
        judgement.eligible,
        judgement.reasons,
        pixels,
        affine,
        rows,
        columns,
        rendition is not None,
    )


def judge_pixels(
    image: NDArray[np.float32], judgement: Judgement, bundle: Bundle, policy: Policy
) -> Judgement:
    """Let a bundle's gate, if it has one, judge an image (H, W) that its tags let through.

    Returns:
        A refusal with its one reason, or the notes so far; among them that the pixels decided,
        where no tag says that the image is a frontal chest radiograph, or an adult's.

    Raises:
        BundleError: the gate cannot be read.
    """
    gate = bundle.load_gate()
    if gate is None:
        return judgement
    no_tags = Note.NO_TAGS in judgement.reasons
    stated = not no_tags and not {Note.NO_VIEW, Note.NO_BODY_PART} & set(judgement.reasons)
    age_asked = bundle.eligibility.adults_only and (
        (policy.unknown_age == "by_pixels" and Note.NO_AGE in judgement.reasons)
        or (policy.unknown_age != "accept" and no_tags)
    )
    refusal = gate.judge(gate.look(image), stated=stated, age_unknown=age_asked)
    if refusal is not None:
        return Judgement(False, (refusal,))
    if stated and not age_asked:
        return judgement
    return Judgement(True, (*judgement.reasons, JUDGED_BY_PIXELS))


def is_simulated(path: str | PathLike[str]) -> bool:
    """Say whether the simulator made this file, and so which pipeline it belongs to.

    Raises:
        MalformedInstanceError: not DICOM, PNG or JPEG.
        OSError: the file cannot be opened or read.
    """
    return not is_image_file(path) and is_phantom(read_header(path))
