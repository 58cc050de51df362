"""Draw what is asked for, compare it with the site's own images, keep what may leave.

The folder that a job fills is a training set in a chosen layout, with `images.csv` and the
gate's report. What the gate holds back lies in `quarantine/`; that folder and `.job/` are
for the site's own eyes and are not handed on.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from vgmedgen.config.ranges import digest_of, one_of, positive, within
from vgmedgen.config.run import DRAWING_STEPS, GUIDANCE
from vgmedgen.errors import ConfigError
from vgmedgen.files import write_bytes, write_text
from vgmedgen.gate import page
from vgmedgen.gate.release import ReleaseGate, Report, Verdict
from vgmedgen.release.store import Installed, Store
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import (
    choices,
    claims,
    layouts,
    prompts,
    provenance,
    refusals,
    state,
)
from vgmedgen.synthesis.asked import Ask, Drawn, Origin
from vgmedgen.synthesis.dicom import SUFFIX, as_dicom
from vgmedgen.synthesis.drawing import LANES, Drawer
from vgmedgen.synthesis.greys import Greys
from vgmedgen.synthesis.layouts import Kept
from vgmedgen.synthesis.pipeline import VGMedGenPipeline
from vgmedgen.synthesis.state import Line, State

TABLE = claims.TABLE
MOST_STEPS = 999  # with as many as training had, 1000, the last one divides by 0

Advance = Callable[[int], None]  # moves a progress bar on
Bar = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar, of which it is told the words and the length."""

log = logging.getLogger(__name__)


