"""`vgmedgen synthesize`: draw images from an installed release."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgmedgen.cli.shared import progress_of
from vgmedgen.config.run import DRAWING_STEPS, GUIDANCE

if TYPE_CHECKING:
    from vgmedgen.site.folder import Site
    from vgmedgen.synthesis.job import Result
    from vgmedgen.synthesis.prompts import Wish


def synthesize(
    site: Annotated[Path, typer.Option(help="folder of the site, or its site.yaml")],
    out: Annotated[Path, typer.Option(help="folder to fill; made")],
    prompt: Annotated[list[str] | None, typer.Argument(help="what to draw")] = None,
    model: Annotated[str, typer.Option(help="installed release; the current one")] = "",
    prompts: Annotated[
        Path | None, typer.Option(help="csv with a column prompt, or text")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML: how many of which class")
    ] = None,
    count: Annotated[int, typer.Option(help="images per prompt")] = 1,
    seed: Annotated[int, typer.Option(help="of the first image")] = 0,
    steps: Annotated[int, typer.Option(help="of the solver")] = DRAWING_STEPS,
    guidance: Annotated[
        float, typer.Option(help="1 follows the prompt as trained")
    ] = GUIDANCE,
    anatomy: Annotated[str, typer.Option(help="take the anatomy of this text")] = "",
    style: Annotated[str, typer.Option(help="take the style of this text")] = "",
    towards: Annotated[str, typer.Option(help="move towards this text ...")] = "",
    share: Annotated[
        float | None, typer.Option(help="... by this share of the way [0.5]")
    ] = None,
    strip: Annotated[int, typer.Option(help="... in this many images, 0 to 1")] = 0,
    masks: Annotated[bool, typer.Option("--masks", help="masks too")] = False,
    layout: Annotated[
        str, typer.Option(help="plain, ham10000, busi or kvasir-seg")
    ] = "plain",
    dicom: Annotated[bool, typer.Option("--dicom", help="DICOM files too")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with --out")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="refuse a prompt that is too long")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="off: nothing is cleared")
    ] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Draw images at a site and compare each with the site's own before it is kept.

    Same words, same bytes: stopped at any point, the same command with --resume goes on.
    """
    from vgmedgen.errors import ConfigError

    apart = bool(anatomy and style) and not prompts and not plan
    if (bool(prompt) or apart, bool(prompts), bool(plan)).count(True) != 1:
        raise ConfigError(
            "give one of: prompts as arguments, --prompts, --plan, or --anatomy and "
            "--style together"
        )
    if strip and share is not None:
        raise ConfigError("--share and --strip say two things; give one of them")

    from vgmedgen.site.config import FILE
    from vgmedgen.site.folder import Site
    from vgmedgen.synthesis import job
    from vgmedgen.synthesis.prompts import Control, asks_of

    options = job.Options(
        steps=steps,
        guidance=guidance,
        layout=layout,
        masks=masks,
        dicom=dicom,
        gate=gate,
        strict=strict,
        device=device,
    )
    if share is None:
        share = 0.5 if towards and not strip else 0.0
    control = Control(
        count=count,
        seed=seed,
        anatomy=anatomy,
        style=style,
        towards=towards,
        share=share,
        strip=strip,
    )
    place = Site(site.parent if site.name == FILE else site)
    words = prompt or ([f"{anatomy}; {style}"] if apart else [])
    asks = asks_of(_wishes(place, words, prompts, plan, seed), control)
    installed = job.model_of(place, model)
    result = job.synthesize(
        place, installed, asks, out, options, resume=resume, bar=progress_of
    )
    _tell(result, out)


def _wishes(
    site: "Site", words: list[str], prompts: Path | None, plan: Path | None, seed: int
) -> "list[Wish]":
    from vgmedgen.synthesis.plan import read_plan, seen_at, wishes_of
    from vgmedgen.synthesis.prompts import Wish, read_prompts, tidy

    if plan is not None:
        seen = seen_at(site)
        return wishes_of(read_plan(plan, seen), seen, seed)
    if prompts is not None:
        return read_prompts(prompts)
    return [Wish(prompt=tidy(text)) for text in words]


def _tell(result: "Result", out: Path) -> None:
    before = f", {result.resumed} of them before" if result.resumed else ""
    print(f"drawn        {result.drawn}{before}")
    if result.report is None:
        print(f"cleared      0: no gate compared them; they may not leave ({out})")
        return
    print(f"cleared      {len(result.cleared)}  {out}")
    where = (
        f"  {out / 'quarantine'}: for the site's own eyes" if result.quarantined else ""
    )
    print(f"quarantined  {result.quarantined}{where}")
    print(f"report       {out / 'gate.html'}")
