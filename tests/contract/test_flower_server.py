"""What the coordinator relies on in Flower, seam by seam."""

import ast
import asyncio
import importlib.metadata
import inspect
import logging
import tomllib
import zipfile
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import HTTPException
from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore import constant
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.error.http import http_error_translator
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.cli.flower_superlink import _parse_superlink_lifespan_config
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.routers.fleet.router import router as fleet
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

import server
from server import flower, gates
from server.flower import clocks, doors, player
from server.flower import link as link_module
from server.flower.doors import Door
from server.flower.listener import Brisk
from server.flower.pushes import fair
from vgmedgen.trust.nodekeys import MOST_SKEW_S


def test_the_version_is_the_one_that_all_this_was_read_in():
    assert importlib.metadata.version("flwr") == "1.41.0"


def test_the_public_paths_are_flowers_without_registering():
    served = {route.path for route in fleet.routes}
    withheld = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert served - withheld == gates.FLEET


def test_the_bundle_holds_a_description_and_no_code():
    content = flower.bundle()
    assert content == flower.bundle()
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert archive.namelist() == ["pyproject.toml"]
        tomllib.loads(archive.read("pyproject.toml").decode())
    config = get_fab_config(content)  # as Flower reads and checks it
    assert get_metadata_from_config(config) == ("vgmedgen/vgmedgen", "1.0.0")
    assert config["tool"]["flwr"]["app"]["config"] == {flower.RUN_KEY: ""}


@pytest.fixture
def link(tmp_path):
    from vgmedgen.trust.certificates import make_authority, make_server

    authority = make_authority("test", 10)
    server = make_server(authority, ["localhost"], 10)
    for name, content in (
        ("ca.crt", authority.certificate_pem),
        ("server.crt", server.certificate_pem),
        ("server.key", server.key_pem),
        ("secret.bin", b"s" * 64),
    ):
        (tmp_path / name).write_bytes(content)
    return flower.Link(
        host="127.0.0.1",
        port=0,
        admin_port=2,
        ca=tmp_path / "ca.crt",
        certificate=tmp_path / "server.crt",
        key=tmp_path / "server.key",
        database=tmp_path / "superlink.db",
        secret=tmp_path / "secret.bin",
        token="t",  # noqa: S106
    )


def test_the_superlinks_settings_are_those_of_a_locked_down_one(link, monkeypatch):
    monkeypatch.setattr("sys.argv", ["flower-superlink", *link_module._arguments(link)])
    config = _parse_superlink_lifespan_config()
    assert config.enable_supernode_auth
    assert config.isolation == "process"
    assert config.runtime_dependency_install is False
    assert config.superexec_auth_secret == b"s" * 64
    assert (config.host, config.port) == ("127.0.0.1", 2)
    assert config.database == str(link.database)
    assert config.insecure is False


def test_what_is_patched_or_reached_into_is_still_there():
    assert hasattr(uvicorn.Server, "capture_signals")
    assert {"config", "superlink_lifespan_class"} <= set(
        inspect.signature(create_app).parameters
    )
    grid = HttpGrid("127.0.0.1:1", insecure=True, token="t")  # noqa: S106
    assert hasattr(grid, "_runtime_client")
    assert hasattr(grid._retry_invoker, "max_tries")


def test_the_names_that_the_gates_look_for_are_flowers():
    assert (constant.TASK_TOKEN_HEADER.encode(),) == gates.TASK_HEADERS
    names = ("TIMESTAMP", "NONCE", "BODY_SHA256", "SIGNATURE")
    assert (
        tuple(
            getattr(constant, f"SUPEREXEC_AUTH_{name}_HEADER").encode()
            for name in names
        )
        == gates.EXECUTOR_HEADERS
    )
    assert gates.MEDIA_TYPE.decode() == PROTOBUF_MEDIA_TYPE
    assert {gates.ACTIVATE, gates.PUSH, gates.PUSH_OBJECT} <= gates.FLEET


def test_a_key_that_is_not_registered_hears_what_flower_would_say():
    status, body = gates.NOT_ACTIVATED
    told = FlowerError.from_json(body.decode())
    assert told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
    spec = API_ERROR_MAP[told.code]
    assert (spec.http_status_code, spec.public_message) == (status, told.message)


def test_the_public_listener_serves_with_limits(link, monkeypatch):
    made = []

    async def kept(admin, public, doors):
        made.extend(server.config for server in (admin, public))
        for door in doors:
            assert isinstance(door, Door)  # nobody gets in uncounted
            door.close()

    monkeypatch.setattr(link_module, "_serve_both", kept)
    monkeypatch.setattr(link_module, "create_app", lambda *_: None)
    skews = flower.Skews(worth_s=30, registered=set, ahead=link.database)
    asyncio.run(flower.serve(link, skews=skews, refused=lambda *_: None))
    admin, public = made
    assert public.http is Brisk
    assert public.limit_concurrency > 2 * doors.MOST_STRANGERS
    assert public.h11_max_incomplete_event_size <= 2**16
    assert public.app._fair is fair  # whoever speaks for another is found
    for config in made:
        assert config.ws == "none"
        assert config.proxy_headers is False
    assert admin.host == "127.0.0.1"


