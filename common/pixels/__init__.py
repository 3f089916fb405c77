"""Read one image as the reader sees it: for the model and for the page alike."""

from common.pixels.header import PHANTOM_CREATOR, is_phantom, read_header
from common.pixels.image_files import read_image_file
from common.pixels.reading import DEFAULT_MAX_PIXELS, read_pixels
from common.pixels.rendition import read_rendition, write_rendition

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "PHANTOM_CREATOR",
    "is_phantom",
    "read_header",
    "read_image_file",
    "read_pixels",
    "read_rendition",
    "write_rendition",
]
