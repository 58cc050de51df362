"""What a call of the pipeline is told, checked and put into one ask per image.

The errors are ValueErrors, as whoever calls a diffusers pipeline expects them.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from vgmedgen.synthesis.asked import Ask
from vgmedgen.text.encoder import TextEncoder

log = logging.getLogger(__name__)

Words = str | Sequence[str | None] | None  # one for all, one per prompt, or none
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
LIBRARIES = ("vgmedgen", "diffusers", "transformers")  # that parts may come from
INDEX = "model_index.json"
SEED_RANGE = 2**63 - 1
TORCH_SEEDS = range(-(2**63), 2**64)  # that a torch generator takes


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a call wants its images drawn and handed over."""

    steps: int
    guidance: float
    copies: int
    output_type: str
    masks: bool

    def check(self, *, has_prior: bool) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: naming the argument.
        """
        if self.steps < 1:
            raise ValueError(
                f"num_inference_steps is {self.steps}; it must be 1 or more"
            )
        if self.copies < 1:
            raise ValueError(
                f"num_images_per_prompt is {self.copies}; it must be 1 or more"
            )
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(
                f"guidance_scale is {self.guidance}; it must be a number from 0 up"
            )
        if self.output_type not in OUTPUT_TYPES:
            raise ValueError(
                f"output_type is {self.output_type!r}; it must be one of "
                f"{', '.join(OUTPUT_TYPES)}"
            )
        if self.masks and not has_prior:
            raise ValueError(
                "output_masks needs a visual prior, which this pipeline does not have"
            )
        if self.masks and self.output_type == "latent":
            raise ValueError("output_masks needs images; latents were asked for")


def refuse_code(folder: Path, options: Mapping[str, object]) -> None:
    """Refuse a folder, or options, that would have code of somebody else's run.

    diffusers imports the library that the index names for a part, and a file of that
    name where the part's folder holds one.

    Raises:
        OSError: if there is no such folder, or it has no index.
        ValueError: if another library is named, or an option asks for foreign code.
    """
    for name in ("custom_pipeline", "trust_remote_code"):
        if options.get(name):
            raise ValueError(f"{name} would run foreign code; leave it out")
    index = folder / INDEX
    if not index.is_file():
        raise OSError(f"{folder} is no pipeline folder: it has no {INDEX}")
    try:
        parts = json.loads(index.read_text())
        named = {n: p[0] for n, p in parts.items() if isinstance(p, list)}
    except (ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{index} is damaged; install the release again") from error
    for name, library in named.items():
        if library not in (*LIBRARIES, None):
            raise ValueError(
                f"{index} takes {name} from {library!r}; parts come from "
                f"{', '.join(LIBRARIES)} alone"
            )
    code = sorted(path.name for path in folder.rglob("*.py"))
    if code:
        raise ValueError(
            f"{folder} holds code ({code[0]}); a pipeline folder holds none"
        )


def tensor_inputs(
    callback: object, asked: Sequence[str], known: Sequence[str]
) -> Sequence[str]:
    """Names of the tensors that a callback is handed.

    Raises:
        ValueError: if one of them is unknown.
    """
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        asked = callback.tensor_inputs
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ValueError(
            f"callback_on_step_end_tensor_inputs names {unknown[0]!r}; there is "
            f"{', '.join(known)}"
        )
    return asked


def asks_of(
    prompt: str | Sequence[str] | None,
    *,
    anatomy: Words,
    style: Words,
    towards: Words,
    share: float | Sequence[float],
    copies: int,
    seeds: Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> list[Ask]:
    """One ask per image: the copies of the first prompt, then those of the next.

    Raises:
        ValueError: if a prompt is missing or empty, or a count is wrong.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not prompts:
        raise ValueError("no prompt was given")
    count = len(prompts)
    anatomies = _each("anatomy_prompt", anatomy, count)
    styles = _each("style_prompt", style, count)
    ends = _each("towards_prompt", towards, count)
    shares = [share] * count if isinstance(share, int | float) else list(share)
    _one_each("share", shares, count, "prompts")
    for number, words in enumerate(prompts, 1):
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"prompt {number} of {count} is empty")
    for far, end in zip(shares, ends, strict=True):
        if not 0 <= far <= 1:
            raise ValueError(f"share is {far}; it must be from 0 to 1")
        if far and not end:
            raise ValueError(f"share is {far}, but there is no towards_prompt")
    asks = []
    for number, seed in enumerate(_seeds(seeds, generator, count * copies)):
        row = number // copies
        asks.append(
            Ask(
                number=number,
                prompt=prompts[row],
                seed=seed,
                anatomy=anatomies[row],
                style=styles[row],
                towards=ends[row],
                share=shares[row],
            )
        )
    return asks


def tell_dropped(encoder: TextEncoder, asks: Sequence[Ask], *, strict: bool) -> None:
    """Warn of, or refuse, captions that the text encoder cannot take whole.

    Raises:
        ValueError: if there are any and the call is strict.
    """
    captions = dict.fromkeys(
        words
        for ask in asks
        for words in (ask.prompt, ask.anatomy, ask.style, ask.towards)
        if words
    )
    for words, lost in zip(captions, encoder.dropped(list(captions)), strict=True):
        if not lost:
            continue
        told = (
            f"{lost} tokens do not fit into the text encoder's {encoder.max_tokens} and "
            f"are dropped from the end of {words[:60]!r}…"
        )
        if strict:
            raise ValueError(f"{told}; shorten it, or leave out strict")
        log.warning("%s", told)


def _each(name: str, words: Words, count: int) -> list[str]:
    given = [words] * count if words is None or isinstance(words, str) else list(words)
    _one_each(name, given, count, "prompts")
    for one in given:
        if one and not one.strip():
            raise ValueError(f"{name} holds nothing but spaces")
    return [one or "" for one in given]


def _one_each(name: str, given: Sequence[object], count: int, what: str) -> None:
    if len(given) != count:
        raise ValueError(f"{len(given)} {name} for {count} {what}")


def _seeds(
    seeds: Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    count: int,
) -> list[int]:
    if seeds is not None:
        if generator is not None:
            raise ValueError("seeds and generator were given; one of them decides")
        _one_each("seeds", seeds, count, "images")
        for seed in seeds:
            if int(seed) not in TORCH_SEEDS:
                raise ValueError(f"seed {seed} is not within -2^63 and 2^64 - 1")
        return [int(seed) for seed in seeds]
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(generator, torch.Generator):
        return _drawn(generator, count)
    _one_each("generators", generator, count, "images")
    return [seed for own in generator for seed in _drawn(own, 1)]


def _drawn(generator: torch.Generator, count: int) -> list[int]:
    seeds = torch.randint(
        SEED_RANGE, (count,), generator=generator, device=generator.device
    )
    return [int(seed) for seed in seeds]
