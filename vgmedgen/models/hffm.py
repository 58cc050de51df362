"""HFFM: anatomy and style vectors become the tokens that the DiT attends to."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

GELU_POWER = 0.425  # mean square of GELU(x) for x of unit variance


def null_condition(like: Tensor) -> Tensor:
    """The vector that says nothing.

    A dropped caption becomes it, in training and in guidance alike.

    Args:
        like: (B, A) or (B, S).

    Returns:
        Zeros of the same shape, type and device.
    """
    return torch.zeros_like(like)


class TypeEmbedding(nn.Module):
    """Adds a learned vector that marks which of the two channels a token comes from.

    It is a module of its own, so that whoever looks at gradients per sample finds no
    bare parameter in the module above it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mark = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n, D) with the mark added."""
        return tokens + self.mark


class HFFM(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """Hybrid feature fusion module.

    Each vector passes its own LayerNorm and MLP and becomes `tokens_per_channel`
    tokens. The LayerNorm removes the vector's length: its direction alone steers.

    Source: VG-MedGen, arXiv 2603.10519; the number of tokens per channel is ours.

    Args:
        anatomy_width: A.
        style_width: S.
        hidden_width: of the MLPs.
        tokens_per_channel: n.
        token_width: D, the caption width of the DiT.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        anatomy_width: int = 64,
        style_width: int = 64,
        hidden_width: int = 256,
        tokens_per_channel: int = 4,
        token_width: int = 128,
    ) -> None:
        super().__init__()
        out = tokens_per_channel * token_width
        self.token_width = token_width
        self.anatomy_norm = nn.LayerNorm(anatomy_width)
        self.anatomy = _mlp(anatomy_width, hidden_width, out)
        self.anatomy_type = TypeEmbedding(token_width)
        self.style_norm = nn.LayerNorm(style_width)
        self.style = _mlp(style_width, hidden_width, out)
        self.style_type = TypeEmbedding(token_width)

    def forward(self, anatomy: Tensor, style: Tensor) -> Tensor:
        """Conditioning tokens.

        Args:
            anatomy: (B, A).
            style: (B, S).

        Returns:
            (B, 2 n, D): the anatomy's tokens, then the style's.
        """
        where = self.anatomy(self.anatomy_norm(anatomy))
        how = self.style(self.style_norm(style))
        return torch.cat(
            [
                self.anatomy_type(where.unflatten(1, (-1, self.token_width))),
                self.style_type(how.unflatten(1, (-1, self.token_width))),
            ],
            dim=1,
        )


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, GELU, Linear, scaled so that tokens start with about unit variance."""
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, out)
    for layer, power in ((first, 1.0), (second, GELU_POWER)):
        nn.init.normal_(layer.weight, std=1 / math.sqrt(power * layer.in_features))
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.GELU(), second)
