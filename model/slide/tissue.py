"""Find tissue on a picture of a whole slide: what is coloured, against the glass."""

import cv2
import numpy as np
from numpy.typing import NDArray

# Of 255. Colour noise of a scanner on empty glass stays below the first; the palest eosin of real
# slides lies above the second, so a slide without any glass is not cut in two by Otsu.
LEAST_CHROMA = 10
GREATEST_THRESHOLD = 28
LEAST_CONTRAST = 12.0


def find_tissue(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark tissue on an RGB picture (H, W, 3), about 16 micrometres a pixel; bool (H, W).

    Chroma (the greatest less the least of red, green and blue) is thresholded by Otsu. Where the
    two sides differ by less than scanner noise does, the slide is blank or all tissue, and a fixed
    threshold decides. Specks of one or two pixels are dropped. Ink of a pen counts as tissue.

    Source: Otsu 1979.
    """
    smooth = cv2.GaussianBlur(picture, (3, 3), 0)
    chroma = smooth.max(axis=2) - smooth.min(axis=2)
    otsu, _ = cv2.threshold(chroma, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    threshold = float(np.clip(otsu, LEAST_CHROMA, GREATEST_THRESHOLD))
    above = chroma > otsu
    contrast = 0.0
    if above.any() and not above.all():
        contrast = float(chroma[above].mean() - chroma[~above].mean())
    if contrast < LEAST_CONTRAST:
        threshold = float(GREATEST_THRESHOLD)
    mask = (chroma > threshold).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc).astype(bool)
