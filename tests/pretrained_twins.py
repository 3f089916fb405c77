"""Small twins of the pretrained encoders: random weights through the same code."""

from model.encoders.medimageinsight import MedImageInsightSpec
from model.encoders.medimageinsight_text import TextSpec
from model.encoders.vit import DinoV2Spec, UniSpec
from tests.clip_vocabulary import SMALL_SIZE

TEXT_TWIN = TextSpec(vocabulary=SMALL_SIZE, width=32, layers=2, heads=2, embedding_width=32)
MEDIMAGEINSIGHT_TWIN = MedImageInsightSpec(
    widths=(8, 16, 32, 64),
    heads=(1, 2, 4, 8),
    depths=(1, 1, 2, 1),
    embedding_width=32,
    text=TEXT_TWIN,
)
DINOV2_TWIN = DinoV2Spec(width=32, depth=2, heads=2, trained_px=112)
UNI_TWIN = UniSpec(width=32, depth=2, heads=2, trained_px=112)
