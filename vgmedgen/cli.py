"""`vgmedgen`: what anyone with images, a base bundle or a release can do.

Exit 0 done, 1 refused (one line: what, where, limit, what to do, code), 2 misuse. Heavy
imports happen inside the verbs, so that `--help` stays fast.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from vgmedgen.errors import VGMedGenError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
base = typer.Typer(no_args_is_help=True, help="Build and verify base bundles.")
data = typer.Typer(no_args_is_help=True, help="Look at a dataset before it trains.")
release = typer.Typer(no_args_is_help=True, help="Look at a release and verify it.")
app.add_typer(base, name="base")
app.add_typer(data, name="data")
app.add_typer(release, name="release")

Overrides = Annotated[
    list[str] | None, typer.Argument(help="config overrides, such as model=small")
]


def run_cli(start: Callable[[], object], name: str) -> None:
    """Run a command line; turn our errors into one line and an exit code."""
    # neither a hub nor a usage statistic may be asked for, whatever a library thinks
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # other people's progress bars
    logging.basicConfig(
        level="WARNING", format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    for ours in ("vgmedgen", "server", "client", "simulations"):
        logging.getLogger(ours).setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # not the user's
    try:
        start()
    except VGMedGenError as error:
        print(f"{name}: {error} [{error.code}]", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; yields what moves it on."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def main() -> None:
    """Entry point of the console script."""
    run_cli(app, "vgmedgen")


@base.command(
    "build",
    epilog="example: vgmedgen base build --out base-tiny model=tiny",
)
def base_build(
    out: Annotated[Path, typer.Option(help="folder of the new bundle")],
    overrides: Overrides = None,
    public: Annotated[
        list[str] | None,
        typer.Option("--data", help="public dataset as NAME:FOLDER; phantoms if none"),
    ] = None,
    licence: Annotated[
        str, typer.Option(help="licence of the public data, told in the manifest")
    ] = "not told",
) -> None:
    """Build a base bundle from phantoms or public images."""
    from vgmedgen.configfile import load_run
    from vgmedgen.data import adapters
    from vgmedgen.errors import ConfigError
    from vgmedgen.training.public import build_from, build_from_phantoms

    config = load_run(overrides or [])
    if out.exists():
        raise ConfigError(f"{out} exists; choose another folder or remove it")
    if not public:
        bundle = build_from_phantoms(out, config)
    else:
        named = [entry.partition(":") for entry in public]
        datasets = [adapters.read(kind, Path(root)) for kind, _, root in named]
        source = ", ".join(kind for kind, _, _ in named)
        bundle = build_from(out, datasets, config, source, licence)
    print(f"base bundle {bundle.folder}\ndigest {bundle.digest}")


@base.command("verify", epilog="example: vgmedgen base verify base-tiny")
def base_verify(folder: Path) -> None:
    """Check every byte of a base bundle against its manifest."""
    from vgmedgen.base import open_bundle

    bundle = open_bundle(folder)
    print(f"{folder} is whole: {len(bundle.manifest['files'])} files")
    print(f"digest {bundle.digest}")


@data.command("check", epilog="example: vgmedgen data check busi /data/busi")
def data_check(dataset: str, root: Path) -> None:
    """Read a dataset whole: every image, mask and caption."""
    from collections import Counter

    from vgmedgen.data import adapters, images

    found = adapters.read(dataset, root)
    with progress_of("reading", len(found.records)) as advance:
        for record in found.records:
            images.load(record, 64)
            advance(1)
    labels = Counter(record.label for record in found.records)
    print(f"{found.name}: {len(found.records)} images, {len(found.units)} units")
    print(f"unit: {found.unit_kind}")
    for label, count in sorted(labels.items()):
        print(f"  {label or '(no label)'}: {count}")


@data.command("caption", epilog="example: vgmedgen data caption busi /data/busi c.csv")
def data_caption(dataset: str, root: Path, out: Path) -> None:
    """Write the captions that training would use, as csv."""
    import csv
    import io

    from vgmedgen.data import adapters, images
    from vgmedgen.data.attributes import measure, words
    from vgmedgen.data.captions import caption
    from vgmedgen.files import write_text

    found = adapters.read(dataset, root)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "caption"])
    with progress_of("captioning", len(found.records)) as advance:
        for record in found.records:
            image, mask = images.load(record, 128)
            spoken = words(measure(image, mask), found.modality)
            sentence = record.caption or caption(record, found.modality, spoken)
            table.writerow([record.image.name, sentence])
            advance(1)
    write_text(out, text.getvalue())
    print(f"{len(found.records)} captions in {out}")


@data.command(
    "prompts",
    epilog="example: vgmedgen data prompts train.json val.json test.json --out c.csv",
)
def data_prompts(
    files: Annotated[list[Path], typer.Argument(help="annotations of MedVLSM, JSON")],
    out: Annotated[Path, typer.Option(help="csv for data.captions")],
    prompt: Annotated[str, typer.Option(help="which of p0 to p9")] = "p6",
) -> None:
    """Turn prompts published for BUSI or Kvasir-SEG into a csv of captions."""
    from vgmedgen.data.prompts import from_medvlsm, write_captions

    pairs = from_medvlsm(files, prompt)
    write_captions(out, pairs)
    print(f"{len(pairs)} captions in {out}")


@data.command(
    "phantom", epilog="example: vgmedgen data phantom ultrasound out/ --count 50"
)
def data_phantom(
    modality: Annotated[str, typer.Argument(help="dermoscopy, ultrasound, endoscopy")],
    out: Path,
    count: int = 50,
    seed: int = 0,
    px: int = 128,
) -> None:
    """Draw phantoms in the layout of a published dataset."""
    from vgmedgen.data.layouts import LAYOUTS, write_phantoms
    from vgmedgen.data.phantom import tint_of
    from vgmedgen.errors import ConfigError

    if modality not in LAYOUTS:
        raise ConfigError(f"modality must be one of {', '.join(sorted(LAYOUTS))}")
    write_phantoms(modality, out, count, seed, px, tint_of(seed))
    print(f"{count} phantoms in {out}, layout of {LAYOUTS[modality]}")


@app.command(
    epilog="example: vgmedgen synthesize --model site/releases/0123abcd/pipeline "
    "--prompts prompts.csv --out synthetic"
)
def synthesize(
    model: Annotated[Path, typer.Option(help="installed pipeline folder")],
    prompts: Annotated[Path, typer.Option(help="csv with a column prompt, or text")],
    out: Annotated[Path, typer.Option(help="folder for images and images.csv")],
    seed: int = 0,
    steps: int = 25,
    guidance: float = 2.0,
    batch: int = 16,
    device: str = "cpu",
) -> None:
    """Draw one image per prompt. Same seed, same image."""
    from vgmedgen.config import SynthesisConfig
    from vgmedgen.synthesis import generate

    SynthesisConfig(steps=steps, guidance=guidance, batch=batch)  # checks the ranges
    words = generate.read_prompts(prompts)
    with progress_of("drawing", len(words)) as advance:
        drawn = generate.synthesize(
            model,
            words,
            out,
            seed=seed,
            steps=steps,
            guidance=guidance,
            batch=batch,
            device=device,
            progress=advance,
        )
    print(f"{len(drawn)} synthetic images in {out}, none of them cleared for release")


@app.command(epilog="example: vgmedgen audit runs/demo/sites/hospital-a")
def audit(
    folder: Annotated[Path, typer.Argument(help="the site's folder")],
    run: Annotated[
        str | None, typer.Option(help="run whose plan is audited; the latest if none")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="installed pipeline; the latest if none")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="synthetic images; the site's own if none")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the page; SITE/audit if none")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="a minute, fewer attacks")
    ] = False,
) -> None:
    """Attack a site's own engine, updates and models; exit 1 if a claim is not kept.

    Nothing is sent and no privacy is spent. The page is for the site's own eyes.
    """
    from vgmedgen.audit import run as auditor
    from vgmedgen.audit.verdict import RED
    from vgmedgen.site import Site

    site = Site(folder.resolve())
    place = out or folder / "audit"
    verdict = auditor.audit(
        site,
        site.plan_of(run),
        model=model,
        synthetic=synthetic,
        out=place,
        quick=quick,
        progress=logging.getLogger("vgmedgen").info,
    )
    print(f"{verdict.colour}: {verdict.headline}")
    for reason in verdict.reasons:
        print(f"  {reason}")
    print(f"page  {place / 'audit.html'}")
    if verdict.colour == RED:
        raise SystemExit(1)


@release.command("show", epilog="example: vgmedgen release show runs/demo/release")
def release_show(folder: Path) -> None:
    """Print what a release says of itself."""
    from vgmedgen.release.verify import digest, verify

    manifest = verify(folder)
    for name, fact in sorted(manifest.items()):
        if name != "files":
            print(f"{name}: {fact}")
    print(f"digest: {digest(manifest)}")


@release.command("verify", epilog="example: vgmedgen release verify runs/demo/release")
def release_verify(
    folder: Path,
    bundle: Annotated[
        Path | None, typer.Option("--base", help="base it must have been made for")
    ] = None,
) -> None:
    """Check every byte of a release against its manifest."""
    from vgmedgen.base import open_bundle
    from vgmedgen.release.verify import digest, verify

    manifest = verify(folder, open_bundle(bundle) if bundle else None)
    print(f"{folder} is whole: {len(manifest['files'])} files")
    print(f"digest {digest(manifest)}")
