"""A proxy between a site and its coordinator that is dead, closed, or none at all."""
# ruff: noqa: F811 - fixtures are imported by name

import ssl

import pytest

from client.connection import explain_exit
from client.flower import registered
from client.proxy import Proxy, proxy_of
from tests.loopback import HOST, closed_port, proxy
from tests.preflights import (
    NETWORK,
    images,  # noqa: F401
    kit,  # noqa: F401
    no_proxy,  # noqa: F401
    quick,
    served,
    site,  # noqa: F401
    wrong,
)
from vgmedgen.errors import ConfigError, UnreachableError
from vgmedgen.trust import nodekeys

SECRET = "s3cret"  # noqa: S105
VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_dead_proxy_is_told_with_the_variable_that_names_it(
    site, kit, monkeypatch, variable
):
    with served(site, kit):
        assert wrong(quick(site)) == set()
        way = closed_port()
        monkeypatch.setenv(variable, f"http://user:{SECRET}@{HOST}:{way}")
        found = quick(site)
    assert wrong(found) == NETWORK
    assert all(found[name].unreachable for name in NETWORK)
    told = found["port"].told + found["port"].todo
    assert f"the proxy {HOST}:{way} (of {variable}) does not answer" in told
    assert "nothing listens at localhost" not in told
    assert "no_proxy" in told
    assert SECRET not in str(found)


def test_a_proxy_whose_name_nobody_knows_is_told(site, kit, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    with served(site, kit):
        told = quick(site)["port"].told
    assert (
        "the name of the proxy proxy.invalid:3128 (of https_proxy) is unknown" in told
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "does not let the connection"),
        (407, "wants a login"),
        (502, "cannot reach"),
        (503, "cannot reach"),
    ],
)
def test_a_proxy_that_refuses_is_told_with_what_it_means(
    site, kit, monkeypatch, status, said
):
    with served(site, kit), proxy(refuses=status) as (way, _):
        monkeypatch.setenv("https_proxy", f"http://{HOST}:{way}")
        found = quick(site)
    assert wrong(found) == NETWORK
    assert f"the proxy {HOST}:{way} (of https_proxy) {said}" in found["port"].told


@pytest.mark.parametrize(
    "url",
    ["socks5://10.0.0.1:1080", "http://proxy:port", "http://", "ftp://a:1", "//:1"],
)
def test_a_variable_that_names_no_http_proxy_is_a_fault_of_the_site(
    site, kit, monkeypatch, url
):
    monkeypatch.setenv("https_proxy", url)
    with served(site, kit):
        found = quick(site)
    assert wrong(found) == NETWORK
    assert "https_proxy does not name an HTTP proxy" in found["port"].told
    assert not found["port"].unreachable


def test_the_node_itself_tells_of_a_dead_proxy(tmp_path, monkeypatch, no_proxy):
    way = closed_port()
    monkeypatch.setenv("https_proxy", f"http://{HOST}:{way}")
    nodekeys.make(tmp_path / "node.key")
    key, context = nodekeys.load(tmp_path / "node.key"), ssl.create_default_context()
    with pytest.raises(UnreachableError, match=rf"the proxy {HOST}:{way} \(of https"):
        registered(f"{HOST}:9", context, key, timeout=60)
    with proxy(refuses=503) as (way, _):
        monkeypatch.setenv("https_proxy", f"http://{HOST}:{way}")
        with pytest.raises(UnreachableError, match=r"cannot reach .*HTTP 503"):
            registered(f"{HOST}:9", context, key, timeout=60)


def test_why_a_node_ended_names_the_proxy_that_it_went_through():
    said = "httpx.ConnectError: [Errno 111] Connection refused"
    way = Proxy("HTTPS_PROXY", "proxy.example.org", 3128)
    told = explain_exit(said, 1, way)
    assert "the proxy proxy.example.org:3128 (of HTTPS_PROXY) does not answer" in told
    assert "nothing listens at the coordinator" in explain_exit(said, 1)


def test_a_proxy_is_found_as_python_finds_it(monkeypatch, no_proxy):
    assert proxy_of("a.example.org") is None
    monkeypatch.setenv("all_proxy", "10.0.0.1:3128")
    assert proxy_of("a.example.org") == Proxy("all_proxy", "10.0.0.1", 3128)
    monkeypatch.setenv("https_proxy", f"http://u%40v:{SECRET}@[::1]")
    found = proxy_of("a.example.org")
    assert str(found) == "[::1]:80 (of https_proxy)"
    assert found is not None
    assert found.headers == {"Proxy-Authorization": "Basic dUB2OnMzY3JldA=="}
    monkeypatch.setenv("no_proxy", ".example.org")
    assert proxy_of("a.example.org") is None
    monkeypatch.setenv("https_proxy", "http://x:y:z")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConfigError, match="https_proxy"):
        proxy_of("a.example.org")
