"""MedImageInsight's text encoder: a prompt becomes a vector in the space of the images."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

CONTEXT = 77


class TextSpec(BaseModel):
    """The shape of the text encoder; the defaults are the official network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: int = Field(default=49408, ge=3)
    width: int = Field(default=1024, ge=1)
    layers: int = Field(default=16, ge=1)
    heads: int = Field(default=16, ge=1)
    embedding_width: int = Field(default=1024, ge=1)


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the approximation that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualBlock(nn.Module):
    """Attention over all tokens, forwards and backwards, then two linear layers; norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, width * 4),
                gelu=QuickGelu(),
                c_proj=nn.Linear(width * 4, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class TextTransformer(nn.Module):
    """Tokens in, one vector per token out."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(spec.vocabulary, spec.width)
        self.positional_embedding = nn.Parameter(torch.zeros(CONTEXT, spec.width))
        blocks = (ResidualBlock(spec.width, spec.heads) for _ in range(spec.layers))
        self.resblocks = nn.ModuleList(blocks)
        self.ln_final = nn.LayerNorm(spec.width, eps=1e-12)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        padding = attention_mask == 0
        x = self.token_embedding(input_ids) + self.positional_embedding
        for block in self.resblocks:
            x = block(x, padding)
        return self.ln_final(x)


class MedImageInsightText(nn.Module):
    """The text encoder, its projection, and the scale of similarities; official names throughout.

    Shapes:
        input_ids: int64 (B, 77)
        attention_mask: int64 (B, 77), 0 where a token is padding
        returns: float (B, 1024), of length 1

    Source: Codella et al. 2024, arXiv:2410.06542, with CLIP's transformer (Radford et al. 2021,
    arXiv:2103.00020), but attending in both directions.
    """

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.lang_encoder = TextTransformer(spec)
        self.lang_projection = nn.Parameter(torch.zeros(spec.width, spec.embedding_width))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    @property
    def scale(self) -> float:
        """What a cosine is multiplied by before the softmax: exp of the stored number."""
        return float(self.logit_scale.detach().double().exp())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode prompts; see the class for shapes."""
        tokens = self.lang_encoder(input_ids, attention_mask)  # (B, 77, width)
        # The end token has the greatest number, and padding repeats it: argmax finds the first.
        last = input_ids.argmax(dim=-1)
        pooled = tokens[torch.arange(len(tokens), device=tokens.device), last]  # (B, width)
        return F.normalize(pooled @ self.lang_projection, dim=-1)