def test_runs_are_played_over_the_grid_that_never_waits_for_a_reply():
    grid = player.PatientGrid("127.0.0.1:1", token="t")  # noqa: S106
    assert isinstance(grid, HttpGrid)
    assert {"node", "_run", "_client"} <= vars(grid).keys()
    assert hasattr(H11Protocol, "data_received")
    used = inspect.getsource(player.play)
    assert "PatientGrid(" in used


PARTS = [
    "cli",
    "common",
    "proto",
    "server",
    "simulation",
    "supercore",
    "superlink",
    "supernode",
]
INTERNAL = (*(f"flwr.{part}." for part in PARTS), "flwr.clientapp.client_app.")
ALLOWED = ("server/flower/", "client/flower/", "simulations/engine.py")


def test_flowers_internals_are_reached_from_one_place_on_each_side():
    root = Path(server.__file__).parent.parent
    found = []
    for folder in ("server", "client", "vgmedgen", "simulations"):
        for path in (root / folder).rglob("*.py"):
            name = path.relative_to(root).as_posix()
            for node in ast.walk(ast.parse(path.read_text())):
                wanted = getattr(node, "module", None) or ""
                inside = f"{wanted}.".startswith(INTERNAL)
                if isinstance(node, ast.ImportFrom) and inside:
                    found.append((name, wanted))
    outside = [pair for pair in found if not pair[0].startswith(ALLOWED)]
    assert not outside
    assert {name.split("/")[0] for name, _ in found} == {
        "server",
        "client",
        "simulations",
    }


def flower_takes(key, seconds):
    """Whether Flower's own check takes a request signed so many seconds ahead."""
    when = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    public = public_key_to_bytes(key.public_key())
    told = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public).decode(),
        TIMESTAMP_HEADER: when,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, when.encode())),
    }
    asked = ActivateNodeRequest(public_key=public)
    request = SimpleNamespace(
        headers=told, state=SimpleNamespace(protobuf_request=asked)
    )
    try:
        node_auth.authenticate_node(request)
    except HTTPException:
        return False
    return True


def test_flower_allows_other_clocks_than_we_say_and_ours_where_we_ask_it_to():
    key = ec.generate_private_key(ec.SECP384R1())
    seconds = (-400, -299, -290, 2, 30, 299, 400)
    assert [flower_takes(key, s) for s in seconds] == [
        *(False, True, True),
        *(True, False, False, False),
    ]
    with clocks.ours():
        assert [flower_takes(key, s) for s in seconds] == [
            *(False, True, True),
            *(True, True, True, False),
        ]
    source = inspect.getsource(link_module.serve)
    assert "with ours():\n        await _serve_both(" in source
    assert MOST_SKEW_S == 300  # as the READMEs say


def test_a_key_in_flowers_log_takes_no_five_lines(caplog):
    key = public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    said = f"Attempted to register SuperNode with public key: {key!r}, exception: no"
    record = logging.LogRecord("flwr", logging.ERROR, "", 0, "%s", (said,), None)
    owners = {key.hex(): "hospital-b"}
    assert link_module.Short(lambda k: owners.get(k, "")).filter(record)
    told = "Attempted to register SuperNode with public key: (the key of hospital-b), "
    assert record.getMessage() == f"{told}exception: no"
    stranger = logging.LogRecord("flwr", logging.ERROR, "", 0, "%s", (said,), None)
    assert link_module.Short(lambda _: "").filter(stranger)
    assert "public key: (its key), exception" in stranger.getMessage()


@pytest.mark.parametrize(
    ("path", "code", "kept"),
    [
        (gates.ACTIVATE, ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL, False),
        (gates.ACTIVATE, ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, True),
        (gates.PUSH, ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL, True),
    ],
)
def test_a_node_that_only_asks_leaves_no_error_in_the_log(path, code, kept):
    told = []

    class Kept(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    logger, handler, only_asks = logging.getLogger("flwr"), Kept(), link_module.Asked()
    logger.addHandler(handler)
    logger.addFilter(only_asks)
    try:
        request = Request({"type": "http", "path": path, "headers": []})
        asyncio.run(http_error_translator(request, _refuse(code)))
    finally:
        logger.removeHandler(handler)
        logger.removeFilter(only_asks)
    assert bool(told) is kept


def _refuse(code):
    async def refuse(_):
        raise FlowerError(code, "no")

    return refuse


@pytest.mark.parametrize(("status", "sent_again"), [(500, True), (503, True)])
def test_a_runs_heartbeats_outlive_what_a_full_disk_answers(status, sent_again):
    assert player._patient(answering(status))() is not sent_again


def test_a_runs_heartbeats_end_where_flower_says_so():
    with pytest.raises(httpx.HTTPStatusError):
        player._patient(answering(401))()
    assert player._patient(lambda: True)()


def answering(status):
    request = httpx.Request("POST", "http://localhost")
    return httpx.Response(status, request=request).raise_for_status
