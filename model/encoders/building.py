"""Build the encoder that a bundle names."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from model.encoders.compact import CompactEncoder, CompactSpec
from model.encoders.compact_regnet import CompactRegNet, CompactRegNetSpec
from model.encoders.encoder import Encoder

EncoderSpec = Annotated[CompactSpec | CompactRegNetSpec, Field(discriminator="kind")]
_SPEC: TypeAdapter[CompactSpec | CompactRegNetSpec] = TypeAdapter(EncoderSpec)


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
