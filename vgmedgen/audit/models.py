"""The two models that attacks compare: the untouched base, and what was trained on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import ReleaseError
from vgmedgen.exchange.schema import UPLINK
from vgmedgen.models import lora
from vgmedgen.models.generator import Generator
from vgmedgen.models.objective import Schedule
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.release.install import CURRENT, current
from vgmedgen.training.rounds import OUTCOME, PLAN


@dataclass(frozen=True)
class Model:
    """What turns a caption into an image."""

    name: str  # for the page
    mapper: TextMapper
    generator: Generator

    def to(self, device: torch.device) -> "Model":
        """The same model on `device`."""
        return Model(self.name, self.mapper.to(device), self.generator.to(device))


def base_model(bundle: Bundle) -> Model:
    """The base bundle's own weights, which no patient of the site has touched."""
    return Model(
        "base",
        TextMapper.from_pretrained(bundle.part("text_mapper")),
        Generator.load(bundle.folder),
    )


def schedule_of(bundle: Bundle) -> Schedule:
    """The noise schedule of the base."""
    return Schedule.load(bundle.part("scheduler"))


def installed(folder: Path) -> Model:
    """A release as a site installed it: a pipeline folder.

    Raises:
        ReleaseError: if the folder is none.
    """
    missing = [
        part
        for part in ("transformer", "hffm", "text_mapper")
        if not (folder / part).is_dir()
    ]
    if missing:
        raise ReleaseError(
            f"{folder} is no installed release: it has no {missing[0]}; name the folder "
            "`pipeline` of an installed release"
        )
    return Model(
        "installed release",
        TextMapper.from_pretrained(folder / "text_mapper"),
        Generator.load(folder),
    )


def last_sent(bundle: Bundle, plan: RunPlan, runs: Path) -> Model | None:
    """What the site itself sent last, put into the base; None if it sent nothing.

    It is what the coordinator saw: nobody else's update is averaged in.
    """
    sent = _newest(runs, plan)
    if not sent:
        return None
    model = base_model(bundle)
    lora.attach_by_plan(model.generator, plan)
    if "align" in sent:
        model.mapper.load_shared(sent["align"])
    if "generate" in sent:
        lora.load(model.generator, sent["generate"])
    return Model("what this site sent last", model.mapper, model.generator)


def find(
    bundle: Bundle, plan: RunPlan, site_folder: Path, model: Path | None
) -> tuple[Model, ...]:
    """The models to attack: the named or installed one, and what was sent last.

    Returns:
        None of them where the site has neither, since nothing was trained yet.

    Raises:
        ReleaseError: if the named folder is no installed release.
    """
    found: list[Model] = []
    if model is not None:
        found.append(installed(model))
    elif (site_folder / "releases" / CURRENT).is_file():
        found.append(installed(current(site_folder / "releases")))
    sent = last_sent(bundle, plan, site_folder / "runs")
    if sent is not None:
        found.append(sent)
    return tuple(found)


def _newest(runs: Path, plan: RunPlan) -> dict[str, Mapping[str, torch.Tensor]]:
    """What was sent last, by stage, of the newest run of `plan`."""
    told = plan.to_json()
    rounds = [
        path
        for run in runs.glob(f"*/{PLAN}")
        if run.read_text(encoding="utf-8") == told
        for path in run.parent.glob(f"round-*/{OUTCOME}")
    ]
    if not rounds:
        return {}
    newest = max(rounds, key=lambda path: path.stat().st_mtime).parent.parent
    found: dict[str, Mapping[str, torch.Tensor]] = {}
    for path in sorted(newest.glob(f"round-*/{OUTCOME}")):
        state = load_file(path)
        # a LoRA factor's name starts with the part it belongs to, a mapper's does not
        drawn = next(iter(state)).split(".")[0] in ("dit", "hffm")
        found["generate" if drawn else "align"] = state
    return {stage: found[stage] for stage in UPLINK if stage in found}
