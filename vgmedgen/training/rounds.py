"""What one site computes in one round, from an order to an outcome.

Under DP the prior is the public one or trained with noise too, and no loss is told:
whatever a released gradient depends on is the unit's own record, public, or noised.

State between rounds is on disk, in a folder per round below the site's run folder: the
visual prior that the site keeps, and the outcome, so that an order that comes twice is
answered from the first time instead of being trained again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.config.ranges import digest_of
from vgmedgen.files import write_bytes, write_text
from vgmedgen.models import lora
from vgmedgen.models.codec import Codec
from vgmedgen.models.generator import Generator
from vgmedgen.models.objective import Schedule
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.privacy.engine import Private
from vgmedgen.privacy.plan import LORA, MAPPER, PRIOR, PrivacyPlan
from vgmedgen.training.align import map_text, see, train_mapper, train_prior
from vgmedgen.training.generate import train_generator
from vgmedgen.training.loop import Checkpoint, TrainLog, seed_of
from vgmedgen.training.order import Order, Outcome
from vgmedgen.training.samples import Samples

Arrays = Mapping[str, np.ndarray]

OUTCOME = "outcome.safetensors"
PLAN = "plan.json"  # of a run, beside its rounds, for whoever audits it


@dataclass
class Workbench:
    """The models of a base bundle, loaded once; what an order carries is put in."""

    bundle: Bundle
    prior: VisualPrior
    mapper: TextMapper
    generator: Generator
    schedule: Schedule
    device: torch.device

    @classmethod
    def open(cls, bundle: Bundle, plan: RunPlan, device: torch.device) -> "Workbench":
        """Load every part and attach LoRA; A is the same at every site by the seed."""
        prior = VisualPrior.from_pretrained(bundle.part("visual_prior"))
        mapper = TextMapper.from_pretrained(bundle.part("text_mapper"))
        generator = Generator.load(bundle.folder)
        lora.attach_by_plan(generator, plan)
        return cls(
            bundle,
            prior.to(device),
            mapper.to(device),
            generator.to(device),
            Schedule.load(bundle.part("scheduler")),
            device,
        )

    def states(self) -> dict[str, dict[str, np.ndarray]]:
        """Both groups of the exchange, as they are now."""
        return {
            "mapper": _arrays(self.mapper.shared_state()),
            "lora": _arrays(lora.state(self.generator)),
        }

    def take(self, weights: Mapping[str, Arrays]) -> None:
        """Put an order's weights into the models; all else starts from the bundle."""
        # the decoder stays at the site, and what an earlier order left in it must not
        # show in this one: a round that is repeated has to end the same
        start = TextMapper.from_pretrained(self.bundle.part("text_mapper"))
        self.mapper.load_state_dict(start.state_dict())
        self.mapper.load_shared(_tensors(weights["mapper"]))
        lora.load(self.generator, _tensors(weights["lora"]))


@dataclass(frozen=True)
class Desk:
    """One site's place to work: its name, samples and run folder."""

    site: str
    samples: Samples
    folder: Path

    def round_folder(self, order: Order) -> Path:
        """Folder of what this site keeps of one round."""
        return self.folder / order.run / f"round-{order.number:04d}"


def train(bench: Workbench, desk: Desk, order: Order) -> Outcome:
    """Do what the order asks, or answer again what was answered before.

    Raises:
        TrainingError: if a loss is not finite; nothing is kept.
    """
    folder = desk.round_folder(order)
    asked = order_digest(bench.bundle, order)
    known = _known(folder, asked)
    if known is not None:
        return known
    if (folder / "order").is_file() and (folder / "order").read_text(
        encoding="utf-8"
    ) != asked:
        shutil.rmtree(folder)
    write_text(folder.parent / PLAN, order.plan.to_json())
    write_text(folder / "order", asked)
    bench.take(order.weights)
    seed = seed_of(order.plan.seed, desk.site, order.number)
    run_stage = _align if order.stage == "align" else _generate
    outcome, logs = run_stage(bench, desk, order, seed)
    write_text(
        folder / "losses.json",
        json.dumps({name: log.told() for name, log in logs.items()}),
    )
    facts = {"units": outcome.units, "loss_sum": outcome.loss_sum}
    state = {name: np.ascontiguousarray(a) for name, a in outcome.state.items()}
    write_bytes(folder / OUTCOME, save_arrays(state, {"facts": json.dumps(facts)}))
    return outcome


