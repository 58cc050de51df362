"""The two processes of a node: the SuperNode that carries, the runner that works.

Started by `client.supervisor` as `python -m client.node ROLE FOLDER`; they end when it
does. Secrets come through files, never through the command line.
"""

import logging
import os
import sys
from pathlib import Path

from vgmedgen.errors import VGMedGenError
from vgmedgen.process import environment, logs
from vgmedgen.process.children import follow_keeper
from vgmedgen.site.config import FILE, load_config
from vgmedgen.trust.files import read_secret

log = logging.getLogger(__name__)

PORT = "VGMEDGEN_RUNTIME_PORT"  # environment: runtime API of the SuperNode, on loopback
SECRET = "secret.bin"  # noqa: S105 - the name of a file
CONFIRMED = "the coordinator confirmed a heartbeat"  # a SuperNode says; see TAKEN
TAKEN = "a message is being answered"  # a runner says; the supervisor listens for it
DETAILS = "details.log"  # what a log line leaves out: it may name a file or a patient


def supernode(folder: Path) -> None:
    """Carry messages between the coordinator and this site."""
    from client.flower import run_supernode  # noqa: PLC0415 - costs a second

    ask = load_config(folder / FILE).coordinator
    run_supernode(
        address=ask.address,
        ca=folder / ask.ca,
        key=folder / ask.key,
        port=int(os.environ[PORT]),
        secret=folder / "node" / SECRET,
    )


def runner(folder: Path) -> None:
    """Answer messages with the client app that is installed here."""
    from client.app import app  # noqa: PLC0415 - costs seconds
    from client.flower import Answering, run_tasks  # noqa: PLC0415
    from client.site import dropped_of, look_of, warm  # noqa: PLC0415

    site = warm(folder)
    answering = Answering(
        app=lambda message, context: app(message=message, context=context),
        look=look_of(site),
        dropped=dropped_of(site),
        folder=folder,
    )
    run_tasks(int(os.environ[PORT]), read_secret(folder / "node" / SECRET), answering)


def main() -> None:
    """Be what the command line names."""
    environment.settle()
    role, name = sys.argv[1:]
    folder = Path(name)
    logs.child(folder / "node" / DETAILS)
    follow_keeper()
    try:
        {"supernode": supernode, "runner": runner}[role](folder)
    except Exception as error:
        # its text may name a file or a patient, and the keeper logs all that is said
        code = error.code if isinstance(error, VGMedGenError) else VGMedGenError.code
        log.exception("the %s ended (%s); %s says why", role, code, DETAILS)
    # neither ever ends by itself; a thread that goes on would keep the process, and with
    # it the look of a node that works
    logging.shutdown()
    os._exit(1)


if __name__ == "__main__":
    main()
