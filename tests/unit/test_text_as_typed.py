"""What a person typed as text stays that text, in every file and on every command line."""

import dataclasses
from pathlib import Path

import pytest

from server.kits import CoordinatorConfig
from vgmedgen.config.load import load, load_file, load_run, save
from vgmedgen.config.run import DataConfig, RunConfig, RunSection, Source
from vgmedgen.config.yamlfile import Text, parse_yaml, read_yaml, write_yaml
from vgmedgen.errors import ConfigError
from vgmedgen.site.config import keys_of, load_config

# what YAML 1.1 makes numbers, truth values, times or nothing of
GUESSED = (
    *("0012", "010", "08", "0x1F", "0b11", "0o17", "1_000", "2024_01", "+5", "-0"),
    *("1e3", ".5", "1.", "0.10", "1.0", ".inf", "-.inf", ".nan", "NaN", "inf"),
    *("yes", "no", "on", "off", "Yes", "NO", "y", "n", "true", "False", "T"),
    *("12:30", "1:2:3", "190:20:30.15", "2024-01-01", "2024-01-01 10:00:00", "="),
    *("<<", "1,000", "12 ", "P 0012", "1/2", "a:b", "x#y", "ö", "~x", "nullable"),
)
NOTHING = ("null", "~", "Null", "NULL", "")
SITE = "name: site-a\nsources: [{{dataset: table, root: a.csv{more}}}]\n{rest}"


def site(tmp_path: Path, *, more: str = "", rest: str = ""):
    path = tmp_path / "site.yaml"
    path.write_text(SITE.format(more=more, rest=rest), encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("word", GUESSED)
def test_units_are_those_that_were_typed(tmp_path, word):
    typed = word.strip()  # blanks around an unquoted word are no part of it
    if "," not in word:
        found = site(tmp_path, more=f", units: [{word}, other]")
        assert found.sources[0].units == [typed, "other"]
    block = f"heldout_units:\n- {word}\n- other\n"
    assert site(tmp_path, rest=block).heldout_units == [typed, "other"]
    assert site(tmp_path, rest=f"device: {word}\n").device == typed
    assert site(tmp_path, rest=f"policy: {{runs: ['{word}']}}\n").policy.runs == [word]


@pytest.mark.parametrize("word", GUESSED)
def test_an_override_of_text_is_what_was_typed(word):
    found = load_run([f"run.dir={word}", f"data.root={word}", f"data.captions={word}"])
    assert (found.run.dir, found.data.root, found.data.captions) == (word,) * 3


@pytest.mark.parametrize(
    "word",
    [
        *("/data/HAM #1", "[old] data", "{a: b}", "a: b", "'quoted'", '"', "- x", "*"),
        *("a=b", " x ", "null", "", "~", "&a", "!x", "%", "@", "`", "[", "}", "x #"),
    ],
)
def test_an_override_of_text_is_never_read_as_yaml(word):
    assert load_run([f"data.root={word}"]).data.root == word


@pytest.mark.parametrize("word", [*NOTHING, "${oc.env:HOME}", "a ${data.root}", "???"])
def test_text_that_would_be_nothing_or_worked_out_is_refused(tmp_path, word):
    typed = word or "~" if word in NOTHING else f"'{word}'"
    with pytest.raises(ConfigError, match=r"units\[0\]") as refused:
        site(tmp_path, more=f", units: [{typed}]")
    assert refused.value.code == "VG10"
    assert "\n" not in str(refused.value)
    quoted = SITE.format(more=f', units: ["{word}", b]', rest="")
    (tmp_path / "site.yaml").write_text(quoted)
    if word in NOTHING:
        assert load_config(tmp_path / "site.yaml").sources[0].units == [word, "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("device: /data/HAM #1", r"line 1: YAML takes what stands behind ' #'"),
        ("name: a\ndevice: one\n  two", r"line 2: the text goes on in the next line"),
        ("device: *pilot", r"line 1: a word that begins with &, \* or !.* quotes"),
        ("device: &pilot x", r"line 1: a word that begins with &"),
        ("device: !x y", r"line 1: a word that begins with &"),
        ("device: !!int 010", r"line 1: a word that begins with &"),
        ("device: [old] data", "is not YAML"),
        ("device: @x", "is not YAML"),
        ("device: %x", "is not YAML"),
        ('device: "C:\\data"', "is not YAML"),
        ('device: "C:\\new"', r"a backslash in double quotes"),
        ("device: [a, b]", r"'device' takes one value, .* put text in quotes"),
        ("device: {a: b}", r"'device' takes one value"),
        ("heldout_units: 0012", r"'heldout_units' \(line 1\) takes a list, .*\[0012\]"),
        ("heldout_units: {a: b}", "takes a list"),
        ("heldout_units: [[a]]", r"'heldout_units\[0\]' takes one value"),
        ("heldout_units: [a: b]", r"'heldout_units\[0\]' takes one value"),
        ("policy: 3", r"'policy' \(line 1\) takes keys and values"),
        ("policy: [a]", "'policy' takes keys and values"),
        ("policy:", "policy"),
        ("name: a\nname: b", "the key 'name' stands twice"),
        ("? [a]\n: b", "a key is a list or a map"),
        ("--- a\n--- b", "is not YAML"),
        ("policy: {min_units: 010}", r"'policy.min_units' \(line 1\) must be a whole"),
        ("policy: {min_units: 0x10}", "must be a whole number"),
        ("policy: {min_units: 1_0}", "must be a whole number"),
        ("policy: {min_units: 1:30}", "must be a whole number"),
        ("policy: {min_units: 20.0}", "must be a whole number"),
        ("policy: {min_units: true}", "must be a whole number"),
        ("policy: {min_units: null}", "must be a whole number"),
        ("policy: {min_units: ١٢}", "must be a whole number"),
        ("policy: {dry_run: 1}", "must be true or false"),
        ("policy: {dry_run: nope}", "must be true or false"),
        ("privacy: {epsilon: 1:30}", "must be a number"),
        ("privacy: {epsilon: .inf}", "must be a number"),
        ("privacy: {epsilon: 1_0}", "must be a number"),
        ("heldout: 0,2", "must be a number"),
    ],
)
def test_what_yaml_would_change_is_refused_in_one_line_with_the_file(
    tmp_path, text, says
):
    path = tmp_path / "site.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as refused:
        load_config(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("seed=010", "'seed'.* must be a whole number, .* got '010'"),
        ("seed=1_0", "must be a whole number"),
        ("seed=", "must be a whole number, .* got ''"),
        ("seed=" + "9" * 5000, "must be a whole number"),
        ("study.local=maybe", "must be true or false"),
        ("generate.targets=to_q", "takes a list"),
        ("generate.targets=[to_q", "the value of 'generate.targets' is not YAML"),
        ("privacy=3", "no privacy '3'"),
        ("federation.x.y=3", "federation"),
        ("model.vae_channels=[024, 48]", r"'model.vae_channels\[0\]' .* got '024'"),
    ],
)
def test_an_override_that_is_no_value_of_its_key_is_refused_in_one_line(word, says):
    with pytest.raises(ConfigError, match=says) as refused:
        load_run([word])
    assert "\n" not in str(refused.value)
    assert word.startswith(("model.", "generate.")) or "line" not in str(refused.value)


