"""Build the encoder that a bundle names."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from model.encoders.compact import CompactEncoder, CompactSpec
from model.encoders.compact_regnet import CompactRegNet, CompactRegNetSpec
from model.encoders.encoder import Encoder
from model.encoders.medimageinsight import MedImageInsight, MedImageInsightSpec
from model.encoders.vit import DinoV2Spec, UniSpec, VitEncoder

AnySpec = CompactSpec | CompactRegNetSpec | MedImageInsightSpec | DinoV2Spec | UniSpec
EncoderSpec = Annotated[AnySpec, Field(discriminator="kind")]
_SPEC: TypeAdapter[AnySpec] = TypeAdapter(EncoderSpec)


def build_encoder(encoder: dict[str, object], *, drop_path: float = 0.0) -> Encoder:
    """Build an untrained encoder from the ``encoder`` entry of a bundle.

    Raises:
        pydantic.ValidationError: No encoder of ours has these fields.
    """
    match _SPEC.validate_python(encoder):
        case CompactSpec() as spec:
            return CompactEncoder(spec, drop_path)
        case CompactRegNetSpec() as spec:
            return CompactRegNet(spec, drop_path)
        case MedImageInsightSpec() as spec:
            return MedImageInsight(spec, drop_path)
        case DinoV2Spec() | UniSpec() as spec:
            return VitEncoder(spec, drop_path)
