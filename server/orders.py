"""Writes the messages of a run, and signs them."""

from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from server.launch import Launch
from server.weights import Weights
from vgmedgen.errors import TrustError
from vgmedgen.exchange.payload import pack
from vgmedgen.exchange.schema import PROTOCOL
from vgmedgen.exchange.wire import DOWN, Kind, to_sign
from vgmedgen.trust import warrant
from vgmedgen.trust.signing import SigningKey


@dataclass(frozen=True)
class Orders:
    """The messages of one run."""

    launch: Launch
    key: SigningKey | None = None  # of the coordinator; a simulation has none

    def __post_init__(self) -> None:
        """Check that the key is the one that the run was announced under.

        Raises:
            TrustError: if it is another, or missing.
        """
        if self.launch.coordinator != (self.key.public if self.key else ""):
            raise TrustError(
                f"run {self.launch.run} was prepared under another signing key; put that "
                "one back, or start the run under another name"
            )

    def hello(self) -> RecordDict:
        """Ask a node who it is.

        A hello signs its own words only, the plan among them: all that a site decides on.
        """
        return self._signed(Kind.HELLO, self._words())

    def order(
        self,
        kind: Kind,
        number: int,
        weights: Weights,
        manifest: str = "",
        signature: str = "",
    ) -> RecordDict:
        """Ask a site to train, evaluate or install.

        Args:
            kind: of the message.
            number: round, from 1.
            weights: both groups.
            manifest: of the release, JSON; where `kind` is install.
            signature: of the release, JSON; empty in a simulation.

        Raises:
            ExchangeError: if the weights are not the schema's, or not finite in float16.
        """
        words = self._words() | round_words(self.launch, number)
        if manifest:
            words |= {"manifest": manifest, "release-signature": signature}
        flats = ArrayRecord(
            {
                group: Array(pack(weights[group], specs))
                for group, specs in self.launch.schema.down().items()
            }
        )
        return self._signed(kind, words, flats)

    def _words(self) -> dict[str, str]:
        launch = self.launch
        return {
            "protocol": PROTOCOL,
            "run": launch.run,
            "base": launch.base_digest,
            "exchange": launch.schema.digest,
            "plan-digest": launch.config.plan.digest,
            "plan": launch.config.plan.to_json(),
            "coordinator": launch.coordinator,
        }

    def _signed(
        self, kind: Kind, words: dict[str, str], flats: ArrayRecord | None = None
    ) -> RecordDict:
        form = DOWN[kind]
        content = RecordDict({form.record: ConfigRecord({**words})})
        if flats is not None:
            content[form.arrays] = flats
        signature = warrant.sign(self.key, to_sign(kind, content)) if self.key else ""
        content[form.record] = ConfigRecord({**words, warrant.SIGNATURE: signature})
        return content


def round_words(launch: Launch, number: int) -> dict[str, str]:
    """What names a round in a message."""
    federation = launch.config.federation
    stage = federation.stage(number)
    turn = federation.turn(number)
    return {"round": str(number), "turn": str(turn), "stage": stage}
