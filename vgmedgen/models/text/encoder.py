"""The frozen text encoder: captions to embeddings.

B captions, L tokens, E embedding width.
"""

import inspect
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

from vgmedgen.errors import BaseError, DataError

log = logging.getLogger(__name__)

HEAD_WIDTH = 32
PLACE_SCALE = 0.3  # of position embeddings, against 1 of words
MIX_SCALE = 0.5  # of what attention and MLP add, against 1 of the word itself


class TextEncoder(nn.Module):
    """A model of the BERT family and its tokenizer, frozen.

    Args:
        model: gives `last_hidden_state` for `input_ids` and `attention_mask`.
        tokenizer: of that model.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(requires_grad=False).eval()
        self.tokenizer = tokenizer
        # a tokenizer that was saved without a limit reports an absurdly large one
        places = model.config.max_position_embeddings
        self.max_tokens = min(tokenizer.model_max_length, places)

    @classmethod
    def from_folder(cls, text_encoder: Path, tokenizer: Path) -> "TextEncoder":
        """Read both parts from disk, safetensors only, without the network.

        Raises:
            BaseError: if a folder holds no such part.
        """
        for part in (text_encoder, tokenizer):
            if not part.is_dir():
                raise BaseError(f"{part} is no folder; install the base bundle again")
        if not any(text_encoder.glob("model*.safetensors")):
            raise BaseError(
                f"{text_encoder} holds no model.safetensors; pickled weights are not "
                "read, convert them once with `vgmedgen base convert`"
            )
        return cls(
            read_model(text_encoder),
            AutoTokenizer.from_pretrained(tokenizer, local_files_only=True),
        )

    @property
    def width(self) -> int:
        """E."""
        return int(self.model.config.hidden_size)

    def train(self, mode: bool = True) -> "TextEncoder":
        """Stay in evaluation mode: the encoder is frozen, its dropout with it."""
        return super().train(mode=False)

    def dropped(self, captions: Sequence[str]) -> list[int]:
        """How many tokens of each caption do not fit and go unread."""
        if not captions:
            return []
        # verbose would have it warn of the very length that is being asked for
        whole = self.tokenizer(list(captions), truncation=False, verbose=False)
        return [max(0, len(ids) - self.max_tokens) for ids in whole["input_ids"]]

    def embed(self, captions: Sequence[str]) -> Tensor:
        """Mean over the tokens of each caption: (B, E) on the CPU.

        Each is embedded by itself: padding to the length of a longer caption rounds it
        another way, and then it would be no function of its own caption to the last bit,
        which a claim of privacy rests on. Captions that do not fit are told of in the log.

        Raises:
            DataError: if a caption is empty.
        """
        for place, caption in enumerate(captions):
            if not caption.strip():
                raise DataError(
                    f"caption {place + 1} of {len(captions)} is empty; an image needs at "
                    "least one word"
                )
        lost = [count for count in self.dropped(captions) if count]
        if lost:
            log.warning(
                "%d of %d captions are longer than %d tokens; %d tokens go unread",
                len(lost),
                len(captions),
                self.max_tokens,
                sum(lost),
            )
        if not captions:
            return torch.empty(0, self.width)
        return torch.cat([self._pooled(caption) for caption in captions])

    def embed_alone(self, caption: str) -> Tensor:
        """Embedding (1, E) of one caption, as `embed` makes it.

        Tokens that do not fit go unread without a word; see `dropped`.

        Raises:
            DataError: if the caption is empty.
        """
        if not caption.strip():
            raise DataError("a caption is empty; an image needs at least one word")
        return self._pooled(caption)

    @torch.no_grad()
    def _pooled(self, caption: str) -> Tensor:
        device = next(self.model.parameters()).device
        tokens = self.tokenizer(
            [caption],
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(device)
        # token types are left out: not every family has them, and here all are the same
        seen = self.model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).last_hidden_state  # (B, L, E)
        keep = tokens["attention_mask"][:, :, None].to(seen)
        pooled: Tensor = (seen * keep).sum(1) / keep.sum(1)
        return pooled.float().cpu()


def read_model(folder: Path, variant: str | None = None) -> PreTrainedModel:
    """Read a text encoder from safetensors on this disk, in float32.

    A pooler is left out: nothing here reads it, and where a checkpoint has none,
    transformers would start one at random, from a generator that nobody seeded.

    Args:
        folder: as transformers writes it.
        variant: of the weights, such as `fp16`; None for the full ones.

    Raises:
        BaseError: if a weight is missing, or the folder holds something else.
    """
    usual = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # heads and poolers that go unread are no news
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = MODEL_MAPPING[type(config)]
        _check_family(config, kind)
        takes_pooler = "add_pooling_layer" in inspect.signature(kind).parameters
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=variant,
            dtype=torch.float32,
            output_loading_info=True,
            **({"add_pooling_layer": False} if takes_pooler else {}),
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = (
            str(error).strip().splitlines()[0] if str(error).strip() else "no reason"
        )
        raise BaseError(
            f"{folder} holds no text encoder that can be read ({reason}); use a model of "
            "the BERT family as its hub has it"
        ) from None
    finally:
        hf_logging.set_verbosity(usual)
    if absent := sorted({*report["missing_keys"], *report["mismatched_keys"]}):
        raise BaseError(
            f"{folder}: the weights lack {absent[0]} ({len(absent)} in all) that the "
            "config asks for; fetch config and weights from one model"
        )
    return cast("PreTrainedModel", model)


def _check_family(config: PretrainedConfig, kind: type[PreTrainedModel]) -> None:
    if config.is_encoder_decoder or not hasattr(config, "max_position_embeddings"):
        raise ValueError(f"it is a {kind.__name__}, with a decoder or no places")


def build_tiny(
    width: int, layers: int, tokenizer: PreTrainedTokenizerBase, seed: int
) -> BertModel:
    """A small random BERT that keeps words apart; nothing more is asked of it.

    BERT's own start (deviation 0.02 everywhere) gives place, type and word the same
    weight and lets a mean over many tokens wash out which words were there. Here words
    have unit deviation and the layers add less than what comes in.

    Args:
        width: E.
        layers: of attention.
        tokenizer: gives the vocabulary and the number of places.
        seed: of all weights; the global generator is left alone.
    """
    heads = max(1, width // HEAD_WIDTH)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads if width % heads == 0 else 1,
        intermediate_size=2 * width,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        model = BertModel(config)
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if name.endswith("bias") or "token_type" in name:
            nn.init.zeros_(weight)
        elif "LayerNorm" in name:
            nn.init.ones_(weight)
        elif name.endswith("embeddings.weight"):
            scale = PLACE_SCALE if "position" in name else 1.0
            nn.init.normal_(weight, std=scale, generator=draw)
        else:
            mix = MIX_SCALE if name.endswith("output.dense.weight") else 1.0
            scale = mix / math.sqrt(weight.shape[1])
            nn.init.normal_(weight, std=scale, generator=draw)
    return model.eval()