def test_numbers_and_lists_are_read_as_their_keys_declare():
    found = load_run(
        [
            *(
                "seed=7",
                "data.heldout=.25",
                "base.learning_rate=2e-3",
                "study.local=on",
            ),
            *("generate.targets=[to_q, 'a b', 010]", "model.vae_channels=[8, 16, 32]"),
            "data.sources=[{name: 007, dataset: busi, folder: '#1'}]",
        ]
    )
    assert (found.seed, found.data.heldout, found.base.learning_rate) == (7, 0.25, 2e-3)
    assert found.study.local is True
    assert list(found.generate.targets) == ["to_q", "a b", "010"]
    assert list(found.model.vae_channels) == [8, 16, 32]
    assert found.data.sources == [Source(name="007", dataset="busi", folder="#1")]


def test_text_may_be_marked_as_such(tmp_path):
    text = "heldout_units: [!!str null, !!str 0012, 'a #1', \"it's\", 'say \"x\"']\n"
    found = site(tmp_path, rest=text).heldout_units
    assert found == ["null", "0012", "a #1", "it's", 'say "x"']


def test_comments_stay_comments(tmp_path):
    text = "device: cpu # none here\nheldout_units: [a, b] # two\n# alone\n"
    found = site(tmp_path, rest=text)
    assert (found.device, found.heldout_units) == ("cpu", ["a", "b"])


@pytest.mark.parametrize("word", [*GUESSED, *NOTHING, "/data/HAM #1", "it's", "- a"])
def test_a_saved_run_holds_the_text_that_it_had(tmp_path, word):
    config = dataclasses.replace(
        RunConfig(),
        run=RunSection(dir=f"{word}"),
        data=DataConfig(
            root=word, sources=[Source(name=word, folder=f"{word} {word}")]
        ),
    )
    save(config, tmp_path / "run.yaml")
    assert load_file(tmp_path / "run.yaml") == config


def test_what_is_written_is_read_back_however_long(tmp_path):
    long = "a folder with blanks " * 40 + "and an end"
    told = {"name": long, "units": ["0012", "null", "no", "a: b", long], "none": None}
    (tmp_path / "x.yaml").write_text(write_yaml(told), encoding="utf-8")
    found = read_yaml(tmp_path / "x.yaml")
    assert found == told | {"none": ""} | {"none": Text("null")}
    assert found["none"].nothing
    assert not any(one.nothing for one in found["units"])


def test_a_file_may_say_how_its_text_is_coded(tmp_path):
    for code in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "site.yaml").write_bytes(
            SITE.format(more="", rest="device: Zürich\n").encode(code)
        )
        assert load_config(tmp_path / "site.yaml").device == "Zürich"
    (tmp_path / "site.yaml").write_bytes("a: b\ndevice: Zürich\n".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"site\.yaml line 2 is not UTF-8 text"):
        load_config(tmp_path / "site.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_a_signing_key_of_digits_keeps_its_zeros(tmp_path):
    key = "0" * 63 + "1"
    rest = f"policy: {{coordinators: [{key}], exchange: {key}}}\n"
    found = site(tmp_path, rest=rest).policy
    assert (found.coordinators, found.exchange) == ([key], key)


def test_the_other_files_of_a_site_and_a_coordinator_are_read_alike(tmp_path):
    path = tmp_path / "coordinator.yaml"
    path.write_text("name: 0012\nhost: localhost\nbase: 2024_01\n")
    found = load(CoordinatorConfig, path)
    assert (found.name, found.base, found.port) == ("0012", "2024_01", 8443)
    path.write_text("name: x\nhost: localhost\nport: 08443\n")
    with pytest.raises(ConfigError, match=r"'port' .* got '08443'"):
        load(CoordinatorConfig, path)
    path.write_bytes("policy: {no: 1, 010: 2}\n".encode("utf-16"))
    assert keys_of(path) == {"policy", "policy.no", "policy.010"}
    path.write_text("policy: {on: 1}\n")
    assert keys_of(path) == {"policy", "policy.on"}


def test_an_empty_text_holds_nothing():
    assert parse_yaml("", "it") is None
    assert parse_yaml("# only this\n", "it") is None
