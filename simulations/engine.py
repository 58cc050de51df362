"""Runs the real server and client apps through Flower's own simulation engine.

Everything that touches Flower's internals for simulation is here. `ray` gives every
virtual site a process of its own; `inproc` replaces Ray's backend by one that calls the
client app in this process, one site at a time, and starts at once.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, TypeVar
from unittest import mock

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.server.superlink.fleet.vce.backend.backend import Backend, BackendConfig
from flwr.serverapp import Grid, ServerApp
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore.run import Run
from flwr.supercore.telemetry import EventType

from server.launch import Launch
from vgmedgen.config.run import RunSection
from vgmedgen.errors import VGMedGenError
from vgmedgen.process.environment import OFFLINE
from vgmedgen.process.threads import of_each, usable

log = logging.getLogger(__name__)

Result = TypeVar("Result")

POLL_S = 0.2  # how soon the end of the engine is noticed
RAY_BACKEND = "flwr.server.superlink.fleet.vce.backend.raybackend"
SITES_FOLDER = "VGMEDGEN_SITES"  # where the client app finds the folders of its sites
_OFFLINE = OFFLINE | {"RAY_USAGE_STATS_ENABLED": "0"}


def run(launch: Launch, folders: Sequence[Path], section: RunSection) -> None:
    """Play a whole run, with one virtual site per folder.

    Args:
        launch: as prepared; the number of sites to wait for is filled in here.
        folders: of the sites, all with the same parent.
        section: engine, device and threads.

    Raises:
        VGMedGenError: whatever the server app refuses; what was done stays.
    """
    from client.app import app as client_app  # noqa: PLC0415 - costs seconds
    from server.app import RUN_FILE  # noqa: PLC0415
    from server.app import app as server_app  # noqa: PLC0415

    (parent,) = {folder.resolve().parent for folder in folders}
    replace(launch, sites=len(folders)).save()
    with environment({SITES_FOLDER: str(parent)}):
        drive(
            server_app,
            client_app,
            sites=len(folders),
            run_config={RUN_FILE: str(launch.path)},
            engine=section.engine,
            threads=section.threads,
            gpus=0.0 if section.device == "cpu" else float(_has_gpu()),
        )


def drive(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    sites: int,
    run_config: Mapping[str, UserConfigValue],
    engine: str = "inproc",
    threads: int = 0,
    gpus: float = 0.0,
) -> None:
    """Run two Flower apps against each other until the server app is done.

    Args:
        server_app: gets `run_config` in its context.
        client_app: gets only `partition-id` and `num-partitions`, from 0.
        sites: number of virtual sites.
        run_config: of the server app.
        engine: inproc or ray.
        threads: cores that Ray keeps for each site; 0 is one.
        gpus: share of a GPU that Ray keeps for each site.

    Raises:
        Exception: whatever the server app raised, as it was raised.
        VGMedGenError: if the engine itself gave up.
    """
    failures: list[BaseException] = []
    stop = threading.Event()
    context = Context(
        run_id=0,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )

    def simulate() -> None:
        _run_simulation(
            num_supernodes=sites,
            exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            client_app=client_app,
            server_app=_watched(server_app, stop, failures),
            backend_name=engine,
            backend_config=_resources(threads, gpus),
            server_app_context=context,
        )

    backend = apart(threads) if engine == "ray" else in_process()
    with environment(_OFFLINE), _quiet(), backend as bench:
        try:
            simulate() if bench is None else bench.serve(simulate)
        except Exception as error:
            stop.set()
            if not failures:
                raise VGMedGenError(
                    f"Flower's {engine} engine stopped: {error.__cause__ or error}; "
                    "the log above says why; start the run again to go on"
                ) from error
        finally:
            stop.set()
    if failures:
        raise failures[0]


class Bench:
    """Where the engine's threads leave work for the thread that called `drive`.

    Torch keeps a team of threads per calling thread: work on a second one shares the
    cores with the idle team of the first, and took 1.7 times as long.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def ask(self, work: Callable[[], Result]) -> Result:
        """Have `work` done on the serving thread; returns or raises what it does."""
        done: Future[Result] = Future()

        def settle() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again by the asker
                done.set_exception(error)

        self._work.put(settle)
        return done.result()

    def serve(self, engine: Callable[[], None]) -> None:
        """Run `engine` on a thread of its own, and its work here, until it ends.

        Raises:
            Exception: what the engine raised.
        """
        ended: Future[None] = Future()

        def run_engine() -> None:
            try:
                engine()
                ended.set_result(None)
            except BaseException as error:  # noqa: BLE001 - raised again below
                ended.set_exception(error)

        thread = threading.Thread(target=run_engine, daemon=True)
        thread.start()
        while not ended.done():
            with suppress(Empty):
                self._work.get(timeout=POLL_S)()
        ended.result()


