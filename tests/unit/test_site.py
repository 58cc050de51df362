"""One hospital: what it holds back, what it answers twice, what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from client.site import open_site
from vgmedgen.errors import (
    BaseError,
    ConfigError,
    DataError,
    PolicyError,
    TrainingError,
)
from vgmedgen.site.config import load_config
from vgmedgen.site.folder import Site
from vgmedgen.training import rounds
from vgmedgen.training.order import Order


def context(node_config: dict[str, str | int]) -> Context:
    return Context(
        run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={}
    )


def order_for(site: Site, plan, *, number: int = 1, stage: str = "align") -> Order:
    weights = site.bench(plan).states()
    return Order(run="r", number=number, stage=stage, plan=plan, weights=weights)


@pytest.fixture
def order(hospital: Site, micro) -> Order:
    """Round 1, from weights that no earlier test has touched."""
    rounds_bench = rounds.Workbench.open(
        hospital.bundle, micro.plan, torch.device("cpu")
    )
    return Order(
        run="r", number=1, stage="align", plan=micro.plan, weights=rounds_bench.states()
    )


def test_held_out_units_never_train_and_no_unit_lies_on_both_sides(hospital: Site):
    training = {record.unit for record in hospital.training.records}
    heldout = {record.unit for record in hospital.heldout.records}
    assert training
    assert heldout
    assert not training & heldout
    assert len(hospital.training) + len(hospital.heldout) == len(hospital.samples)


def test_prepared_samples_are_read_back_without_reading_an_image(
    hospital: Site, monkeypatch
):
    first = hospital.samples

    def closed(*_: object) -> None:
        raise AssertionError("an image was opened again")

    monkeypatch.setattr("vgmedgen.data.images.load", closed)
    again = Site(hospital.folder).samples
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.embeddings, again.embeddings)
    assert first.captions == again.captions


def test_an_order_that_comes_twice_is_answered_without_training_again(
    hospital: Site, order: Order, monkeypatch
):
    first = hospital.train(order)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(rounds, "_align", forbidden)
    again = hospital.train(order)
    assert again.units == first.units
    assert again.loss_sum == first.loss_sum
    assert all(np.array_equal(again.state[n], first.state[n]) for n in first.state)


def test_the_same_round_with_other_weights_is_another_order(
    hospital: Site, order: Order
):
    first = hospital.train(order)
    mapper = {name: array + 0.5 for name, array in order.weights["mapper"].items()}
    other = dataclasses.replace(order, weights={**order.weights, "mapper": mapper})
    second = hospital.train(other)
    name = next(iter(first.state))
    assert not np.array_equal(first.state[name], second.state[name])


def test_a_round_that_was_killed_ends_as_if_nothing_had_happened(
    hospital: Site, order: Order, tmp_path, monkeypatch
):
    whole = hospital.train(order)
    other = Site(hospital.folder.rename(hospital.folder.with_name("again")))
    for path in sorted((other.folder / "runs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    calls = []

    def dies(*args: object, **kwargs: object) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "train_mapper", dies)
        with pytest.raises(KeyboardInterrupt):
            other.train(order)
    assert calls
    resumed = other.train(order)
    assert all(np.array_equal(whole.state[n], resumed.state[n]) for n in whole.state)


def test_a_loss_that_is_not_finite_leaves_no_outcome(
    hospital: Site, order: Order, monkeypatch
):
    def broken(*_: object, **__: object) -> torch.Tensor:
        return torch.full((4,), torch.nan, requires_grad=True)

    monkeypatch.setattr("vgmedgen.training.align.prior_loss", broken)
    with pytest.raises(TrainingError, match="loss is nan"):
        hospital.train(order)
    assert not list((hospital.folder / "runs").rglob("*.safetensors"))


def test_the_prior_goes_on_from_the_round_before(hospital: Site, order: Order):
    hospital.train(order)
    hospital.train(dataclasses.replace(order, number=2, turn=2))
    kept = sorted((hospital.folder / "runs" / "r").glob("*/prior.safetensors"))
    assert len(kept) == 2
    assert kept[0].read_bytes() != kept[1].read_bytes()


def test_sites_of_an_independent_start_share_nothing(hospitals, micro, tmp_path):
    ask = dataclasses.replace(micro.plan.align, common_start=False)
    plan = dataclasses.replace(micro.plan, align=ask)
    starts = []
    for folder in hospitals[:2]:
        site = Site(folder)
        bench = site.bench(plan)
        desk = rounds.Desk(site.name, site.training, tmp_path / site.name)
        prior = rounds._prior_before(bench, desk, order_for(site, plan))
        starts.append(prior.map_net.state_dict())
    name = next(iter(starts[0]))
    # both are the same module, filled twice: what the second left is the second's own
    assert starts[0][name].shape == starts[1][name].shape
    own = [
        rounds.VisualPrior.like(bench.prior, rounds.seed_of(plan.seed, n, "own"))
        for n in ("hospital-a", "hospital-b")
    ]
    first, second = (prior.map_net.state_dict()[name] for prior in own)
    assert not torch.equal(first, second)


def test_only_one_factor_trains_where_factors_alternate(hospital: Site, micro):
    plan = dataclasses.replace(micro.plan, merge="alternate")
    bench = hospital.bench(plan)
    weights = bench.states()
    for turn, moves in ((1, "B"), (2, "A")):
        order = Order(
            run="alt",
            number=2 + turn,
            stage="generate",
            plan=plan,
            weights=weights,
            turn=turn,
        )
        state = hospital.train(order).state
        for name, array in state.items():
            if not name.endswith(f".{moves}"):
                assert np.array_equal(array, weights["lora"][name])
        assert any(
            not np.array_equal(state[name], weights["lora"][name]) for name in state
        )
        weights = {**weights, "lora": dict(state)}


def test_a_site_smaller_than_a_batch_is_refused_by_name(hospital: Site, order: Order):
    ask = dataclasses.replace(order.plan.align, batch=1000)
    plan = dataclasses.replace(order.plan, align=ask)
    with pytest.raises(DataError, match=rf"{hospital.name}.*1000"):
        hospital.train(dataclasses.replace(order, plan=plan))


def test_a_site_is_opened_by_its_node_and_by_nothing_else(hospitals, monkeypatch):
    assert open_site(context({"site": str(hospitals[1])})).name == hospitals[1].name
    monkeypatch.delenv("VGMEDGEN_SITES", raising=False)
    with pytest.raises(ConfigError, match="no site"):
        open_site(context({"partition-id": 0}))
    monkeypatch.setenv("VGMEDGEN_SITES", str(hospitals[0].parent))
    assert open_site(context({"partition-id": 2})).name == hospitals[2].name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: Site A\nsources: [{}]", "lower-case"),
        ("name: a\nsources: []", "names no data"),
        ("name: a\nbase: x\nsources: [{}]\nheldout: 0.9", "heldout"),
        ("name: a\nsorces: []", "sorces"),
    ],
)
def test_a_bad_site_file_is_refused_with_its_key(tmp_path, text, says):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_config(tmp_path / "site.yaml")


def test_a_missing_site_file_or_base_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"site\.yaml"):
        Site(tmp_path)
    (tmp_path / "site.yaml").write_text("name: a\nsources: [{}]")
    with pytest.raises(BaseError, match="base"):
        _ = Site(tmp_path).bundle


def test_the_example_of_a_sites_file_is_one():
    from vgmedgen.config.load import config_root

    config = load_config(config_root() / "site.example.yaml")
    assert config.privacy.epsilon == 8
    assert config.sources[0].dataset == "table"


@pytest.mark.parametrize(
    "privacy",
    [
        "{epsilon: -1}",
        "{epsilon: .nan}",
        "{epsilon: 1000}",
        "{delta: 0}",
        "{delta: .nan}",
        "{epsilonn: 1}",
    ],
)
def test_a_limit_that_is_none_is_refused(tmp_path, privacy):
    text = (
        "name: a\nbase: /b\nsources: [{dataset: table, root: t.csv}]\n"
        f"privacy: {privacy}\n"
    )
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(tmp_path / "site.yaml")
    assert "\n" not in str(refusal.value)


def test_a_site_yaml_that_lost_a_line_while_the_node_runs_lets_nothing_in(tmp_path):
    from vgmedgen.config.load import config_root

    text = config_root().joinpath("site.example.yaml").read_text()
    path = tmp_path / "site.yaml"
    path.write_text(text)
    site = Site(tmp_path)
    assert site.policy.min_units == 20
    lines = text.splitlines(keepends=True)
    keys = [n for n, line in enumerate(lines) if not line.lstrip().startswith("#")]
    for end in keys:
        path.write_text("".join(lines[:end]))  # as an editor leaves it half way
        with pytest.raises(ConfigError):
            _ = site.policy
    path.write_text(text.replace("min_units: 20", "min_units: 30"))
    assert site.policy.min_units == 30
    path.write_text(
        text.replace('    - "' + "0" * 64 + '"\n', "").replace(
            "coordinators: #", "coordinators: [] #"
        )
    )
    with pytest.raises(ConfigError, match="no coordinator any more"):
        _ = site.policy


def test_a_loss_of_few_held_out_patients_is_not_told(
    hospital: Site, micro, monkeypatch
):
    order = order_for(hospital, micro.plan, number=3, stage="generate")
    units = hospital.evaluate(order).units
    assert units == hospital.heldout.units
    limits = dataclasses.replace(hospital.policy, min_heldout=units + 1)
    monkeypatch.setattr(Site, "policy", limits)
    with pytest.raises(PolicyError, match=f"min_heldout={units + 1}"):
        hospital.evaluate(order)
