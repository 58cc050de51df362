"""What the studio does, without a page: draw, compare, look closer, export.

Pictures that are held back may be near copies of a patient's image. Whoever opens the
studio works at the site and may see them; only cleared ones can be exported.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vgmedgen.config.ranges import digest_of, within
from vgmedgen.config.run import DRAWING_STEPS, GUIDANCE
from vgmedgen.errors import ConfigError, DataError, PolicyError
from vgmedgen.gate.release import Neighbour, ReleaseGate, Verdict
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.release.store import Installed, Store
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.drawing import LANES, Drawer
from vgmedgen.synthesis.greys import Greys
from vgmedgen.synthesis.job import (
    Options,
    Result,
    synthesize,
)
from vgmedgen.synthesis.layouts import LAYOUTS, MODALITIES, needs_masks
from vgmedgen.synthesis.pipeline import VGMedGenPipeline

MOST_IMAGES = 16
MOST_STEPS = 100
MOST_GUIDANCE = 10.0
MOST_SEED = 2**31 - 1
MOST_TEXT = 2000  # characters of a caption
NEIGHBOURS = 3
EXPORTS = "exports"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one press of the button asks for."""

    prompt: str
    anatomy: str = ""  # caption whose anatomy is taken instead
    style: str = ""  # caption whose style is taken instead
    label: str = ""  # class that was picked
    count: int = 4
    seed: int = 0  # of the first image; the next has the next
    steps: int = DRAWING_STEPS
    guidance: float = GUIDANCE

    def asks(self) -> list[Ask]:
        """One per image."""
        return [
            Ask(
                number=number,
                prompt=self.prompt,
                seed=self.seed + number,
                anatomy=self.anatomy,
                style=self.style,
                label=self.label,
            )
            for number in range(self.count)
        ]


@dataclass(frozen=True)
class Picture:
    """One image on the page, and what the gate says of it."""

    drawn: Drawn
    verdict: Verdict | None  # None where the gate cannot run


@dataclass(frozen=True)
class Series:
    """The images of one wish, as far as they are drawn."""

    wish: Wish
    pictures: tuple[Picture, ...] = field(default=())

    @property
    def cleared(self) -> int:
        """How many the gate let pass."""
        return sum(p.verdict is not None and p.verdict.cleared for p in self.pictures)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    folder: Path
    images: int
    cleared: bool  # False: nothing compared them, and every file says so


