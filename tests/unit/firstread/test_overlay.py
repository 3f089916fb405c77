"""Overlays: an absolute scale, and a caption that says at which prevalence a probability holds."""

from pathlib import Path

import numpy as np
import pytest

from firstread.overlay import draw_colour_overlay, draw_overlay
from firstread.triage import caption_of
from model.prevalence import SitePrevalence
from tests.small_bundle import CALIBRATOR, write_small_bundle

BACKGROUND = 16
LEGEND_PX = 96
IDENTITY = (8.0, 0.0, 0.0, 0.0, 8.0, 0.0)
CAPTION = " ".join(["probability"] * 8)  # too wide for two of them in a line


def test_a_caption_says_at_which_prevalence_the_probability_holds(tmp_path: Path) -> None:
    plain = write_small_bundle(tmp_path / "plain")
    site = SitePrevalence(prevalence=0.1, source="audit")
    corrected = write_small_bundle(tmp_path / "corrected", site_prevalence=site)
    score = CALIBRATOR.score_at(0.5)

    assert caption_of(plain, score) == "probability 0.50 calibrated at prevalence 50.0%"
    assert caption_of(corrected, score) == "probability 0.10 corrected to prevalence 10.0%"
    assert caption_of(plain, 99.0).startswith("probability > 0.99 ")
    assert caption_of(plain, -99.0).startswith("probability < 0.01 ")


@pytest.mark.parametrize("side", [40, 200, 1024])
def test_no_word_of_a_caption_is_cut_off_however_small_the_image_is(side: int) -> None:
    grey, heatmap = np.zeros((side, side), np.uint16), np.zeros((1, 1))

    drawn = draw_overlay(grey, heatmap, IDENTITY, size_px=(side, side), caption=CAPTION)

    legend = drawn[:, -LEGEND_PX:]
    inked = np.array(legend.max(axis=(1, 2)) > 3 * BACKGROUND)
    lines = np.flatnonzero(np.diff(np.r_[0, inked.astype(int)]) == 1)
    assert len(lines) >= 1 + 8  # "heatmap", with the bar and its numbers, then the words
    assert not inked[-4:].any()
    assert drawn.shape[0] >= side
    assert (drawn[side:, :-LEGEND_PX] == BACKGROUND).all()


def test_what_was_not_looked_at_is_outlined_and_not_taken_for_cold() -> None:
    picture = np.full((200, 200, 3), 255, np.uint8)
    cold, partly = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    partly[:, 1] = np.nan
    affine = (200.0, 0.0, 0.0, 0.0, 200.0, 0.0)

    whole, half = (
        draw_colour_overlay(picture, heat, affine, size_px=(200.0, 200.0))
        for heat in (cold, partly)
    )

    shown = half[:200, :200]
    line = np.array(shown.max(axis=2) < 128)
    assert whole[:200, :200].min() >= 128
    assert line[:, 95:105].any(axis=1).all()  # where the cells that were looked at end
    assert not line[5:195, 110:].any()


def test_the_same_heat_looks_the_same_beside_any_other() -> None:
    grey = np.full((200, 200), 30000, np.uint16)
    alone, beside = np.zeros((1, 2)), np.zeros((1, 2))
    alone[0, 0], beside[0] = 0.4, (0.4, 1.0)

    affine = (200.0, 0.0, 0.0, 0.0, 200.0, 0.0)
    drawn = [draw_overlay(grey, heat, affine, size_px=(200, 200)) for heat in (alone, beside)]

    assert (drawn[0][:, 2:40] == drawn[1][:, 2:40]).all()
    assert (drawn[0][:, 160:200] != drawn[1][:, 160:200]).any()
