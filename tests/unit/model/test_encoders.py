"""Encoders: shapes as stated, on a CPU build of torch too."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from model.encoders.compact import CompactEncoder, CompactSpec
from tests.small_bundle import ENCODER


@pytest.mark.parametrize(("stage", "cells"), [(1, 12), (2, 6), (3, 3)])
def test_the_feature_map_comes_from_the_stage_that_was_asked_for(stage: int, cells: int) -> None:
    encoder = CompactEncoder(ENCODER.model_copy(update={"spatial_stage": stage})).eval()

    with torch.inference_mode():
        features = encoder(torch.zeros(2, 1, 96, 96))

    assert features.embedding.shape == (2, encoder.embedding_width)
    assert features.spatial.shape == (2, encoder.spatial_width, cells, cells)
    assert 96 // encoder.spatial_stride_px == cells


def test_a_misspelt_specification_is_refused() -> None:
    with pytest.raises(ValidationError, match="width"):
        CompactSpec.model_validate({"width": (8, 16, 24, 32)})


def test_encoders_import_first_beside_any_torchvision() -> None:
    code = "import model.encoders, timm, torchvision"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
