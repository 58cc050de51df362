"""Looks at a coordinator again and again, whether its server runs, stops or restarts."""

from typing import Self

from server import place
from server.kits import Kits
from server.status import Control, Status, gather
from vgmedgen.errors import TrustError, UnreachableError


class Looking:
    """Gathers a status when called; holds a connection while the server is the same."""

    def __init__(self, kits: Kits) -> None:
        self._kits = kits
        self._server: tuple[int, str] | None = None  # port and token of this start
        self._control: Control | None = None

    def __call__(self) -> Status:
        """Look once."""
        try:
            server = place.ports(self._kits.state).admin, place.token(self._kits.state)
        except (UnreachableError, TrustError):
            server = None
        if server != self._server:
            self._connect(server)
        return gather(self._kits, self._control)

    def _connect(self, server: tuple[int, str] | None) -> None:
        self._let_go()
        self._server = server
        if server is not None:
            from server.flower import Control as Flower  # noqa: PLC0415 - costs a second

            self._control = Flower(*server)

    def _let_go(self) -> None:
        close = getattr(self._control, "close", None)
        if close is not None:
            close()
        self._control = None

    def __enter__(self) -> Self:
        """Nothing is opened before the first look."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection."""
        self._let_go()