class Studio:
    """A site, one installed release, and the gate between them.

    Args:
        site: whose images the gate compares with.
        model: the release that draws.
        device: cpu or cuda.
        progress: called with the number of images that the gate just measured.

    Raises:
        ConfigError: if there is no such device.
        PolicyError: if the site does not trust the release.
        ReleaseError: if the installed release is damaged.
        DataError: if the site's images cannot be read.
    """

    def __init__(
        self,
        site: Site,
        model: Installed,
        *,
        device: str = "cpu",
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        Options(device=device)  # refuses one that is not there
        self.site, self.device = site, device
        self.model = model = self._store.verify(model.name)
        self.pipeline = VGMedGenPipeline.from_pretrained(model.pipeline).to(device)
        self.datasets, self.greys = site.datasets, Greys.of(site)
        self.gate: ReleaseGate | None = None
        self.why_no_gate = ""
        try:
            self.gate = ReleaseGate.of(site, progress=progress)
        except ConfigError as error:
            self.why_no_gate = str(error)

    @property
    def modalities(self) -> list[str]:
        """Of the site's own data, the one with most images first."""
        count: dict[str, int] = {}
        for dataset in self.datasets:
            count[dataset.modality] = count.get(dataset.modality, 0) + len(
                dataset.records
            )
        return sorted(count, key=lambda modality: (-count[modality], modality))

    @property
    def draws_masks(self) -> bool:
        """Whether the release can draw a mask to each image."""
        return getattr(self.pipeline, "visual_prior", None) is not None

    @property
    def layouts(self) -> list[str]:
        """Layouts that images of the site's modalities have a place in."""
        mine = set(self.modalities)
        return [
            layout
            for layout in LAYOUTS
            if not needs_masks(layout)
            or (self.draws_masks and {MODALITIES[layout], ""} & mine)
        ]

    @property
    def ungated(self) -> bool:
        """Whether nothing compares, and the site lets such images out all the same."""
        return self.gate is None and self.site.policy.ungated

    @property
    def may_export(self) -> bool:
        """Whether anything that is drawn here could be exported."""
        return self.gate is not None or self.ungated

    def check(self, wish: Wish) -> Wish:
        """The wish with its texts tidied.

        Raises:
            DataError: if a text is empty or longer than the model reads.
            ConfigError: if a number is out of range.
        """
        within("the page", 1, MOST_IMAGES, images=wish.count)
        within("the page", 0, MOST_SEED, seed=wish.seed)
        within("the page", 1, MOST_STEPS, steps=wish.steps)
        within("the page", 1, MOST_GUIDANCE, guidance=wish.guidance)
        prompt, anatomy, style = (
            " ".join(text.split()) for text in (wish.prompt, wish.anatomy, wish.style)
        )
        if not prompt:
            raise DataError("the prompt is empty; pick a class or write a few words")
        for name, text in (("prompt", prompt), ("anatomy", anatomy), ("style", style)):
            self._check_length(name, text)
        return replace(wish, prompt=prompt, anatomy=anatomy, style=style)

    def draw(self, wish: Wish) -> Iterator[Series]:
        """Draw and judge; yields the series whenever a few more images are there.

        Raises:
            DataError: if a text is empty or longer than the model reads.
            ConfigError: if a number is out of range, or site.yaml is no valid one now.
            PolicyError: if the site does not trust the release any more.
            ReleaseError: if the release was removed.
        """
        self._check_model()
        wish = self.check(wish)
        drawer = Drawer(
            self.pipeline, steps=wish.steps, guidance=wish.guidance, grey=self.greys
        )
        done: tuple[Picture, ...] = ()
        held: list[Drawn] = []
        for drawn in drawer.draw(wish.asks()):
            held.append(drawn)
            if len(held) == LANES or len(done) + len(held) == wish.count:
                done += self._judged(held)
                held = []
                yield Series(wish, done)

    def nearest(self, picture: Picture) -> list[Neighbour]:
        """The site's own training images that are most like it; none without a gate."""
        if self.gate is None:
            return []
        found = self.gate.nearest(picture.drawn.pixels[None], NEIGHBOURS)
        return list(found[0])

    def export(
        self, series: Series, *, layout: str, masks: bool, dicom: bool
    ) -> Exported:
        """Write the cleared images of a series, drawn again from the same asks.

        Where the gate cannot run and the site's policy lets ungated images out, all of
        them are written, each marked as not cleared. A failed export leaves nothing.

        Raises:
            ConfigError: if there is nothing to export, or site.yaml is no valid one now.
            PolicyError: if nothing compared the images and the policy wants that, or the
                site does not trust the release any more.
            ReleaseError: if the release was removed.
            StateError: if the disk is full.
        """
        self._check_model()
        asks = self._exportable(series)
        wish = series.wish
        options = Options(
            steps=wish.steps,
            guidance=wish.guidance,
            layout=layout,
            masks=masks,
            dicom=dicom,
            gate=self.gate is not None,
            device=self.device,
        )
        short = digest_of({"asks": [str(ask) for ask in asks]})[:6]
        name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{short}"
        exports = self.site.folder / EXPORTS
        exports.mkdir(mode=0o700, parents=True, exist_ok=True)
        work, folder = exports / f".{name}.part", exports / name
        try:
            result = self._written(asks, work, options)
            work.rename(folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        count = len(result.kept)
        log.info("exported %d images to %s", count, folder)
        return Exported(folder=folder, images=count, cleared=self.gate is not None)

    def exported(self, name: str) -> Path | None:
        """The folder of an earlier export; None where there is none of that name."""
        folder = self.site.folder / EXPORTS / name
        return folder if re.fullmatch(r"[\w-]+", name) and folder.is_dir() else None

    @property
    def _store(self) -> Store:
        """The site's releases, by what its policy says at this moment."""
        return Store(self.site.folder / "releases", self.site.policy.coordinators)

    def _check_model(self) -> None:
        """Refuse a release that somebody removed or stopped trusting meanwhile.

        Every byte of it was checked when it was loaded, and none is read again here.
        """
        self._store.look(self.model.name)

    def _exportable(self, series: Series) -> list[Ask]:
        if not series.pictures:
            raise ConfigError("there is no image to export; generate some first")
        if self.gate is None:
            if not self.ungated:
                raise PolicyError(
                    f"nothing compared these images with {self.site.name}'s own, so "
                    "none may be exported; see the note at the top of the page"
                )
            return [picture.drawn.ask for picture in series.pictures]
        cleared = [
            picture.drawn.ask
            for picture in series.pictures
            if picture.verdict is not None and picture.verdict.cleared
        ]
        if not cleared:
            raise PolicyError(
                f"all {len(series.pictures)} images are held back, so there is none to "
                "export; try another seed or prompt"
            )
        return cleared

    def _written(self, asks: list[Ask], folder: Path, options: Options) -> Result:
        result = synthesize(self.site, self.model, asks, folder, options)
        if not result.kept:
            raise PolicyError(
                "the gate held every image back when it compared them again, so nothing "
                "was exported; generate anew"
            )
        return result

    def _judged(self, drawn: list[Drawn]) -> tuple[Picture, ...]:
        if self.gate is None:
            return tuple(Picture(one, None) for one in drawn)
        pixels: NDArray[np.uint8] = np.stack([one.pixels for one in drawn])
        verdicts = self.gate.judge(pixels)
        return tuple(map(Picture, drawn, verdicts))

    def _check_length(self, name: str, text: str) -> None:
        if len(text) > MOST_TEXT:
            raise DataError(
                f"the {name} text has {len(text)} characters, more than {MOST_TEXT}; "
                "shorten it"
            )
        encoder = TextEncoder(self.pipeline.text_encoder, self.pipeline.tokenizer)
        (dropped,) = encoder.dropped([text])
        if dropped:
            raise DataError(
                f"the {name} text is {dropped} tokens longer than the "
                f"{encoder.max_tokens} that the model reads; shorten it"
            )