@contextmanager
def unseen(what: str, total: int) -> Iterator[Advance]:
    """A progress bar that nobody looks at."""
    yield lambda _: None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How images are drawn, judged and written."""

    steps: int = DRAWING_STEPS  # of the solver
    guidance: float = GUIDANCE  # 1 follows the prompt as trained; more exaggerates it
    layout: str = layouts.PLAIN
    masks: bool = False  # a layout that needs masks draws them anyway
    dicom: bool = False  # DICOM files beside the layout
    gate: bool = True  # off needs policy.ungated, and nothing is cleared
    strict: bool = False  # refuse a prompt that is longer than the encoder takes
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check ranges."""
        positive("synthesis", steps=self.steps)
        within("synthesis", 1, MOST_STEPS, steps=self.steps)
        within("synthesis", 1, 30, guidance=self.guidance)
        one_of("synthesis", layouts.LAYOUTS, layout=self.layout)
        if not re.fullmatch("cpu|cuda(:[0-9]{1,2})?", self.device):
            raise ConfigError(
                f"device must be cpu or cuda (or cuda:1 ...), got '{self.device[:20]}'"
            )
        number = int(self.device.partition(":")[2] or 0)
        if self.device != "cpu" and number >= torch.cuda.device_count():
            raise ConfigError(
                f"there is no CUDA device {number} here; draw with device cpu"
            )

    @property
    def draws_masks(self) -> bool:
        """Whether every image comes with a mask."""
        return self.masks or layouts.needs_masks(self.layout)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a job came to."""

    drawn: int  # images asked for, all of them drawn now or before
    cleared: list[Path]  # images that the gate let pass, by number
    quarantined: int
    report: Report | None  # None where no gate compared anything
    kept: list[Path] = field(default_factory=list)  # in the layout, cleared or not
    resumed: int = 0  # images that were there already


def model_of(site: Site, named: str = "") -> Installed:
    """An installed release of the site.

    Args:
        site: holds the releases.
        named: the beginning of its name, or its pipeline folder; empty: the current one.

    Raises:
        ReleaseError: if there is no such release.
    """
    store = Store(site.folder / "releases")
    if not named:
        return store.current()
    releases = (site.folder / "releases").resolve()
    path = Path(named).resolve()
    if path.parent.parent == releases and path.name == "pipeline":
        return store.find(path.parent.name)
    return store.find(path.name if path.parent == releases else named)


def synthesize(
    site: Site,
    model: Installed,
    asks: Sequence[Ask],
    out: Path,
    options: Options,
    *,
    resume: bool = False,
    bar: Bar = unseen,
) -> Result:
    """Draw every ask into `out`, each image judged before it is written there.

    Args:
        site: gives the images that the gate compares with.
        model: an installed release; every byte of it is checked first.
        asks: the images; their numbers are unique.
        out: is made; empty, or with `resume` a job of the same words that was stopped.
        options: how.
        resume: go on; the result is to the byte that of a job that was never stopped.
            What is there and cleared is first shown to the gate again.
        bar: shows how far the gate's opening, and then the drawing, has come.

    Raises:
        ConfigError: if something asked for cannot be, or `out` holds something else.
        PolicyError: if the gate is off and the site does not allow that.
        ReleaseError: if the release is damaged.
        StateError: if an image cannot be written; what is done stays for `resume`.
    """
    refusals.check(site, asks, out, options.layout, gate=options.gate)
    trusted = site.policy.coordinators
    model = Store(site.folder / "releases", trusted).verify(model.name)
    for line in prompts.too_long(asks, model.pipeline, strict=options.strict):
        log.warning("%s", line)
    if not resume:
        state.check(out, {}, resume=False)  # before the gate takes its time
    gate = None
    if options.gate:
        gate = _opened(site, bar)
    origin = origin_of(site, model, options)
    greys = Greys.of(site)
    words = _words(asks, options, origin, greys, gate.digest if gate else "")
    with (
        refusals.kept(out),
        state.opened(
            out, words, state.machine(options.device), resume=resume
        ) as memory,
    ):
        if gate is None:
            write_text(out / claims.NOT_CLEARED, claims.WARNING)
        job = _Job(gate, list(asks), options, origin, memory, greys)
        job.settle(bar)
        resumed = len(memory.lines)
        if resumed < len(asks):
            with bar("drawing", len(asks)) as advance:
                advance(resumed)
                job.draw(model.pipeline, advance)
        return job.finish(site.bundle.image_px, resumed)


def origin_of(site: Site, model: Installed, options: Options) -> Origin:
    """What the files tell of where their images come from, all of them not cleared.

    At a site of several modalities none is told here: each image's own words tell it.
    """
    found = {dataset.modality for dataset in site.datasets}
    modality = found.pop() if len(found) == 1 else ""
    return Origin(
        release=model.digest,
        run=model.run,
        base=site.bundle.digest,
        site=site.name,
        modality=layouts.MODALITIES.get(options.layout, modality),
        steps=options.steps,
        guidance=options.guidance,
        cleared=False,
    )


def _opened(site: Site, bar: Bar) -> ReleaseGate:
    """The gate; the first time takes tens of seconds for a thousand images."""
    many = len(site.training) + len(site.heldout)
    what = f"Opening the release gate: {many:,} images of this site"
    with bar(what, ReleaseGate.steps(site)) as advance:
        return ReleaseGate.of(site, progress=advance)


def _words(
    asks: Sequence[Ask], options: Options, origin: Origin, greys: Greys, gate: str
) -> dict[str, object]:
    """Everything that decides a byte of what the job writes."""
    told = asdict(options)
    del told["strict"], told["gate"]
    return {
        **told,
        **{name: fact for name, fact in asdict(origin).items() if name != "cleared"},
        "masks": options.draws_masks,
        "asks": digest_of({"asks": [asdict(ask) for ask in asks]}),
        "images": len(asks),
        "grey": sorted(greys.grey),
        "gate": gate,
        "software": provenance.SOFTWARE,
    }


class _Job:
    """One job at work."""

    def __init__(
        self,
        gate: ReleaseGate | None,
        asks: list[Ask],
        options: Options,
        origin: Origin,
        memory: State,
        greys: Greys,
    ) -> None:
        self._gate, self._options, self._origin = gate, options, origin
        self._greys, self._memory, self._out = greys, memory, memory.out
        self._asks = {ask.number: ask for ask in asks}
        self._places = dict(zip(self._asks, layouts.places(asks), strict=True))
        self._claims = claims.Claims(
            asks=self._asks,
            places=self._places,
            layout=options.layout,
            masks=options.draws_masks,
            dicom=options.dicom,
            gated=gate is not None,
        )

    def settle(self, bar: Bar) -> None:
        """Take of what is there only what this job wrote and the gate still clears."""
        memory = self._memory
        memory.keep(self._claims.sound)
        self._claims.refuse_others(self._out, memory.lines, whole=False)
        cleared = [line for line in memory.lines.values() if line.verdict and line.kept]
        if self._gate is not None and cleared:
            with bar("comparing again what is there", len(cleared)) as advance:
                for line in cleared:
                    ask, image = self._asks[line.number], self._kept_of(line).image
                    told = provenance.facts(ask, self._origin_of(ask, cleared=True))
                    if not claims.confirmed(self._out, line, image, told, self._gate):
                        del memory.lines[line.number]
                    advance(1)
        for number in self._asks.keys() - memory.lines.keys():  # to be drawn again
            for name in self._claims.either(number):
                (self._out / name).unlink(missing_ok=True)

    def draw(self, folder: Path, advance: Advance) -> None:
        """Draw, judge and write what is not there yet."""
        pipeline = VGMedGenPipeline.from_pretrained(folder).to(self._options.device)
        drawer = Drawer(
            pipeline,
            steps=self._options.steps,
            guidance=self._options.guidance,
            masks=self._options.draws_masks,
            grey=self._greys,
        )
        done = self._memory.lines
        wanted = [ask for number, ask in self._asks.items() if number not in done]
        part: list[Drawn] = []
        for drawn in drawer.draw(wanted):
            part.append(drawn)
            if len(part) == LANES:
                self._keep(part)
                advance(len(part))
                part = []
        if part:
            self._keep(part)
            advance(len(part))

    def _keep(self, part: Sequence[Drawn]) -> None:
        """Judge some images, write each where its verdict says, then commit them."""
        verdicts: Sequence[Verdict | None] = [None] * len(part)
        if self._gate is not None:
            verdicts = self._gate.judge(np.stack([drawn.pixels for drawn in part]))
        pairs = zip(part, verdicts, strict=True)
        self._memory.add([self._write(drawn, verdict) for drawn, verdict in pairs])

    def _write(self, drawn: Drawn, verdict: Verdict | None) -> Line:
        number = drawn.ask.number
        cleared = verdict is not None and verdict.cleared
        origin = self._origin_of(drawn.ask, cleared=cleared)
        told = provenance.facts(drawn.ask, origin)
        box = None
        if verdict is not None and not cleared:
            self._private(claims.QUARANTINE)
            name = f"{claims.QUARANTINE}/{number:05d}.png"
            content = {name: provenance.as_png(drawn.pixels, told)}
        else:
            place = self._places[number]
            kept, content = layouts.files(self._options.layout, drawn, place, told)
            box = kept.box
            if self._options.dicom:
                content[f"{claims.DICOM}/{number:05d}{SUFFIX}"] = as_dicom(
                    drawn, origin
                )
        for name, raw in content.items():
            write_bytes(self._out / name, raw)
        return Line(
            number=number,
            verdict=verdict.to_json() if verdict is not None else None,
            kept=verdict is None or cleared,
            files={name: state.digest(raw) for name, raw in content.items()},
            box=box,
        )

    def _origin_of(self, ask: Ask, *, cleared: bool) -> Origin:
        """With the job's modality, or at a site of several the one of the ask's words."""
        told = self._origin.modality
        told = told or choices.modality_of(ask.prompt, ask.label, self._greys.among)
        return replace(self._origin, cleared=cleared, modality=told)

    def _private(self, name: str) -> None:
        (self._out / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def finish(self, px: int, resumed: int) -> Result:
        """Write the tables and the gate's report over all images.

        Raises:
            ConfigError: if the folder holds what the job did not write.
        """
        self._claims.refuse_others(self._out, self._memory.lines, whole=True)
        lines = [self._memory.lines[number] for number in self._asks]
        verdicts = [Verdict.from_json(line.verdict) for line in lines if line.verdict]
        kept = [self._kept_of(line) for line in lines if line.kept]
        layout = self._options.layout
        for name, text in layouts.tables(layout, kept, px).items():
            write_text(self._out / name, text)
        release, gated = self._origin.release, self._gate is not None
        write_text(self._out / TABLE, layouts.index(kept, release, cleared=gated))
        held = [
            [f"{line.number:05d}.png", verdict.reason]
            for line, verdict in zip(lines, verdicts, strict=False)
            if not verdict.cleared
        ]
        report = None
        if self._gate is not None:
            (self._out / claims.QUARANTINE / claims.HELD).unlink(missing_ok=True)
            if held:
                text = layouts.as_csv(("image", "reason"), held)
                write_text(self._out / claims.QUARANTINE / claims.HELD, text)
            report = self._gate.report(verdicts)
            page.write(report, self._out)
        paths = [self._out / one.image for one in kept]
        counts = {
            "drawn": len(lines),
            "cleared": len(paths) if self._gate else 0,
            "quarantined": len(held),
        }
        self._memory.finish(counts)
        return Result(
            drawn=len(lines),
            cleared=paths if self._gate else [],
            quarantined=len(held),
            report=report,
            kept=paths,
            resumed=resumed,
        )

    def _kept_of(self, line: Line) -> Kept:
        ask, place = self._asks[line.number], self._places[line.number]
        return layouts.kept(
            self._options.layout,
            ask,
            place,
            masks=self._options.draws_masks,
            box=line.box,
        )
