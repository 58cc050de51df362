"""A micro training under a claim, and the names of what an audit finds red in it."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from tests.audited import STEPS
from vgmedgen.audit import isolation, recorded, whole
from vgmedgen.config.plan import PrivacyConfig, RunPlan
from vgmedgen.site.folder import Site
from vgmedgen.training.rounds import Workbench


@pytest.fixture(scope="module")
def plan(micro) -> RunPlan:
    ask = dataclasses.replace(
        micro.plan.align, mapper_steps=STEPS, mapper_rate=1e-3, prior_steps=STEPS
    )
    return dataclasses.replace(
        micro.plan,
        merge="alternate",
        align_rounds=1,
        generate_rounds=1,
        privacy=PrivacyConfig(enabled=True, epsilon=3.0, draws=2),
        align=ask,
        generate=dataclasses.replace(micro.plan.generate, steps=STEPS),
    )


@pytest.fixture(scope="module")
def bench(bundle, plan) -> Workbench:
    return Workbench.open(bundle, plan, torch.device("cpu"))


@pytest.fixture(scope="module")
def start(bench):
    return bench.states()


@pytest.fixture(scope="module")
def samples(hospitals):
    return Site(hospitals[0]).training


@pytest.fixture
def red(bench, start, plan, samples) -> Callable[..., set[str]]:
    """Names of the findings that are red; `worlds` tries others' records too."""

    def names(asked: RunPlan = plan, *, worlds: bool = False) -> set[str]:
        longer = recorded.lengthened(asked)
        first = whole.record(bench, start, asked, samples, spots=2)
        second = whole.record(bench, start, longer, samples, spots=1)
        leaks = {name: [] for name in whole.trainings(asked)}
        if worlds:
            leaks = isolation.leaks(bench, start, asked, samples, units=1)
        found = recorded.judge(asked, longer, first, second, leaks)
        assert [one.name for one in found if not one.told] == []
        return {one.name for one in found if not one.passed}

    return names
