"""Open a DICOM whole-slide image and read it block by block; memory does not grow with its size.

Letters of shapes: H and W rows and columns of a picture.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import wsidicom
import wsidicom.errors as wsidicom_errors
from numpy.typing import NDArray
from pydicom.filereader import read_file_meta_info
from pydicom.uid import JPEGBaseline8Bit
from wsidicom.config import Settings as ReaderSettings
from wsidicom.options import DecoderOption

from common.errors import NotEligibleError, OversizedImageError, UnreadablePixelsError
from common.pixels.header import PARSER_ERRORS

WHITE = 255
CACHE_BYTES = 32 << 20
BLOCK_PX = 1024
# A glass of 26 x 76 mm has 8 million pixels of 16 micrometres, the largest format 24 million.
MAX_PICTURE_PIXELS = 64_000_000
# A pixel may be this much larger than the tile's: what 20x means differs between scanners.
COARSER = 1.1
# Beyond this the level between is missing, and reading from the finer one is a waste of hours.
MAX_REDUCTION = 8.0

_NO_SPACING = "no pixel spacing: the magnification is unknown"
# The reader's errors have no common base.
READER_ERRORS: tuple[type[Exception], ...] = (
    *(
        error
        for error in vars(wsidicom_errors).values()
        if isinstance(error, type) and issubclass(error, Exception)
    ),
    *PARSER_ERRORS,
    OSError,
    RuntimeError,  # of the decoders
)


class SlideLevel(NamedTuple):
    """One level of the pyramid.

    Attributes:
        number: as the reader counts: its pixels are 2 ** number times those of the base.
        size_px: rows and columns.
        mpp_um: height and width of a pixel in micrometres.
    """

    number: int
    size_px: tuple[int, int]
    mpp_um: tuple[float, float]


class WholeSlide:
    """A slide that is open: see ``open_slide``."""

    def __init__(self, reader: wsidicom.WsiDicom, notes: tuple[str, ...]) -> None:
        self._reader = reader
        self.notes = notes
        self.levels = _levels(reader)  # finest first

    @property
    def base(self) -> SlideLevel:
        """The finest level."""
        return self.levels[0]

    @property
    def extent_um(self) -> tuple[float, float]:
        """Height and width of what was scanned."""
        (rows, columns), (tall, wide) = self.base.size_px, self.base.mpp_um
        return rows * tall, columns * wide

    @property
    def series_instance_uid(self) -> str:
        """The series that the levels belong to."""
        return str(self._reader.levels.base_level.uids.series_instance)

    def level_for(self, mpp_um: float) -> SlideLevel:
        """Choose the coarsest level that is still fine enough.

        Raises:
            NotEligibleError: none is fine enough, or the one between is missing.
        """
        fine = [level for level in self.levels if max(level.mpp_um) <= mpp_um * COARSER]
        if not fine:
            raise NotEligibleError(
                f"not sharp enough: its finest level has {max(self.base.mpp_um):.3g} micrometres a"
                f" pixel, the model needs {mpp_um:g}"
            )
        if mpp_um / min(fine[-1].mpp_um) > MAX_REDUCTION:
            raise NotEligibleError(
                f"level missing: the coarsest that is fine enough for {mpp_um:g} micrometres a"
                f" pixel has {min(fine[-1].mpp_um):.3g}"
            )
        return fine[-1]

    def read_block(
        self, level: SlideLevel, top: int, left: int, size_px: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Read RGB pixels (H, W, 3) of a level; white where the block hangs over its edge.

        Raises:
            UnreadablePixelsError: a tile of the file is broken or missing.
        """
        rows = min(size_px[0], level.size_px[0] - top)
        columns = min(size_px[1], level.size_px[1] - left)
        block = np.full((*size_px, 3), WHITE, dtype=np.uint8)
        if rows <= 0 or columns <= 0:
            return block
        try:
            pixels = self._reader.read_region(
                (left, top), level.number, (columns, rows), as_array=True
            )
        except READER_ERRORS as error:
            raise UnreadablePixelsError(
                f"a tile near row {top}, column {left} of the level with {level.mpp_um[0]:.3g}"
                f" micrometres a pixel cannot be read: {str(error) or type(error).__name__}"
            ) from error
        if pixels.shape != (rows, columns, 3) or pixels.dtype != np.uint8:
            raise UnreadablePixelsError(f"pixels are {pixels.dtype} {pixels.shape}, not 8-bit RGB")
        block[:rows, :columns] = pixels
        return block

    def read_picture(self, mpp_um: float) -> NDArray[np.uint8]:
        """Read the whole slide at about this many micrometres a pixel, RGB (H, W, 3), by blocks.

        Raises:
            OversizedImageError: larger than any glass.
            UnreadablePixelsError: a tile of the file is broken.
        """
        coarse = [level for level in self.levels if max(level.mpp_um) <= mpp_um]
        level = coarse[-1] if coarse else self.base
        steps = [max(1, round(mpp_um / side)) for side in level.mpp_um]
        shape = [math.ceil(n / step) for n, step in zip(level.size_px, steps, strict=True)]
        if math.prod(shape) > MAX_PICTURE_PIXELS:
            tall, wide = (side / 1000 for side in self.extent_um)
            raise OversizedImageError(f"{tall:.0f} x {wide:.0f} mm is larger than any glass")
        picture = np.full((*shape, 3), WHITE, dtype=np.uint8)
        rows, columns = (max(1, BLOCK_PX // step) for step in steps)
        for top in range(0, shape[0], rows):
            for left in range(0, shape[1], columns):
                part = picture[top : top + rows, left : left + columns]
                wanted = (part.shape[0] * steps[0], part.shape[1] * steps[1])
                block = self.read_block(level, top * steps[0], left * steps[1], wanted)
                part[:] = cv2.resize(block, part.shape[1::-1], interpolation=cv2.INTER_AREA)
        return picture


@contextmanager
def open_slide(files: Sequence[Path]) -> Iterator[WholeSlide]:
    """Open the instances of one slide.

    Raises:
        NotEligibleError: no brightfield whole-slide image whose pixels have a known size.
        UnreadablePixelsError: the files are broken.
    """
    settings = ReaderSettings(
        decoded_frame_cache_size=CACHE_BYTES,
        encoded_frame_cache_size=CACHE_BYTES // 4,
        preferred_decoder=_decoder_for(files),
    )
    try:
        reader = wsidicom.WsiDicom.open(list(files), settings=settings)
    except wsidicom_errors.WsiDicomNotFoundError as error:
        raise NotEligibleError("no level of a whole-slide image") from error
    except wsidicom_errors.WsiDicomNoResolutionError as error:
        raise NotEligibleError(_NO_SPACING) from error
    except READER_ERRORS as error:
        raise UnreadablePixelsError(
            f"cannot be opened: {str(error) or type(error).__name__}"
        ) from error
    with reader:
        yield WholeSlide(reader, _check(reader))


def _decoder_for(files: Sequence[Path]) -> DecoderOption | None:
    """Choose Pillow for JPEG: other decoders fill a cut frame with grey and say nothing."""
    try:
        syntaxes = {str(read_file_meta_info(file).get("TransferSyntaxUID")) for file in files}
    except (*PARSER_ERRORS, OSError):
        return None  # the reader says what is wrong
    return DecoderOption.PILLOW if syntaxes <= {JPEGBaseline8Bit} else None


def _check(reader: wsidicom.WsiDicom) -> tuple[str, ...]:
    """Refuse what the pipeline was not made for; give notes on what it leaves out."""
    notes = []
    pyramids = len(reader.pyramids)
    if pyramids > 1:
        notes.append(f"{pyramids} scanned areas: the first was analysed")
    base = reader.levels.base_level
    paths = {path for level in reader.levels for path in level.optical_paths}
    if len(paths) > 1:
        raise NotEligibleError(f"{len(paths)} optical paths: made for one brightfield image")
    planes = len(base.focal_planes)
    if planes > 1:
        notes.append(f"{planes} focal planes: the default one was read")
    if any(level.pixel_spacing is None for level in reader.levels):
        raise NotEligibleError(_NO_SPACING)
    dataset = base.datasets[0]
    if dataset.samples_per_pixel != 3 or dataset.bits != 8:
        raise NotEligibleError("not an 8-bit colour image")
    return tuple(notes)


def _levels(reader: wsidicom.WsiDicom) -> tuple[SlideLevel, ...]:
    found = []
    for level in reader.levels:
        spacing = level.mpp
        if spacing is None:
            raise NotEligibleError(_NO_SPACING)
        size = (level.size.height, level.size.width)
        found.append(SlideLevel(level.level, size, (spacing.height, spacing.width)))
    return tuple(sorted(found))
