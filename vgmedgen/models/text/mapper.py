"""The text mapper: a caption's embedding to the visual prior's two vectors.

B batch, E embedding width, A anatomy width, S style width.

Source: VG-MedGen, arXiv 2603.10519; the length term is ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from vgmedgen.config.run import ModelConfig

LENGTH_WEIGHT = 0.3  # of the squared error that holds the vectors' length
SCALE_FLOOR = 0.1  # of the typical deviation; features that vary less are not blown up


class TextMapper(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Two mapping networks that leave a site, and a decoder that does not.

    Args:
        text_width: E.
        anatomy: A.
        style: S.
        hidden: width of the hidden layers.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        text_width: int = 128,
        anatomy: int = 64,
        style: int = 64,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        # a mean over many tokens is nearly the same for all captions; what tells them
        # apart shows once each feature is standardised. Fitted on public captions.
        self.register_buffer("centre", torch.zeros(text_width))
        self.register_buffer("scale", torch.ones(text_width))
        self.anatomy_net = _network(text_width, hidden, anatomy)
        self.style_net = _network(text_width, hidden, style)
        self.decoder = _network(anatomy + style, hidden, text_width)

    @classmethod
    def of(cls, model_config: ModelConfig, text_width: int, seed: int) -> "TextMapper":
        """A fresh mapper of the configured sizes; the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            mapper: TextMapper = cls(
                text_width=text_width,
                anatomy=model_config.anatomy,
                style=model_config.style,
                hidden=model_config.mapper_hidden,
            )
        return mapper

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "TextMapper":  # noqa: ANN401
        """Read `config.json` and safetensors from `folder`; pickled weights are refused."""
        options |= {"use_safetensors": True, "local_files_only": True}
        mapper: TextMapper = super().from_pretrained(folder, **options)
        return mapper

    def fit_scale(self, embeddings: Tensor) -> None:
        """Fit `centre` and `scale` to public captions' embeddings (N, E), N at least 2.

        Raises:
            ValueError: if the embeddings do not vary at all.
        """
        deviation = embeddings.double().std(0, unbiased=False)
        typical = deviation.square().mean().sqrt()
        if not typical > 0:
            raise ValueError(
                f"the {len(embeddings)} caption embeddings are all equal: no scale in them"
            )
        self.centre.copy_(embeddings.double().mean(0))
        self.scale.copy_(deviation.clamp_min(SCALE_FLOOR * typical))

    def standardise(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, E) in the space that the networks work in."""
        standard: Tensor = (embedding - self.centre) / self.scale
        return standard

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Anatomy (B, A) and style (B, S) that captions of embedding (B, E) ask for."""
        standard = self.standardise(embedding)
        return self.anatomy_net(standard), self.style_net(standard)

    def reconstruct(self, anatomy: Tensor, style: Tensor) -> Tensor:
        """The standardised embedding (B, E) that both vectors still tell of."""
        told: Tensor = self.decoder(torch.cat((anatomy, style), 1))
        return told

    def shared_state(self) -> dict[str, Tensor]:
        """All that leaves a site: the two mapping networks' parameters, by name."""
        return {
            name: weight.detach()
            for name, weight in sorted(self.named_parameters())
            if not name.startswith("decoder.")
        }

    def load_shared(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `shared_state` gave, there or at another site.

        Raises:
            ValueError: if a name is missing or unknown, or a shape differs.
        """
        own = self.shared_state()
        for name in sorted(own.keys() | state.keys()):
            if name not in own or name not in state:
                where = "not of this mapper" if name in state else "missing"
                raise ValueError(f"text mapper: {name} is {where}")
            if own[name].shape != state[name].shape:
                raise ValueError(
                    f"text mapper: {name} has shape {tuple(state[name].shape)}, "
                    f"not {tuple(own[name].shape)}"
                )
        for name, weight in own.items():
            weight.copy_(state[name])


def align_loss(
    mapper: TextMapper,
    embedding: Tensor,
    anatomy: Tensor,
    style: Tensor,
    decoder_weight: float,
) -> Tensor:
    """How far the mapper's vectors are from what the prior sees: (B,).

    Cosine distance of both vectors, plus `decoder_weight` times the squared error with
    which the decoder tells the standardised embedding from them. The cosine leaves the
    vectors' length free, yet the HFFM takes the vectors themselves and the decoder would
    use the length as it likes; a small squared error on both holds it.

    Args:
        mapper: to be trained.
        embedding: (B, E).
        anatomy: (B, A), seen by the visual prior.
        style: (B, S), the same.
        decoder_weight: 0.5 in the paper's code.
    """
    said_anatomy, said_style = mapper(embedding)
    loss = torch.zeros(len(embedding), device=embedding.device)
    for said, seen in ((said_anatomy, anatomy), (said_style, style)):
        loss = loss + 1 - functional.cosine_similarity(said, seen)
        loss = loss + LENGTH_WEIGHT * (said - seen).square().mean(1)
    told = mapper.reconstruct(said_anatomy, said_style)
    missed = (told - mapper.standardise(embedding)).square().mean(1)
    return loss + decoder_weight * missed


def _network(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width_out)
    )
