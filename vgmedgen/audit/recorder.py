"""One training under DP as it really ran: who joined, what was summed, noised and sent.

The recorder is called by the site's own training code (`privacy/recording.py`) and by
torch before every optimiser step, which no engine can avoid. It believes no more of the
engine than it must: clipping, averaging and the optimiser are done again beside it, from
the plan alone, and what differs is kept.

d values train in P tensors; U units joined.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from vgmedgen.audit.recording import KEPT, Call, Recording, Spot, Step, Terms
from vgmedgen.config.plan import RunPlan
from vgmedgen.privacy.recording import LossFn
from vgmedgen.training.loop import WEIGHT_DECAY, rate_factor


class Recorder:
    """Records every training of one round; see `privacy.recording.Recorder`.

    Args:
        plan: that the engine has to keep.
        units: of the site.
        number: of the round.
        starts: what may train, each weight with its public start, by training.
        spots: picks the steps of a training that are computed again.
    """

    def __init__(
        self,
        plan: RunPlan,
        units: int,
        number: int,
        starts: Mapping[str, Sequence[tuple[nn.Parameter, Tensor]]],
        spots: Callable[[int], frozenset[int]],
    ) -> None:
        self.recordings: list[Recording] = []
        self.sent: list[tuple[nn.Parameter, Tensor]] = []
        self.unbooked = 0  # optimiser steps on weights that no recorded training has
        self._plan, self._units, self._number = plan, units, number
        self._starts, self._spots = starts, spots
        self._models = {id(w) for pairs in starts.values() for w, _ in pairs}
        self._now: _Training | None = None

    def begin(self, weights: Mapping[str, nn.Parameter], loss: LossFn) -> LossFn:
        """Start a recording; the loss notes what it is called with."""
        owned = {id(weight) for weight in weights.values()}
        name, pairs = next(
            (
                (name, pairs)
                for name, pairs in self._starts.items()
                if owned <= {id(weight) for weight, _ in pairs}
            ),
            ("", ()),
        )
        if not name:  # a training that the plan does not know
            self.unbooked += 1
            return loss
        terms = Terms.of(self._plan, name, self._units)
        begun = _Training(terms, self._number, weights, loss, self._spots(terms.steps))
        start = {id(weight): value for weight, value in pairs}
        begun.follow([start[id(weight)] for weight in weights.values()])
        self._now = begun
        self.recordings.append(begun.recording)
        return begun.loss

    def graded(self) -> None:
        """Clip the gradients of these units again, and sum them."""
        if self._now is not None:
            self._now.graded()

    def drew(self, noise: Tensor) -> None:
        """Keep what the site's secret gave out."""
        if self._now is not None:
            self._now.drawn.append(noise.detach().flatten().clone())

    def noised(self) -> None:
        """Keep the noised sum, to see what it is divided by."""
        if self._now is not None:
            self._now.noised = self._now.flat("grad")

    def stepping(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Before an optimiser moves weights: called by torch for every one of them."""
        here = {id(w) for group in optimizer.param_groups for w in group["params"]}
        if self._now is not None and here & self._now.owned:
            self._now.release()
        elif here & self._models:
            self.unbooked += 1

    def end(self) -> None:
        """Compare what is sent, and compute the gradients of the spots again."""
        if self._now is not None:
            self._now.end()
            self.sent += self._now.sent()
            self._now = None


class _Training:
    """The recording in the making."""

    def __init__(
        self,
        terms: Terms,
        number: int,
        weights: Mapping[str, nn.Parameter],
        loss: LossFn,
        spots: frozenset[int],
    ) -> None:
        self.terms, self._loss, self._chosen = terms, loss, spots
        self.weights = list(weights.values())
        self.owned = {id(w) for w in self.weights}
        sizes = tuple(w.numel() for w in self.weights)
        self.recording = Recording(terms, number, tuple(weights), sizes)
        self.noised: Tensor | None = None
        self.drawn: list[Tensor] = []
        self._calls: list[Call] = []
        self._clipped: Tensor | None = None
        self._spots: list[Spot] = []

    def follow(self, start: Sequence[Tensor]) -> None:
        """Put a second optimiser beside the engine's, which sees the releases alone."""
        self._shadow = [
            nn.Parameter(s.detach().clone().to(w.device))
            for s, w in zip(start, self.weights, strict=True)
        ]
        self._held = [one.detach().clone() for one in self._shadow]
        self._adamw = torch.optim.AdamW(self._shadow, weight_decay=WEIGHT_DECAY)

    def sent(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Each weight with what the training should send of it."""
        return list(zip(self.weights, self._held, strict=True))

    def loss(self, number: int, rows: Tensor, draw: torch.Generator) -> Tensor:
        """The training's loss; what it is called with is noted."""
        self._calls.append(Call(number, rows.detach().clone(), draw.get_state()))
        return self._loss(number, rows, draw)

    def flat(self, name: str) -> Tensor | None:
        """What the engine keeps on all weights under a name: (d,)."""
        kept = [getattr(weight, name, None) for weight in self.weights]
        if any(part is None for part in kept):
            return None
        return torch.cat([p.detach().flatten().float() for p in kept if p is not None])

    @torch.no_grad()
    def graded(self) -> None:
        """Add the sum of the units' gradients, each clipped over all tensors: (d,)."""
        samples = [getattr(w, "grad_sample", None) for w in self.weights]
        if any(one is None for one in samples):
            self.recording.error = "the engine shows no gradients per unit"
            return
        each = [one.flatten(1) for one in samples if one is not None]
        rows = sum(len(c.rows) for c in self._calls[-1:]) if len(each[0]) else 0
        if rows != len(each[0]) * self.terms.rows:
            self.recording.error = f"{rows} rows gave {len(each[0])} gradients"
        norms = torch.stack([one.norm(dim=1) for one in each]).norm(dim=0)  # (U,)
        factors = (self.terms.clip / norms.clamp_min(self.terms.clip)).double()
        factors[~torch.isfinite(norms)] = 0  # such a unit counts as zero
        summed = torch.cat(
            [factors @ one.double().nan_to_num(0.0, 0.0, 0.0) for one in each]
        )
        self._clipped = summed if self._clipped is None else self._clipped + summed

    @torch.no_grad()
    def release(self) -> None:
        """Judge what is on the weights just before they move."""
        terms, number = self.terms, len(self.recording.steps)
        sent = self.flat("grad")
        if sent is None:
            sent = torch.zeros(sum(self.recording.sizes))
        clipped, summed = self._clipped, self.flat("summed_grad")
        shown = None not in (clipped, summed, self.noised)
        hidden = torch.zeros_like(sent).double() if clipped is None else clipped
        z = (sent.double() * terms.expected - hidden) / (terms.clip * terms.noise)
        z = z.float()
        parts = torch.split(z, list(self.recording.sizes))
        length = hidden.norm().item()
        off, added, divided = torch.inf, torch.inf, (torch.nan, torch.nan)
        if summed is not None and self.noised is not None:
            off = (summed.double() - hidden).norm().item() / terms.clip
            added = self._added(self.noised, summed)
            large = self.noised.abs() > terms.clip * terms.noise / 10
            ratios = self.noised[large].double() / sent[large].double()
            if len(ratios):
                divided = ratios.min().item(), ratios.max().item()
        self.recording.steps.append(
            Step(
                rows=tuple(call.rows for call in self._calls),
                shown=shown,
                squares=torch.stack([p.double().square().sum() for p in parts]).cpu(),
                sums=torch.stack([p.double().sum() for p in parts]).cpu(),
                kept=torch.cat([p[:KEPT] for p in parts]).cpu(),
                along=float(z.double() @ hidden / length) if length else 0.0,
                off=off,
                added=added,
                divided=divided,
                drift=_apart(self.weights, self._shadow),
            )
        )
        both = torch.stack([z, z.square()])
        totals = self.recording.totals
        self.recording.totals = both if totals is None else totals.add_(both)
        if number in self._chosen and clipped is not None:
            weights = tuple(w.detach().clone() for w in self.weights)
            self._spots.append(Spot(tuple(self._calls), weights, clipped))
        self._follow_on(number)
        self._calls, self._clipped, self.noised, self.drawn = [], None, None, []

    def _added(self, noised: Tensor, summed: Tensor) -> float:
        """Largest z between what the sum became and the sum with the secret's noise."""
        if sum(map(len, self.drawn)) != len(noised):
            return torch.inf
        noise = torch.cat(self.drawn).to(noised.device)
        apart = (noised - (summed + noise)).abs().max().item()
        return apart / (self.terms.clip * self.terms.noise)

    def _follow_on(self, number: int) -> None:
        """The weights' next place, from the release and the plan alone."""
        terms = self.terms
        rate = terms.peak * rate_factor(number, terms.steps)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        for own, weight in zip(self._shadow, self.weights, strict=True):
            sent = weight.grad
            own.grad = torch.zeros_like(own) if sent is None else sent.detach().clone()
        self._adamw.step()
        decay = min(terms.ema, number / (number + 1))
        for held, own in zip(self._held, self._shadow, strict=True):
            held.lerp_(own.detach(), 1 - decay)

    def end(self) -> None:
        """Compare what is sent; compute the gradients of the spots again."""
        self.recording.end_drift = _apart(self.weights, self._held)
        kept = [weight.detach().clone() for weight in self.weights]
        for spot in self._spots:
            _put(self.weights, spot.weights)
            wrong = (self._again(spot) - spot.clipped).norm().item() / self.terms.clip
            self.recording.wrong = max(self.recording.wrong, wrong)
        self.recording.spots = len(self._spots)
        _put(self.weights, kept)

    def _again(self, spot: Spot) -> Tensor:
        """The clipped sum (d,) by plain autograd, one unit at a time."""
        total = torch.zeros_like(spot.clipped)
        for call in spot.calls:
            draw = torch.Generator()
            draw.set_state(call.generator)
            losses = self._loss(call.number, call.rows, draw)
            for unit in losses.view(-1, self.terms.rows).mean(1):
                parts = torch.autograd.grad(
                    unit, self.weights, retain_graph=True, allow_unused=True
                )
                one = torch.cat(
                    [
                        torch.zeros_like(w).flatten() if g is None else g.flatten()
                        for w, g in zip(self.weights, parts, strict=True)
                    ]
                ).double()
                norm = one.norm().item()
                if one.isfinite().all():
                    total += one * (self.terms.clip / max(self.terms.clip, norm))
        return total


@torch.no_grad()
def _apart(weights: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Largest distance of two values; inf where one is not finite."""
    found = max(
        (w.float() - o.float()).abs().max().item()
        for w, o in zip(weights, others, strict=True)
    )
    return found if found == found else torch.inf  # noqa: PLR0124  # NaN


@torch.no_grad()
def _put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