def _align(
    bench: Workbench, desk: Desk, order: Order, seed: int
) -> tuple[Outcome, dict[str, TrainLog]]:
    folder, ask, samples = desk.round_folder(order), order.plan.align, desk.samples
    logs = {}
    if order.plan.privacy.enabled and order.plan.privacy.prior == "frozen":
        prior = _public_prior(bench)
    else:
        prior = _prior_before(bench, desk, order)
        anchor = None
        if order.number > 1 and ask.anchor > 0:
            anchor = map_text(bench.mapper, samples.embeddings)
        logs["prior"] = train_prior(
            prior,
            samples,
            ask,
            seed=seed,
            anchor=anchor,
            private=private_of(order.plan, PRIOR, samples),
            checkpoint=Checkpoint(folder / "prior.checkpoint"),
        )
        kept = {n: t.detach().cpu().contiguous() for n, t in prior.state_dict().items()}
        write_bytes(folder / "prior.safetensors", save(kept))
    logs["mapper"] = train_mapper(
        bench.mapper,
        samples.embeddings,
        see(prior, samples),
        ask,
        seed=seed,
        private=private_of(order.plan, MAPPER, samples),
        checkpoint=Checkpoint(folder / "mapper.checkpoint"),
    )
    return _outcome(bench.states()["mapper"], order, samples, logs["mapper"]), logs


def _generate(
    bench: Workbench, desk: Desk, order: Order, seed: int
) -> tuple[Outcome, dict[str, TrainLog]]:
    ask, samples = order.plan.generate, desk.samples
    weights = {
        name: weight
        for name, weight in lora.parameters(bench.generator).items()
        if order.factor is None or name.endswith(f".{order.factor}")
    }
    codec = None
    if ask.colour_every:
        codec = Codec.load(bench.bundle.part("vae")).to(bench.device)
    log = train_generator(
        bench.generator,
        weights,
        samples,
        map_text(bench.mapper, samples.embeddings),
        bench.schedule,
        ask,
        seed=seed,
        codec=codec,
        private=private_of(order.plan, LORA, samples),
        checkpoint=Checkpoint(desk.round_folder(order) / "lora.checkpoint"),
    )
    return _outcome(bench.states()["lora"], order, samples, log), {"generate": log}


def private_of(plan: RunPlan, training: str, samples: Samples) -> Private | None:
    """How one training of a plan keeps its claim at a site; None without DP."""
    if not plan.privacy.enabled:
        return None
    ask, asked = plan.privacy, PrivacyPlan.of(plan).trainings[training]
    return Private(
        units=samples.by_unit(),
        mechanism=asked.mechanism,
        clip=asked.clip,
        images=ask.images,
        draws=ask.draws if training == LORA else 1,  # the others draw no noise
        ema=ask.ema,
    )


def _public_prior(bench: Workbench) -> VisualPrior:
    """The base bundle's prior, as it was before any site's image was seen."""
    public = VisualPrior.from_pretrained(bench.bundle.part("visual_prior"))
    bench.prior.load_state_dict(public.state_dict())
    return bench.prior


def _prior_before(bench: Workbench, desk: Desk, order: Order) -> VisualPrior:
    """The site's prior as its latest earlier round left it, else where it starts."""
    for number in range(order.number - 1, 0, -1):
        path = desk.folder / order.run / f"round-{number:04d}" / "prior.safetensors"
        if path.is_file():
            bench.prior.load_state_dict(load_file(path))
            return bench.prior
    if order.plan.align.common_start:
        start = VisualPrior.from_pretrained(bench.bundle.part("visual_prior"))
    else:
        start = VisualPrior.like(
            bench.prior, seed_of(order.plan.seed, desk.site, "own")
        )
    bench.prior.load_state_dict(start.state_dict())
    return bench.prior


def _outcome(state: Arrays, order: Order, samples: Samples, log: TrainLog) -> Outcome:
    units = samples.units
    told = None if order.plan.privacy.enabled else units * log.tail_mean()
    return Outcome(state=state, units=units, loss_sum=told)


def _known(folder: Path, asked: str) -> Outcome | None:
    path = folder / OUTCOME
    if not path.is_file() or (folder / "order").read_text(encoding="utf-8") != asked:
        return None
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    facts = json.loads(header["__metadata__"]["facts"])
    return Outcome(
        state=load_arrays(path), units=facts["units"], loss_sum=facts["loss_sum"]
    )


def order_digest(bundle: Bundle, order: Order) -> str:
    """Hash of all that a round's result depends on, besides data and chance."""
    facts = {
        "base": bundle.digest,
        "plan": order.plan.digest,
        "number": order.number,
        "stage": order.stage,
        "turn": order.turn,
        "weights": {
            group: {
                name: hashlib.sha256(array.tobytes()).hexdigest()
                for name, array in arrays.items()
            }
            for group, arrays in order.weights.items()
        },
    }
    return digest_of(facts)


def _arrays(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: t.detach().float().cpu().numpy().copy() for name, t in state.items()}


def _tensors(state: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
