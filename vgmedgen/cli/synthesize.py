"""`vgmedgen synthesize`: draw images from an installed release."""

from pathlib import Path
from typing import Annotated

import typer

from vgmedgen.cli.shared import progress_of


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
