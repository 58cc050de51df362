"""What the preflight finds on the way to the coordinator."""
# ruff: noqa: F401, F811 - fixtures are imported by name

import shutil
import threading
import time

import pytest

from client.preflight import network
from tests.loopback import HOST, coordinator, proxy, rude, server_files
from tests.preflights import (
    NETWORK,
    images,
    kit,
    no_proxy,
    quick,
    served,
    site,
    warned,
    write,
    wrong,
)
from vgmedgen.trust import nodekeys


def test_a_closed_port_is_unreachable_and_nothing_else_is_wrong(site):
    found = quick(site)
    assert wrong(found) == NETWORK
    assert all(found[name].unreachable for name in NETWORK)
    assert "nothing listens" in found["port"].told
    assert found["TLS"].told == "not examined: it needs 'port'"


def test_an_address_that_is_none_is_a_fault_of_the_site(site):
    for address in ("", "fl.example.org"):
        write(site, address=address)
        found = quick(site)
        assert wrong(found) == NETWORK
        assert not any(found[name].unreachable for name in NETWORK)
        assert "not host:port" in found["port"].told


def test_a_silent_server_is_given_up_in_time(site, monkeypatch):
    monkeypatch.setattr(network, "TIMEOUT_S", 0.5)
    with rude(silent=True) as port:
        write(site, address=f"{HOST}:{port}")
        found = quick(site)  # else it would not come back
    assert found["port"].ok
    assert found["TLS"].unreachable
    assert wrong(found) == NETWORK - {"port"}


def test_a_server_without_tls_is_known_as_one(site, kit):
    with coordinator(None) as port:
        write(site, address=f"{HOST}:{port}")
        found = quick(site)
    assert found["port"].ok
    assert "not with TLS" in found["TLS"].told
    assert not found["TLS"].unreachable


def test_an_expired_certificate_is_told_with_its_day(site, kit):
    with served(site, kit, days=10, ago=20):
        found = quick(site)
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 10 * 86400))
    assert f"expired on {day}" in found["TLS"].told
    assert wrong(found) == NETWORK - {"port"}


def test_a_certificate_that_expires_soon_is_a_warning(site, kit):
    with served(site, kit, days=12):
        found = quick(site)
    assert wrong(found) == set()
    assert warned(found) == {"TLS"}
    assert "in 11 days" in found["TLS"].told


def test_a_certificate_by_another_ca_is_not_trusted(site, kit):
    shutil.copy(kit[0] / "other.crt", site / "ca.crt")
    with served(site, kit):
        found = quick(site)
    assert "not by the CA" in found["TLS"].told
    assert found["CA certificate"].ok
    assert not found["registered"].ok  # the key signs nothing for a stranger


@pytest.mark.parametrize("hosts", [("fl.example.org", "10.1.2.3"), ("localhost",)])
def test_a_certificate_of_another_name_is_told_with_its_names(site, kit, hosts):
    with served(site, kit, hosts=hosts):
        found = quick(site)
    assert f"is for {', '.join(hosts)}, not for {HOST}" in found["TLS"].told


@pytest.mark.parametrize(("ahead", "way"), [(600, "behind"), (-600, "ahead of")])
def test_a_clock_that_is_off_is_told_with_seconds_and_direction(site, kit, ahead, way):
    with served(site, kit, ahead=ahead):
        found = quick(site)
    assert wrong(found) == {"clock", "registered"}
    assert "it needs 'clock'" in found["registered"].told  # one cause, told once
    seconds = int(found["clock"].told.split(" s ")[0].split()[-1])
    assert abs(seconds - 600) <= 2
    assert f"s {way} the coordinator's" in found["clock"].told


def test_a_clock_within_a_minute_is_fit_and_within_five_is_told(site, kit):
    for ahead in (50, -50):
        with served(site, kit, ahead=ahead):
            found = quick(site)
        assert wrong(found) == warned(found) == set()
    for ahead in (280, -280):
        with served(site, kit, ahead=ahead):
            found = quick(site)
        assert wrong(found) == set()
        assert warned(found) == {"clock"}
        assert "300 s are allowed either way" in found["clock"].told


def test_a_server_that_tells_no_time_is_a_warning(site, kit):
    with served(site, kit, ahead=None):
        assert warned(quick(site)) == {"clock"}


