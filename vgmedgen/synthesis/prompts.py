"""Prompts, and the images that they ask for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vgmedgen.data.tables import decoded, read_rows
from vgmedgen.errors import ConfigError, DataError
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.synthesis.asked import Ask, is_control

MOST_IMAGES = 100_000  # of one job
LONGEST = 3000  # characters of a caption; a file's metadata has to hold several
LONGEST_LABEL = 200  # characters
MOST_SEED = 2**63 - 1
OPTIONAL = ("label", "anatomy", "style", "seed")  # columns of a csv


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A prompt and what was said beside it."""

    prompt: str
    label: str = ""
    anatomy: str = ""
    style: str = ""
    seed: int | None = None  # None: counted on from the job's


@dataclass(frozen=True, kw_only=True)
class Control:
    """What holds for every prompt that does not say otherwise."""

    count: int = 1  # images per prompt
    seed: int = 0  # of the first image
    anatomy: str = ""
    style: str = ""
    towards: str = ""
    share: float = 0.0  # of the way towards it
    strip: int = 0  # images on that way, both ends among them; 0: one, at `share`


def read_prompts(path: Path) -> list[Wish]:
    """Prompts of a csv with a column `prompt`, or of a text file with one per line.

    Raises:
        ConfigError: if there is no such column, no prompt, or an empty one (with its
            number).
    """
    try:
        if not path.is_file():
            raise ConfigError(f"there is no prompt file {path}")
        if path.suffix.lower() == ".csv":
            wishes = _rows(path)
        else:
            wishes = [Wish(prompt=tidy(line)) for line in decoded(path).splitlines()]
    except DataError as error:  # here it is what was asked for, no data of a site
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"{str(path)[:80]} cannot be read: {error.strerror}"
        ) from None
    for number, wish in enumerate(wishes, 1):
        if not wish.prompt:
            raise ConfigError(f"{path}: prompt {number} is empty; fill or remove it")
    if not wishes:
        raise ConfigError(f"{path} holds no prompt")
    return wishes


def _rows(path: Path) -> list[Wish]:
    return [
        Wish(
            prompt=tidy(row["prompt"]),
            label=tidy(row.get("label", "")),
            anatomy=tidy(row.get("anatomy", "")),
            style=tidy(row.get("style", "")),
            seed=_seed(path, number, row.get("seed", "")),
        )
        for number, (_, row) in enumerate(read_rows(path, ("prompt",), OPTIONAL), 1)
    ]


def _seed(path: Path, number: int, told: str) -> int | None:
    if not told:
        return None
    if not told.isdecimal() or len(told) > len(str(MOST_SEED)):
        raise ConfigError(
            f"{path}: the seed of prompt {number} is '{told[:30]}'; it must be a whole "
            "number in [0, 2^63 - 1]"
        )
    return int(told)


def tidy(text: str) -> str:
    """The text without line breaks and runs of blanks."""
    return " ".join(text.split())


def asks_of(wishes: Sequence[Wish], control: Control) -> list[Ask]:
    """The images that prompts ask for, numbered in their order.

    Image k has the seed `control.seed` + k; where a prompt brings its own seed, its
    images count on from there. The images of a strip share one seed, so that only the
    share tells them apart.

    Raises:
        ConfigError: if a number is out of range or the words do not go together.
    """
    _check_control(control)
    images = len(wishes) * control.count * max(1, control.strip)
    if images > MOST_IMAGES:
        raise ConfigError(
            f"{images} images are more than one job draws ({MOST_IMAGES}); ask in parts"
        )
    asks: list[Ask] = []
    for wish in wishes:
        for copy in range(control.count):
            first = len(asks)
            seed = control.seed + first if wish.seed is None else wish.seed + copy
            one = Ask(
                number=first,
                prompt=wish.prompt,
                seed=seed,
                anatomy=wish.anatomy or tidy(control.anatomy),
                style=wish.style or tidy(control.style),
                towards=tidy(control.towards),
                share=control.share,
                label=wish.label,
            )
            asks += _strip(one, control.strip) if control.strip else [one]
    check(asks)
    return asks


def _strip(one: Ask, count: int) -> list[Ask]:
    return [
        replace(one, number=one.number + step, share=step / (count - 1))
        for step in range(count)
    ]


def _check_control(control: Control) -> None:
    if control.count < 1:
        raise ConfigError(f"--count must be 1 or more, got {control.count}")
    if not 0 <= control.share <= 1:
        raise ConfigError(f"--share must lie in [0, 1], got {control.share:g}")
    if control.strip and control.strip < 2:  # noqa: PLR2004  # both ends
        raise ConfigError(f"--strip must be 2 or more, got {control.strip}")
    if (control.strip or control.share) and not control.towards.strip():
        raise ConfigError("--share and --strip need --towards TEXT to move towards")


def check(asks: Sequence[Ask]) -> None:
    """Refuse asks that no image can be drawn from.

    Raises:
        ConfigError: naming the first such prompt by its number from 1.
    """
    if not asks:
        raise ConfigError("nothing is asked for; give a prompt, --prompts or --plan")
    if len(asks) > MOST_IMAGES:
        raise ConfigError(
            f"{len(asks)} images are more than one job draws ({MOST_IMAGES}); ask in "
            "parts"
        )
    if len({ask.number for ask in asks}) < len(asks):
        raise ConfigError("two images have one number; number them anew")
    for ask in asks:
        where = f"prompt {ask.number + 1}"
        if not ask.prompt.strip():
            raise ConfigError(f"{where} is empty; fill or remove it")
        texts = (ask.prompt, ask.anatomy, ask.style, ask.towards, ask.label)
        for text, most in zip(texts, (*[LONGEST] * 4, LONGEST_LABEL), strict=True):
            if len(text) > most:
                raise ConfigError(
                    f"{where} has {len(text)} characters; the limit is {most}: "
                    "shorten it"
                )
            if any(map(is_control, text)):
                raise ConfigError(
                    f"{where} holds control characters, or such that turn the direction "
                    "of the text; remove them"
                )
        if not 0 <= ask.seed <= MOST_SEED:
            raise ConfigError(
                f"the seed of {where} is {ask.seed}; it must lie in [0, 2^63 - 1]"
            )


def too_long(asks: Sequence[Ask], pipeline: Path, *, strict: bool = False) -> list[str]:
    """One line per caption of which the encoder does not see the end.

    Args:
        asks: whose captions are counted, each once.
        pipeline: folder that holds text encoder and tokenizer.
        strict: refuse the first such caption instead.

    Raises:
        ConfigError: if `strict`, naming the prompt.
    """
    first: dict[str, int] = {}
    for ask in asks:
        for text in (ask.prompt, ask.anatomy, ask.style, ask.towards):
            if text:
                first.setdefault(text, ask.number + 1)
    encoder = TextEncoder.from_folder(pipeline / "text_encoder", pipeline / "tokenizer")
    lines = [
        f"a caption of prompt {number} is too long by {dropped} tokens, which the encoder "
        f"does not read: it takes {encoder.max_tokens}"
        for (_, number), dropped in zip(
            first.items(), encoder.dropped(list(first)), strict=True
        )
        if dropped
    ]
    if strict and lines:
        raise ConfigError(f"{lines[0]}; shorten it, or draw without --strict")
    return lines
