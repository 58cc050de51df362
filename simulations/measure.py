"""Numbers of a simulated run that only a researcher can see: all sites at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from vgmedgen.config.plan import RunPlan
from vgmedgen.config.run import StudyConfig
from vgmedgen.evaluation.alignment import agreement, mapper_agreement
from vgmedgen.evaluation.denoising import CaptionGap, caption_gap, heldout_losses
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.site.folder import Site
from vgmedgen.training.align import Latents, map_text, see
from vgmedgen.training.rounds import Arrays

Weights = Mapping[str, Arrays]


def score(
    site: Site, plan: RunPlan, weights: Weights, study: StudyConfig
) -> CaptionGap:
    """Held-out denoising loss and caption gap of `weights` at `site`."""
    bench, samples = site.bench(plan), site.heldout
    bench.take(weights)
    return caption_gap(
        bench.generator,
        bench.schedule,
        samples.latents,
        map_text(bench.mapper, samples.embeddings),
        draws=study.draws,
        shuffles=study.shuffles,
        seed=plan.seed,
    )


def loss_of(site: Site, plan: RunPlan, weights: Weights, study: StudyConfig) -> float:
    """Held-out denoising loss alone."""
    bench, samples = site.bench(plan), site.heldout
    bench.take(weights)
    losses = heldout_losses(
        bench.generator,
        bench.schedule,
        samples.latents,
        map_text(bench.mapper, samples.embeddings),
        draws=study.draws,
        seed=plan.seed,
    )
    return losses.mean().item()


def align_agreement(
    sites: Sequence[Site], plan: RunPlan, run: str, number: int, mapper: Arrays
) -> dict[str, dict[str, float]]:
    """Cross-site agreement after an align round, on all sites' held-out images.

    Args:
        sites: at least two.
        plan: of the run.
        run: id under which the sites keep their priors.
        number: the round.
        mapper: the global text mapper after that round.

    Returns:
        `sites`: mean centred cosine between two sites' latents of the same images;
        `mapper`: between the global mapper's vectors and each site's latents. Each for
        anatomy and style.
    """
    seen = {}
    for site in sites:
        path = site.folder / "runs" / run / f"round-{number:04d}" / "prior.safetensors"
        if path.is_file():
            seen[site.name] = _see_all(_prior(site, path), sites)
    bench = sites[0].bench(plan)
    bench.mapper.load_shared(
        {name: torch.from_numpy(array.copy()) for name, array in mapper.items()}
    )
    embeddings = torch.cat([site.heldout.embeddings for site in sites])
    said = map_text(bench.mapper, embeddings)
    found: dict[str, dict[str, float]] = {"sites": {}, "mapper": {}}
    for kind in ("anatomy", "style"):
        latents = {name: getattr(one, kind) for name, one in seen.items()}
        found["sites"][kind] = agreement(latents)
        found["mapper"][kind] = mapper_agreement(getattr(said, kind), latents)
    return found


def _prior(site: Site, path: Path) -> VisualPrior:
    prior: VisualPrior = VisualPrior.from_pretrained(site.bundle.part("visual_prior"))
    prior.load_state_dict(load_file(path))
    return prior


def _see_all(prior: VisualPrior, sites: Sequence[Site]) -> Latents:
    parts = [see(prior, site.heldout) for site in sites]
    return Latents(
        torch.cat([part.anatomy for part in parts]),
        torch.cat([part.style for part in parts]),
    )