def test_a_server_that_is_no_coordinator_is_told(site, kit):
    for status, lost in ((404, False), (502, True)):
        with served(site, kit, health=status):
            found = quick(site)["clock"]
        assert not found.ok
        assert f"status {status}" in found.told
        assert found.unreachable == lost


@pytest.mark.parametrize(
    ("fleet", "told"),
    [
        (
            (412, {"code": 2004, "detail": "Failed"}),
            "does not know this node's key SHA256:",
        ),
        ((401, {"detail": "Invalid SuperNode authentication"}), "registered no more"),
        ((425, {}), "clock of this machine is more than 300 s"),
        ((404, {"detail": "Not Found"}), "no coordinator"),
        ((200, ""), "answers otherwise than Flower"),
    ],
)
def test_a_key_that_is_not_registered_is_told(site, kit, fleet, told):
    with served(site, kit, fleet=fleet):
        found = quick(site)
    assert wrong(found) == {"registered"}
    assert told in found["registered"].told + found["registered"].todo


def test_a_proxy_is_gone_through_as_the_node_would(site, kit, monkeypatch):
    with served(site, kit) as port, proxy() as (way, asked):
        monkeypatch.setenv("https_proxy", f"http://user:s3cret@{HOST}:{way}")
        found = quick(site)
        assert wrong(found) == set()
        assert f"through the proxy {HOST}:{way}" in found["port"].told
        assert not any("s3cret" in str(finding) for finding in found.values())
        assert len(asked) >= 4
        assert {to for to, _ in asked} == {f"{HOST}:{port}"}
        assert {login for _, login in asked} == {"Basic dXNlcjpzM2NyZXQ="}
        asked.clear()
        monkeypatch.setenv("no_proxy", HOST)
        assert wrong(quick(site)) == set()
        assert not asked


@pytest.fixture(scope="module")
def superlink(kit):
    """Flower's own server on loopback, with TLS: its state, and its port."""
    import uvicorn
    from flwr.superlink.main import create_app

    from server.gates import PublicGate

    pair = server_files(*kit)
    app = create_app()
    server = uvicorn.Server(
        uvicorn.Config(
            PublicGate(app, look=lambda _: None, refused=lambda *_: None),
            host=HOST,
            port=0,
            lifespan="off",
            log_level="error",
            ssl_certfile=str(pair.certificate),
            ssl_keyfile=str(pair.key),
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield app.state.linkstate_factory.state(), port
    server.should_exit = True
    thread.join()


def register(state, site):
    public = nodekeys.public_bytes(site / "node.pub")
    known = state.get_node_id_by_public_key(public)
    return known or state.create_node("someone", "someone", public, 30)


def status_of(state, node):
    (info,) = state.get_node_info(node_ids=[node])
    return info.status, info.last_activated_at, info.last_deactivated_at


def test_flower_tells_a_registered_key_from_another_and_joins_neither(
    site, superlink, monkeypatch
):
    monkeypatch.setattr(network, "TIMEOUT_S", 10)
    state, port = superlink
    write(site, address=f"{HOST}:{port}")
    found = quick(site)
    assert wrong(found) == {"registered"}
    assert "does not know this node's key" in found["registered"].told
    assert not state.get_node_info()

    node = register(state, site)
    before = status_of(state, node)
    assert before[0] == "registered"
    found = quick(site)
    assert wrong(found) == set()
    assert "the coordinator knows SHA256:" in found["registered"].told
    assert status_of(state, node) == before

    # nor does it disturb a node that serves
    assert state.activate_node(node, 30)
    before = status_of(state, node)
    assert before[0] == "online"
    assert wrong(quick(site)) == set()
    assert status_of(state, node) == before


def test_a_flower_that_would_let_it_join_is_left_again(site, kit, monkeypatch):
    from flwr.supernode.fleet_http_client import FleetHttpClient

    from client.flower import known

    left = []
    monkeypatch.setattr(
        FleetHttpClient,
        "ActivateNode",
        lambda self, asked: type("Taken", (), {"node_id": 7})(),
    )
    monkeypatch.setattr(
        FleetHttpClient,
        "DeactivateNode",
        lambda self, asked: left.append(asked.node_id),
    )
    with served(site, kit):
        found = quick(site)
    assert left == [7]
    assert wrong(found) == {"registered"}
    assert "activated a node" in found["registered"].told
    assert known.NO_INTERVAL == 0