@contextmanager
def apart(threads: int) -> Iterator[None]:
    """Ray's processes as ours are: their own share of threads, installed code only.

    Ray has its workers look for modules in the working folder first, unless it was given
    another one to work in.
    """
    from ray.job_config import JobConfig  # noqa: PLC0415 - costs a second

    elsewhere = mock.patch.object(
        JobConfig, "_runtime_env_has_working_dir", return_value=True
    )
    with environment(of_each(threads, os.environ)), elsewhere:
        yield


@contextmanager
def in_process() -> Iterator[Bench]:
    """Put a backend without Ray where Flower's engine imports Ray's, and take it back.

    Flower 1.41 names the backend in an import statement, so the module is what there is
    to replace; `tests/contract/test_flower.py` holds the seam.
    """
    bench = Bench()
    module = ModuleType(RAY_BACKEND)
    module.RayBackend = partial(InProcess, bench)  # type: ignore[attr-defined]
    held = sys.modules.get(RAY_BACKEND)
    sys.modules[RAY_BACKEND] = module
    try:
        yield bench
    finally:
        if held is None:
            del sys.modules[RAY_BACKEND]
        else:
            sys.modules[RAY_BACKEND] = held


class InProcess(Backend):
    """Calls the client app in this process, one message at a time."""

    def __init__(self, bench: Bench, backend_config: BackendConfig) -> None:
        super().__init__(backend_config)
        self._bench = bench
        self._app: ClientApp | None = None

    @property
    def num_workers(self) -> int:
        """One: the sites of a process share its models."""
        return 1

    def build(self, app_fn: Callable[[], ClientApp]) -> None:
        """Load the client app."""
        self._app = app_fn()

    def is_worker_idle(self) -> bool:
        """Whether a message could be taken; the engine never asks while one is."""
        return True

    def terminate(self) -> None:
        """Nothing was started."""

    def process_message(
        self, message: Message, context: Context
    ) -> tuple[Message, Context]:
        """Answer `message` as the site of `context`."""
        app = self._app
        if app is None:
            raise ValueError("build comes before process_message")
        try:
            reply = self._bench.ask(lambda: app(message=message, context=context))
        except Exception as error:
            raise ClientAppException(type(error).__name__) from error
        return reply, context


class _Watched(Grid):
    """A grid that ends the server app's waiting once the engine is gone."""

    def __init__(self, grid: Grid, stop: threading.Event) -> None:
        self._grid = grid
        self._stop = stop

    def set_run(self, run: Run) -> None:
        """Hand on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Hand on."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:  # noqa: ANN401
        """Hand on."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Hand on, unless the engine is gone."""
        self._check()
        return self._grid.get_node_ids()

    def get_nodes(self) -> Any:  # noqa: ANN401 - a protobuf type of Flower
        """Hand on."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand on, unless the engine is gone."""
        self._check()
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Hand on."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def _check(self) -> None:
        if self._stop.is_set():
            raise VGMedGenError("Flower's engine stopped before the run was done")


def _watched(
    server_app: ServerApp, stop: threading.Event, failures: list[BaseException]
) -> ServerApp:
    """The server app, its exception kept: the engine would wait and wrap it."""
    outer = ServerApp()

    @outer.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            server_app(_Watched(grid, stop), context)
        except BaseException as error:  # noqa: BLE001 - raised again by `drive`
            failures.append(error)

    return outer


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put everything back afterwards."""
    held = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in set(os.environ) - set(held):
            del os.environ[name]
        os.environ.update(held)


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower's own log at warnings; ours says what happens."""
    logger = logging.getLogger("flwr")
    held = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(held)


def _resources(threads: int, gpus: float) -> BackendConfig:
    cores = usable()
    return {
        "client_resources": {"num_cpus": min(max(threads, 1), cores), "num_gpus": gpus},
        # Without a cap Ray takes every core that it sees, and starts a dashboard.
        "init_args": {"num_cpus": cores, "include_dashboard": False},
    }


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415 - costs seconds

    return torch.cuda.is_available()
