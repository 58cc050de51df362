"""Writes the messages of a run."""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from server.launch import Launch
from server.weights import Weights
from vgmedgen.exchange.payload import pack
from vgmedgen.exchange.wire import DOWN, Kind


def hello(launch: Launch) -> RecordDict:
    """Ask a node who it is."""
    return RecordDict({DOWN[Kind.HELLO].record: ConfigRecord({**_words(launch)})})


def order(
    launch: Launch, kind: Kind, number: int, weights: Weights, manifest: str = ""
) -> RecordDict:
    """Ask a site to train, evaluate or install.

    Args:
        launch: the run.
        kind: of the message.
        number: round, from 1.
        weights: both groups.
        manifest: of the release, JSON; where `kind` is install.

    Raises:
        ExchangeError: if the weights are not the schema's, or not finite in float16.
    """
    words = _words(launch) | round_words(launch, number)
    if manifest:
        words["manifest"] = manifest
    flats = ArrayRecord(
        {
            group: Array(pack(weights[group], specs))
            for group, specs in launch.schema.down().items()
        }
    )
    form = DOWN[kind]
    return RecordDict({form.record: ConfigRecord({**words}), form.arrays: flats})


def round_words(launch: Launch, number: int) -> dict[str, str]:
    """What names a round in a message."""
    federation = launch.config.federation
    stage = federation.stage(number)
    turn = federation.turn(number)
    return {"round": str(number), "turn": str(turn), "stage": stage}


def _words(launch: Launch) -> dict[str, str]:
    return {
        **launch.asked(),
        "plan": launch.config.plan.to_json(),
        "coordinator": launch.coordinator,
        "signature": launch.signature,
    }
