"""What the client app needs of a site, and how it gets at one."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flwr.app import Context

from vgmedgen.config.plan import RunPlan
from vgmedgen.exchange.schema import ExchangeSchema
from vgmedgen.release.signature import Signature
from vgmedgen.site.config import Policy, SitePrivacy
from vgmedgen.training.order import Order, Outcome


class Site(Protocol):
    """One hospital's data, models and folder, as the messages see it."""

    @property
    def name(self) -> str:
        """Pseudonym of the site: lower case, digits, hyphens, at most 40."""
        ...

    @property
    def folder(self) -> Path:
        """Where everything durable of the site lies."""
        ...

    @property
    def policy(self) -> Policy:
        """What the hospital lets a run do, as its file says now."""
        ...

    @property
    def privacy(self) -> SitePrivacy:
        """The site's own limit over all runs, as its file says now."""
        ...

    @property
    def units(self) -> int:
        """Units that train; read without preparing a sample."""
        ...

    @property
    def base_digest(self) -> str:
        """Digest of the site's own base bundle."""
        ...

    @property
    def booked(self) -> frozenset[tuple[str, int]]:
        """Run and round of all that the ledger holds.

        Raises:
            StateError: if the ledger is damaged, moved or another site's.
        """
        ...

    @property
    def mark(self) -> str:
        """How far the ledger has come, as it may be told (`vgmedgen.privacy.mark`)."""
        ...

    def schema(self, plan: RunPlan) -> ExchangeSchema:
        """The tensors that may leave, built from the site's own base bundle."""
        ...

    def train(self, order: Order) -> Outcome:
        """Train one round; the state is the group that the order's stage sends."""
        ...

    def rehearse(self, order: Order) -> Outcome:
        """Train one round for the hospital's eyes: nothing is booked, nothing is kept."""
        ...

    def evaluate(self, order: Order) -> Outcome:
        """Held-out units and loss sum of the order's weights; the state is empty."""
        ...

    def install(
        self, order: Order, manifest: str, signature: Signature | None = None
    ) -> str:
        """Install a release from its weights and manifest, JSON; returns its digest."""
        ...


OpenSite = Callable[[Context], Site]
"""Opens the site of a node by what its operator set; cheap when called again."""
