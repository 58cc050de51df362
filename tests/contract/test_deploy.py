"""What `configs/deploy` promises to whoever signs for it, held against the code."""

import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "configs" / "deploy"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNITS = ("server", "client")
OFFLINE = {  # every process of ours: nothing phones home
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
CALM = {  # threads that sleep while they wait, and no module of the working folder
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONSAFEPATH": "1",
}
ISOLATED = {
    "NoNewPrivileges": ["yes"],
    "CapabilityBoundingSet": [""],
    "AmbientCapabilities": [""],
    "ProtectSystem": ["strict"],
    "ProtectHome": ["yes"],
    "ProtectProc": ["invisible"],
    "ProtectKernelTunables": ["yes"],
    "ProtectKernelModules": ["yes"],
    "ProtectControlGroups": ["yes"],
    "PrivateTmp": ["yes"],
    "PrivateDevices": ["yes"],
    "PrivateUsers": ["yes"],
    "RestrictNamespaces": ["yes"],
    "RestrictSUIDSGID": ["yes"],
    "RestrictAddressFamilies": ["AF_INET AF_INET6 AF_UNIX"],
    "SystemCallArchitectures": ["native"],
    "SystemCallFilter": ["@system-service", "~@privileged"],
    "SystemCallErrorNumber": ["EPERM"],
    "NoExecPaths": ["/srv /tmp /var"],
    "UMask": ["0077"],
    "LimitCORE": ["0"],
    "MemorySwapMax": ["0"],
}


def command(words):
    """Assert that `words` is one of our commands, with a verb and options it has."""
    from typer.main import get_command

    module, _, _ = PYPROJECT["project"]["scripts"][Path(words[0]).name].partition(":")
    app = importlib.import_module(module).app
    verb = get_command(app).commands[words[1]]
    known = {name for option in verb.params for name in option.opts}
    given = {word for word in words[2:] if word.startswith("--")}
    assert given
    assert given <= known
    return words


def unit_of(name):
    """Section -> key -> every value; systemd adds up where a key is repeated."""
    found = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            section.setdefault(key, []).append(value)
    return found


def service_of(part):
    return unit_of(f"vgmedgen-{part}.service")["Service"]


def stages():
    """Stage of the Containerfile -> its instructions as (word, rest)."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.M)
    found, at = {"": []}, ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            at = rest.split(" AS ")[1]
            found[at] = []
        if word:
            found[at].append((word, rest.strip()))
    return found


def told(stage, word):
    return [rest for name, rest in stages()[stage] if name == word]


@pytest.fixture(name="health", scope="module")
def _health():
    spec = importlib.util.spec_from_file_location("health", DEPLOY / "health.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- units -----------------------------------------------------------------------------


@pytest.mark.parametrize("part", UNITS)
def test_a_unit_starts_a_command_that_there_is(part):
    (line,) = service_of(part)["ExecStart"]
    words = command(shlex.split(line))
    assert words[1] == "start"
    assert words[0] == f"/opt/vgmedgen/bin/vgmedgen-{part}"


@pytest.mark.parametrize("part", UNITS)
def test_a_unit_has_no_rights_beyond_its_work(part):
    service = service_of(part)
    assert {key: service.get(key) for key in ISOLATED} == ISOLATED
    assert service["User"] == [f"vgmedgen-{part}"]
    # torch writes machine code: with this on no hospital would train
    assert service["MemoryDenyWriteExecute"] == ["no"]
    assert all(
        service[f"{kind}DirectoryMode"] == ["0700"] for kind in ("State", "Cache")
    )


@pytest.mark.parametrize("part", UNITS)
def test_a_unit_phones_nobody_and_its_threads_sleep(part):
    words = " ".join(service_of(part)["Environment"]).split()
    env = dict(word.split("=", 1) for word in words)
    assert (OFFLINE | CALM).items() <= env.items()


@pytest.mark.parametrize("part", UNITS)
def test_a_unit_starts_again_whatever_a_new_start_may_mend(part):
    from vgmedgen.errors import UnreachableError, VGMedGenError

    service = service_of(part)
    assert service["Restart"] == ["on-failure"]
    assert unit_of(f"vgmedgen-{part}.service")["Unit"]["StartLimitIntervalSec"] == ["0"]
    left_alone = {int(code) for code in service["RestartPreventExitStatus"][0].split()}
    assert left_alone == {VGMedGenError.exit_code, 2}
    assert UnreachableError.exit_code not in left_alone


@pytest.mark.parametrize("part", UNITS)
def test_a_unit_waits_longer_for_a_stop_than_the_processes_take(part):
    from vgmedgen.process.children import STOP_S

    service = service_of(part)
    assert int(service["TimeoutStopSec"][0]) > 2 * STOP_S
    assert service["KillMode"] == ["mixed"]


def test_the_coordinators_process_writes_in_its_state_alone():
    service = service_of("server")
    assert service["ReadWritePaths"] == ["/srv/vgmedgen/kits/coordinator/state"]
    assert service["ReadOnlyPaths"] == ["/srv/vgmedgen"]


def test_the_nodes_process_cannot_change_its_policy_or_its_keys():
    from vgmedgen.site.config import FILE, Coordinator

    service = service_of("client")
    (site,) = service["ReadWritePaths"]
    fixed = {path.lstrip("-") for path in " ".join(service["ReadOnlyPaths"]).split()}
    assert {f"{site}/{n}" for n in (FILE, Coordinator.ca, Coordinator.key)} <= fixed


def test_the_gpu_drop_in_opens_the_drivers_devices_and_no_others():
    drop_in = unit_of("vgmedgen-client-gpu.conf")
    assert drop_in["Service"] == {
        "PrivateDevices": ["no"],
        "DevicePolicy": ["closed"],
        "DeviceAllow": ["char-nvidia* rw"],
    }


# --- containers ------------------------------------------------------------------------


def test_no_image_is_a_moving_target():
    (base,) = [r.partition("=")[2] for r in told("", "ARG") if r.startswith("BASE=")]
    assert re.search(r":3\.1[12][^:]*$", base)
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for image in (base, *(service["image"] for service in services.values())):
        assert ":" in image
        assert "latest" not in image
    version = PYPROJECT["project"]["version"]
    assert {s["image"].partition(":")[2] for s in services.values()} == {version}


def test_everything_that_is_packaged_and_nothing_else_enters_the_build():
    copied = []
    for stage in stages():
        for rest in told(stage, "COPY"):
            if not rest.startswith("--from="):
                copied += rest.split()[:-1]
    for source in copied:
        assert (ROOT / source).exists()
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    packaged = {*wheel["packages"], *wheel["force-include"]}
    files = {"pyproject.toml", "README.md", "LICENSE"}
    extra = {".ci/constraints.txt", "configs/deploy/health.py"}
    assert set(copied) == packaged | files | extra
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    assert let_in == packaged | files | {".ci/constraints.txt"}


@pytest.mark.parametrize("part", UNITS)
def test_an_image_runs_one_of_our_commands_without_a_shell_and_not_as_root(
    part, health
):
    assert told(part, "FROM") == [f"runtime AS {part}"]
    assert told("runtime", "USER") == ["10001:10001"]
    assert told(part, "USER") == []
    (entry,), (start,) = told(part, "ENTRYPOINT"), told(part, "CMD")
    words = command(json.loads(entry) + json.loads(start))
    # the same command as the unit's
    assert words == shlex.split(service_of(part)["ExecStart"][0])
    (check,) = told(part, "HEALTHCHECK")
    asked = json.loads(check.partition("CMD ")[2])
    assert asked[2] == "/opt/vgmedgen/health.py"
    assert asked[3] == part
    assert not health.main(asked[3:]).startswith("say ")


def test_an_image_phones_nobody_and_writes_only_where_it_may():
    (words,) = told("runtime", "ENV")
    env = dict(word.split("=", 1) for word in words.split())
    assert (OFFLINE | CALM).items() <= env.items()
    for name in ("HOME", "FLWR_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TMPDIR"):
        assert env[name].startswith(("/tmp", "/var/lib/vgmedgen"))  # noqa: S108


@pytest.mark.parametrize("part", UNITS)
def test_a_container_has_no_rights_beyond_its_work(part):
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == set(UNITS)
    service = services[part]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == service["memswap_limit"]  # nothing is swapped
    assert service["pids_limit"] > 0
    assert service["ulimits"]["core"] == 0
    assert service["restart"] == "unless-stopped"
    assert all("noexec,nosuid,nodev" in mount for mount in service["tmpfs"])
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid"} & set(
        service
    )
    build = service["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    assert build["target"] in stages()


def test_only_the_public_port_is_published_and_at_first_to_this_machine_alone():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert services["server"]["ports"] == ["${VGMEDGEN_LISTEN:-127.0.0.1}:8443:8443"]
    assert "ports" not in services["client"]
    assert services["client"]["networks"] == ["fleet"]
    assert compose["networks"]["fleet"]["internal"] == "${VGMEDGEN_INTERNAL:-true}"


@pytest.mark.parametrize("part", UNITS)
def test_a_container_writes_where_the_unit_writes(part):
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = services[part]["volumes"]
    assert [m["target"] for m in mounts if not m.get("read_only")] == (
        service_of(part)["ReadWritePaths"]
    )
    assert not any(mount["bind"]["create_host_path"] for mount in mounts)


# --- nginx -----------------------------------------------------------------------------


def locations():
    """Location -> its body, in order."""
    text = (DEPLOY / "nginx.conf").read_text()
    found = re.findall(r"^ {8}location (.+?) \{\n(.*?)^ {8}\}", text, re.M | re.S)
    assert len(found) == text.count("location ")
    return dict(found)


def test_nginx_answers_exactly_what_a_registered_node_asks():
    from flwr.superlink.routers.fleet.router import router

    from server.gates import FLEET, HEALTH

    asked = {route.path for route in router.routes}
    registering = {f"/v1/fleet/{way}register-node" for way in ("", "un")}
    assert registering < asked
    wanted = (asked - registering) | {HEALTH}
    assert {f"= {path}" for path in wanted} | {"/"} == set(locations())
    assert wanted == FLEET | {HEALTH}  # and so does our own listener


def test_nginx_hands_on_the_path_that_it_checked_by_the_one_method_it_has():
    for place, body in locations().items():
        words = " ".join(body.split())
        path = place.removeprefix("= ")
        method = "GET" if path == "/health" else "POST"
        through = f"limit_except {method} {{ deny all; }} proxy_pass https://coordinator{path};"
        assert words == ("return 404;" if place == "/" else through)


def test_nginx_takes_a_chunk_of_weights_and_not_more_than_the_listener():
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
    from flwr.proto.message_pb2 import PushObjectRequest

    from server.gates import MOST_BYTES

    found = re.search(
        r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text()
    )
    limit = int(found[1]) * 2**20
    request = PushObjectRequest(
        run_id=2**63, object_id="0" * 64, object_content=bytes(CHUNK + 1024)
    )
    assert request.ByteSize() < limit <= MOST_BYTES


def test_a_node_that_nginx_slows_down_tries_again():
    from flwr.supercore.retry.http_retry import _RETRYABLE_STATUS_CODES

    text = (DEPLOY / "nginx.conf").read_text()
    said = [int(code) for code in re.findall(r"limit_(?:req|conn)_status (\d+);", text)]
    assert len(said) == 2
    assert set(said) <= _RETRYABLE_STATUS_CODES


def test_the_headers_that_a_node_signs_are_ones_that_nginx_passes():
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant

    names = (
        TIMESTAMP_HEADER,
        constant.FLEET_HTTP_PUBLIC_KEY_HEADER,
        constant.FLEET_HTTP_SIGNATURE_HEADER,
    )
    for name in names:
        assert re.fullmatch("[a-z-]+", name)  # one with an underscore would be dropped
        assert name in (DEPLOY / "nginx.conf").read_text()


@pytest.mark.parametrize("name", ["nginx.conf", "nginx-stream.conf"])
def test_the_access_log_holds_no_header_no_query_and_no_body(name):
    text = (DEPLOY / name).read_text()
    form = re.search(r"log_format facts (.*?);", text, re.S)[1]
    allowed = {
        *("time_iso8601", "remote_addr", "uri", "request_method", "status"),
        *("request_length", "bytes_sent", "bytes_received", "request_time"),
        "session_time",
    }
    assert set(re.findall(r"\$(\w+)", form)) <= allowed
    assert re.findall(r"access_log .*? (\w+);", text) == ["facts"]


def test_nginx_ends_tls_nowhere_without_checking_the_listener_behind_it():
    text = (DEPLOY / "nginx.conf").read_text()
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
    assert "proxy_ssl_verify on;" in text
    assert "proxy_ssl_trusted_certificate" in text
    assert "proxy_pass http:" not in text


def test_the_preferred_form_holds_no_key_and_leads_to_the_same_listener():
    text = (DEPLOY / "nginx-stream.conf").read_text()
    assert "ssl_" not in text
    (behind,) = re.findall(r"proxy_pass ([\d.:]+);", text)
    assert f"server {behind};" in (DEPLOY / "nginx.conf").read_text()
