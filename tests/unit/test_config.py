"""The configuration refuses what is not a valid run, and says what would be."""

import dataclasses
from pathlib import Path

import pytest

from vgmedgen.config.load import (
    config_root,
    load_file,
    load_run,
    plan_from_json,
    save,
)
from vgmedgen.config.plan import RunPlan
from vgmedgen.config.run import FederationConfig, RunConfig
from vgmedgen.config.yamlfile import MOST_BYTES, read_yaml
from vgmedgen.errors import ConfigError
from vgmedgen.site.config import load_config

EXPERIMENTS = sorted(p.stem for p in (config_root() / "experiment").rglob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_file_is_a_valid_run(name):
    assert load_run([f"experiment={name}"]).experiment == name


@pytest.mark.parametrize("group", ["data", "model", "federation"])
def test_every_group_file_is_a_valid_choice(group):
    for path in (config_root() / group).rglob("*.yaml"):
        load_run([f"{group}={path.stem}"])


def test_an_override_beats_the_experiment_and_the_experiment_beats_its_groups():
    assert load_run(["experiment=alignment-study"]).federation.align_rounds == 3
    chosen = load_run(["experiment=alignment-study", "federation.align_rounds=7"])
    assert chosen.federation.align_rounds == 7


def test_a_typo_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="generate_rounds"):
        load_run(["federation.generate_round=3"])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("generate.rank=0", "generate.rank must be above 0"),
        ("generate.dropout=1.5", r"\[0, 0.9\]"),
        ("generate.learning_rate=nan", "must be a number"),
        ("federation.merge=mean", "must be one of auto, average"),
        ("model.image_px=50", "multiple of 16"),
        ("data.heldout=0.9", "data.heldout"),
        ("generate.steps=many", "many"),
        ("experiment=unheard-of", "there are: alignment-study"),
        ("data=unheard-of", "no data 'unheard-of'"),
        ("run.dir", "key=value"),
    ],
)
def test_bad_values_are_refused_in_one_line(word, says):
    with pytest.raises(ConfigError, match=says) as refused:
        load_run([word])
    assert "\n" not in str(refused.value)
    assert refused.value.code == "VG10"


def test_a_saved_run_reads_back_equal(tmp_path: Path):
    config = load_run(["experiment=busi-dirichlet", "seed=4"])
    save(config, tmp_path / "run.yaml")
    assert load_file(tmp_path / "run.yaml") == config


def test_the_digest_ignores_where_a_run_works_but_nothing_else():
    plain = RunConfig()
    moved = load_run(["run.dir=/elsewhere", "run.threads=2"])
    assert moved.digest == load_run().digest
    assert dataclasses.replace(plain, seed=1).digest != plain.digest


def test_a_plan_survives_the_wire():
    plan = load_run(["generate.rank=3"]).plan
    assert plan_from_json(plan.to_json()) == plan
    assert plan_from_json(plan.to_json()).digest == plan.digest


@pytest.mark.parametrize(
    "text", ["", "[]", '{"sed": 1}', '{"generate": {"rank": -1}}', '{"merge": "x"}']
)
def test_a_plan_from_elsewhere_is_checked_like_any_other(text):
    with pytest.raises(ConfigError):
        plan_from_json(text)


def test_align_rounds_come_before_generate_rounds():
    rounds = FederationConfig(align_rounds=2, generate_rounds=3)
    stages = [rounds.stage(number) for number in range(1, rounds.rounds + 1)]
    assert stages == ["align"] * 2 + ["generate"] * 3


def test_a_yaml_file_that_is_not_yaml_is_named(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "base.yaml").write_text("a: [1,")
    with pytest.raises(ConfigError, match=r"base\.yaml"):
        load_run(root=tmp_path)


def test_plans_can_key_a_cache():
    assert hash(RunPlan()) == hash(RunPlan())


@pytest.mark.parametrize("depth", [21, 300, 100_000])
@pytest.mark.parametrize("form", ["list", "map", "block"])
def test_a_yaml_file_that_is_nested_too_deeply_is_refused_and_not_loaded(
    tmp_path: Path, depth: int, form: str
):
    path = tmp_path / "site.yaml"
    text = {"list": "[" * depth, "map": "{a: " * depth, "block": "- " * depth}[form]
    path.write_text(text)
    for read in (load_config, read_yaml):
        with pytest.raises(ConfigError, match="nested more than 20 deep"):
            read(path)


def test_a_yaml_file_that_is_too_large_is_refused(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text("name: x\n" + "#" * MOST_BYTES)
    with pytest.raises(ConfigError, match=f"more than {MOST_BYTES} bytes"):
        load_config(path)


@pytest.mark.parametrize("depth", [21, 300, 900])
def test_a_plan_that_is_nested_too_deeply_is_refused(depth: int):
    with pytest.raises(ConfigError, match=r"nested too deeply|not JSON"):
        plan_from_json('{"generate": ' + '{"a": ' * depth + "1" + "}" * (depth + 1))
    with pytest.raises(ConfigError, match=r"nested too deeply|not JSON"):
        plan_from_json('{"generate": ' + "[" * depth + "]" * depth + "}")
