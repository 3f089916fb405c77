"""Turn attenuation into a displayed radiograph: scatter, noise, tone, collimation, markers."""

from dataclasses import dataclass

import cv2
import numpy as np

from model.phantom_canvas import FIELD_HEIGHT_MM, Canvas, Image

_TONE_POINTS = ([0.0, 0.12, 0.35, 0.65, 0.9, 1.0], [0.0, 0.07, 0.33, 0.69, 0.92, 1.0])


@dataclass(frozen=True)
class Technique:
    """How one exposure was made and shown."""

    scatter: float
    photons_per_mm2: float
    heel: float
    heel_direction: float
    darkest_percentile: float
    gamma: float
    border_mm: tuple[float, float, float, float]
    marker: str
    marker_place: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Technique":
        """Draw one exposure. The borders are left, top, right, bottom."""
        collimated = rng.random() < 0.35
        border = rng.uniform(0, 13, 4) if collimated else np.zeros(4)
        return cls(
            scatter=rng.uniform(0.5, 1.2),
            photons_per_mm2=float(np.exp(rng.uniform(np.log(1.2e4), np.log(6e4)))),
            heel=rng.uniform(0.02, 0.12),
            heel_direction=rng.uniform(0, 2 * np.pi),
            darkest_percentile=rng.uniform(1.0, 5.0),
            gamma=rng.uniform(0.88, 1.15),
            border_mm=(float(border[0]), float(border[1]), float(border[2]), float(border[3])),
            marker="R" if rng.random() < 0.5 else "L",
            marker_place=(rng.uniform(0.05, 0.09), rng.uniform(0.07, 0.16)),
        )


def expose(canvas: Canvas, attenuation: Image, technique: Technique) -> Image:
    """Compute the detector's signal without its noise: primary beam, heel effect and scatter."""
    y, x = np.mgrid[-1 : 1 : canvas.rows * 1j, -1 : 1 : canvas.columns * 1j].astype(np.float32)
    slope = x * np.cos(technique.heel_direction) + y * np.sin(technique.heel_direction)
    primary = np.exp(-attenuation) * (1 + technique.heel * slope)
    covered = canvas.blur((attenuation > 0.4).astype(np.float32), 20)
    scatter = technique.scatter * canvas.blur(np.minimum(primary, 0.35), 32) * covered
    return canvas.blur(primary + scatter * 0.55, 0.25)


def add_noise(
    signal: Image, technique: Technique, mm_per_px: float, rng: np.random.Generator
) -> Image:
    """Add quantum noise, by a Gaussian of the Poisson's variance, and a little read noise.

    The counts per pixel follow the pixel's area, so that an image shrunk by averaging has the
    noise of one that was made small.
    """
    counts = technique.photons_per_mm2 * mm_per_px**2
    spread = np.sqrt(np.maximum(signal, 0) / counts + 2e-7 / mm_per_px**2)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    return np.maximum(signal + spread.astype(np.float32) * noise, 1e-4)


def develop(signal: Image, technique: Technique) -> Image:
    """Map the signal to display values in [0, 1], 0 black: dense tissue is bright."""
    density = -np.log(signal)
    sample = density[::4, ::4]
    body = sample[sample > 0.4]
    low = float(np.percentile(body, technique.darkest_percentile)) - 0.12
    high = float(np.percentile(body, 99.3)) + 0.05
    shade = np.clip((density - low) / max(high - low, 1e-3), 0, 1) ** technique.gamma
    return np.interp(shade, *_TONE_POINTS).astype(np.float32)


def finish(image: Image, technique: Technique) -> Image:
    """Shutter the border, set the side marker and burn "SIMULATED" into the picture."""
    rows, columns = image.shape
    mm = rows / FIELD_HEIGHT_MM
    left, top, right, bottom = (round(border * mm) for border in technique.border_mm)
    shuttered = np.zeros_like(image)
    inside = (slice(top, rows - bottom), slice(left, columns - right))
    shuttered[inside] = image[inside]
    x, y = technique.marker_place
    x = x if technique.marker == "R" else 1 - x - 0.035
    return burn_in(burn_in(shuttered, technique.marker, (x, y), 0.036))


def burn_in(
    image: Image,
    text: str = "SIMULATED",
    place: tuple[float, float] = (0.03, 0.972),
    height: float = 0.021,
) -> Image:
    """Burn text into an image, lower left at ``place``; place and height are parts of its size."""
    rows, columns = image.shape
    overlay = np.zeros(image.shape, np.uint8)
    scale = max(height * rows / 22, 0.25)
    origin = (round(place[0] * columns), round(place[1] * rows))
    thickness = max(1, round(scale * 2))
    cv2.putText(
        overlay, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), thickness, cv2.LINE_AA
    )
    # a dark rim keeps the letters legible on bright tissue
    rim = cv2.dilate(overlay, np.ones((3, 3), np.uint8), iterations=max(1, round(rows / 400)))
    backed = image * (1 - 0.9 * rim.astype(np.float32) / 255)
    letters = overlay.astype(np.float32) / 255
    return backed * (1 - letters) + 0.97 * letters
