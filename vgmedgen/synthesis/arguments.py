"""What a call of the pipeline is told, checked and put into one ask per image.

The errors are ValueErrors and TypeErrors, as whoever calls a diffusers pipeline expects
them.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.synthesis.asked import Ask

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

    def check(self, *, has_prior: bool, most: int) -> None:
        """Refuse what cannot be.

        Args:
            has_prior: whether the pipeline can draw masks.
            most: steps that the solver can take; with one more its last divides by 0.

        Raises:
            ValueError: naming the argument.
        """
        if not 1 <= self.steps <= most:
            raise ValueError(
                f"num_inference_steps is {self.steps}; it must lie in [1, {most}]"
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


def check_types(**given: object) -> None:
    """Refuse arguments of the wrong type.

    Raises:
        TypeError: naming the first.
    """
    for name in ("num_inference_steps", "num_images_per_prompt"):
        if not _is_whole(given[name]):
            raise TypeError(f"{name} is {given[name]!r:.60}; it must be a whole number")
    guidance = given["guidance_scale"]
    if not isinstance(guidance, Real) or isinstance(guidance, bool):
        raise TypeError(f"guidance_scale is {guidance!r:.60}; it must be a number")
    latents, callback = given["latents"], given["callback_on_step_end"]
    if latents is not None and not isinstance(latents, Tensor):
        raise TypeError(f"latents is a {type(latents).__name__}; it must be a tensor")
    if callback is not None and not callable(callback):
        raise TypeError(
            f"callback_on_step_end is {callback!r:.60}; it must be callable"
        )
    if isinstance(latents, Tensor):
        check_finite("latents", latents)


def check_finite(what: str, values: Tensor) -> None:
    """Refuse what no image comes of.

    Raises:
        ValueError: if a value is infinite or no number.
    """
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"{what} holds values that are not finite; draw with fewer steps or less "
            "guidance, or in float32"
        )


def replaced(given: object, current: Tensor) -> Tensor:
    """The latents that a callback leaves, which may give none.

    Raises:
        TypeError: if it gave something else.
        ValueError: if they are not finite, or of another shape.
    """
    if given is None:
        return current
    if not isinstance(given, Mapping):
        raise TypeError(
            f"callback_on_step_end gave a {type(given).__name__}; it must give a mapping "
            "such as {'latents': ...}, or None"
        )
    latents = given.get("latents", current)
    if not isinstance(latents, Tensor):
        raise TypeError(
            f"callback_on_step_end gave latents that are a {type(latents).__name__}; "
            "they must be a tensor"
        )
    check_finite("what callback_on_step_end gave", latents)
    return latents


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
        parts = json.loads(index.read_text(encoding="utf-8"))
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
    prompts = [prompt] if isinstance(prompt, str) else _listed("prompt", prompt or ())
    if not prompts:
        raise ValueError("no prompt was given")
    count = len(prompts)
    anatomies = _each("anatomy_prompt", anatomy, count)
    styles = _each("style_prompt", style, count)
    ends = _each("towards_prompt", towards, count)
    shares = (
        [share] * count if isinstance(share, int | float) else _listed("share", share)
    )
    _one_each("share", shares, count, "prompts")
    for number, words in enumerate(prompts, 1):
        if words is None or (isinstance(words, str) and not words.strip()):
            raise ValueError(f"prompt {number} of {count} is empty")
        _check_text(f"prompt {number} of {count}", words)
    for far, end in zip(shares, ends, strict=True):
        if not isinstance(far, int | float) or isinstance(far, bool):
            raise TypeError(f"share is {far!r:.60}; it must be a number from 0 to 1")
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
                share=float(shares[row]),
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
    given: list[str | None] = (
        [words] * count
        if words is None or isinstance(words, str)
        else _listed(name, words)
    )
    _one_each(name, given, count, "prompts")
    for one in given:
        if one is not None:
            _check_text(name, one)
        if one and not one.strip():
            raise ValueError(f"{name} holds nothing but spaces")
    return [one or "" for one in given]


def _listed(name: str, given: object) -> list[Any]:
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise TypeError(f"{name} is {given!r:.60}; it must be one value or a list")
    return list(given)


def _check_text(name: str, words: object) -> None:
    if not isinstance(words, str):
        raise TypeError(f"{name} is {words!r:.60}; it must be text")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character; write it anew") from None


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


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
        seeds = _listed("seeds", seeds)
        _one_each("seeds", seeds, count, "images")
        for seed in seeds:
            if not _is_whole(seed):
                raise TypeError(f"seed {seed!r:.60} is no whole number")
            if int(seed) not in TORCH_SEEDS:
                raise ValueError(f"seed {seed} is not within -2^63 and 2^64 - 1")
        return [int(seed) for seed in seeds]
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(generator, torch.Generator):
        return _drawn(generator, count)
    listed = _listed("generator", generator)
    for own in listed:
        if not isinstance(own, torch.Generator):
            raise TypeError(
                f"generator holds {own!r:.60}; it must be a torch generator"
            )
    _one_each("generators", listed, count, "images")
    return [seed for own in listed for seed in _drawn(own, 1)]


def _drawn(generator: torch.Generator, count: int) -> list[int]:
    seeds = torch.randint(
        SEED_RANGE, (count,), generator=generator, device=generator.device
    )
    return [int(seed) for seed in seeds]
