"""What all checks and attacks say together, in words for whoever answers for the data."""

from collections.abc import Sequence
from dataclasses import dataclass

from vgmedgen.audit.canaries import Canaries
from vgmedgen.audit.conformance import Finding
from vgmedgen.audit.copies import Copies
from vgmedgen.audit.inversion import CLEAR, Recovered
from vgmedgen.audit.membership import Membership
from vgmedgen.audit.twins import Twin

CONFIDENCE = 0.95  # of all lower bounds together
GREEN, AMBER, RED = "green", "amber", "red"
NO_PROOF = (
    "An attack that finds nothing is no proof that there is nothing to find: a stronger "
    "one may exist. What protects is the noise, and the checks say whether it is there."
)
SMALL = 0.05  # below it a lower bound says nothing


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is promised to each unit."""

    epsilon: float
    delta: float
    unit: str
    accountant: str
    scope: str  # such as: all runs of this site

    def told(self) -> str:
        """With everything that an epsilon means nothing without."""
        return f"epsilon \N{LESS-THAN OR EQUAL TO} {self.epsilon:.2g} ({self.terms()})"

    def terms(self) -> str:
        """Unit, delta, accountant and scope."""
        return (
            f"{level(self.unit)}, delta {self.delta:g}, accountant {self.accountant}, "
            f"{self.scope}"
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that an audit found."""

    claim: Claim | None  # of the site; None: no epsilon is promised
    planned: Claim | None  # of the plan that canaries train under
    why: str  # there is no claim; else empty
    unit: str
    conformance: Sequence[Finding] = ()
    membership: Sequence[Membership] = ()
    canaries: Sequence[Canaries] = ()
    recovered: Sequence[Recovered] = ()
    copies: Copies | None = None
    twins: Sequence[Twin] = ()
    skipped: Sequence[str] = ()  # parts that did not run, and why


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The end of an audit."""

    colour: str  # green | amber | red
    headline: str
    reasons: tuple[str, ...]  # why it is not green
    cautions: tuple[str, ...]  # what it does not say
    proven: float  # the largest lower bound of epsilon
    strongest: str  # the attack behind it


def level(unit: str) -> str:
    """The unit as it stands beside every epsilon."""
    return f"{unit}-level" if unit == "image" else f"per {unit}"


def judge(found: Evidence) -> Verdict:
    """Red: a claim that is not kept. Amber: no claim, or canaries that can refute none.

    Green: the checks passed, and nothing that was tried came above the claim.
    """
    proven, strongest = _strongest(found)
    broken = [*_broken(found), *_above(found)]
    if found.copies is not None and found.copies.memorised():
        broken.append(_copied(found.copies))
    weak = _weak(found)
    colour = RED if broken else AMBER if found.claim is None or weak else GREEN
    reasons = [*broken, *weak]
    if found.claim is None:
        reasons.append(found.why)
    return Verdict(
        colour=colour,
        headline=_headline(found, proven, strongest, colour),
        reasons=tuple(reasons),
        cautions=tuple(_cautions(found, proven)),
        proven=proven,
        strongest=strongest,
    )


def _strongest(found: Evidence) -> tuple[float, str]:
    bounds = [(one.proven.epsilon, _name(one)) for one in found.canaries]
    bounds += [
        (one.curve.epsilon, _name(one))
        for one in found.canaries
        if one.curve is not None
    ]
    bounds += [(one.epsilon, _name(one)) for one in found.membership]
    return max(bounds, default=(0.0, "none"))


def _name(one: Canaries | Membership) -> str:
    if isinstance(one, Canaries):
        return f"planted canaries in the training '{one.training}'"
    return f"membership by the losses of {one.attack}, {one.model}"


def _broken(found: Evidence) -> list[str]:
    return [
        f"The engine failed a check, so no epsilon of it holds: {one.name}: {one.told}."
        for one in found.conformance
        if not one.passed
    ]


def _above(found: Evidence) -> list[str]:
    pairs: list[tuple[Canaries | Membership, float, Claim | None]] = [
        (one, one.proven.epsilon, found.planned) for one in found.canaries
    ]
    pairs += [(one, one.epsilon, found.claim) for one in found.membership]
    above = [
        f"An attack proves at least {bound:.2g}, above the claimed {claim.told()}: "
        f"{_name(one)}."
        for one, bound, claim in pairs
        if claim is not None and bound > claim.epsilon
    ]
    above += [
        f"Planted canaries rule out the noise of the plan in the training "
        f"'{one.training}': it would cost at least {one.curve.epsilon:.2g}, the plan gives "
        f"it {one.cost:.2g}."
        for one in found.canaries
        if one.curve is not None
        and one.cost is not None
        and one.curve.epsilon >= one.cost
    ]
    return above


def _weak(found: Evidence) -> list[str]:
    """Canaries so few that even perfect guesses could not exceed the claim."""
    return [
        f"The canaries in the training '{one.training}' could not have turned this red: "
        f"with every guess right they would prove {one.curve_ceiling:.2g}, and the claim "
        f"for it is {one.cost:.2g}."
        for one in found.canaries
        if one.curve_ceiling is not None
        and one.cost is not None
        and one.curve_ceiling < one.cost
    ]


def _copied(copies: Copies) -> str:
    told = (
        f"{copies.flagged} of {copies.images} synthetic images lie nearer to a training "
        f"image than {1 - copies.expected:.0%} of held-out images do"
    )
    if copies.near:
        told += f", {copies.near} of them so near that chance does not explain it"
    return f"{told}: the model repeats patients; do not let these images out."


def _headline(found: Evidence, proven: float, strongest: str, colour: str) -> str:
    attack = (
        f"the strongest attack we ran proves at least {proven:.1f} "
        f"({CONFIDENCE:.0%} confidence; {strongest})"
        if proven >= SMALL
        else "no attack that we ran proves anything"
    )
    if found.claim is None:
        return f"No epsilon is claimed; {attack}."
    told = f"Claimed {found.claim.told()}; {attack}."
    return f"{told} The claim does not hold as it stands." if colour == RED else told


def _cautions(found: Evidence, proven: float) -> list[str]:
    told = [NO_PROOF]
    if proven < SMALL and (found.canaries or found.membership):
        told.append(
            "With this many units and canaries an attack can prove small epsilons only."
        )
    if found.unit == "image":
        told.append(
            "The unit is the image (image-level): a patient with several images is "
            "protected less than the number says."
        )
    elif found.unit == "lesion":
        told.append("The unit is the lesion: a patient may have several of them.")
    told += [
        f"Membership by the losses of {one.attack} ({one.model}) proves nothing here: the "
        "base, which saw neither side, tells members from held-out units as well."
        for one in found.membership
        if not one.comparable
    ]
    clear = [one for one in found.recovered if one.open_match >= CLEAR]
    if clear and found.planned is None:
        told.append(
            f"{len(clear)} of {len(found.recovered)} images were recovered recognisably "
            "from one bare update: whoever sees a single step of one patient sees the "
            "patient."
        )
    if found.twins:
        told.append(
            f"{len(found.twins)} held-out images show the picture of a training image "
            "(mirrored, turned, cropped or alike); they are named below and left out of "
            "all comparisons. Join their units: `vgmedgen data twins`."
        )
    told += [f"Not run: {one}." for one in found.skipped]
    return told
