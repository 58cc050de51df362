"""Virtual hospitals: how sources become sites, and what is refused before it costs."""

import dataclasses
import json

import pytest

from simulations.run import draw, simulate
from simulations.sites import check_sources, make_pooled, make_sites
from tests.gated import install_base, make_site
from vgmedgen.config.load import load_run
from vgmedgen.config.run import Source, SynthesisConfig
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.errors import ConfigError, DataError
from vgmedgen.site.config import load_config
from vgmedgen.site.folder import Site


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory):
    """A folder of 40 ultrasound phantoms in the layout of BUSI."""
    folder = tmp_path_factory.mktemp("breast")
    write_phantoms("ultrasound", folder, 40, 0, 32, tint_of(0))
    return folder


def of(micro, **data):
    return dataclasses.replace(micro, data=dataclasses.replace(micro.data, **data))


def spread(micro, folder, **more):
    sources = [Source(name="busi", dataset="busi")]
    return of(
        micro, sources=sources, root=str(folder), split="dirichlet", sites=3, **more
    )


def test_a_dirichlet_split_gives_every_unit_to_exactly_one_site(
    micro, bundle, breast, tmp_path
):
    folders = make_sites(spread(micro, breast), bundle, tmp_path)
    units = [
        u
        for f in folders
        for s in load_config(f / "site.yaml").sources
        for u in s.units
    ]
    assert len(folders) == 3
    assert len(units) == len(set(units)) == 40
    assert make_sites(spread(micro, breast), bundle, tmp_path) == folders


def test_the_pooled_site_holds_all_images_and_holds_out_the_same_ones(
    micro, bundle, breast, tmp_path
):
    config = spread(micro, breast)
    sites = [Site(folder) for folder in make_sites(config, bundle, tmp_path)]
    pooled = make_pooled(config, bundle, tmp_path, sites)
    heldout = {record.unit for site in sites for record in site.heldout.records}
    assert {record.unit for record in pooled.heldout.records} == heldout
    assert len(pooled.samples) == sum(len(site.samples) for site in sites)


def test_a_split_by_column_names_sites_by_its_values(micro, bundle, tmp_path):
    skin = tmp_path / "skin"
    write_phantoms("dermoscopy", skin, 20, 0, 32, tint_of(0))
    sources = [Source(name="ham", dataset="ham10000")]
    config = of(micro, sources=sources, root=str(skin), split="column", column="sex")
    names = [folder.name for folder in make_sites(config, bundle, tmp_path / "run")]
    assert names
    assert set(names) <= {"female", "male", "unknown"}


def test_a_csv_of_captions_replaces_the_captions_made_here(
    micro, bundle, breast, tmp_path
):
    names = [p.name for p in breast.rglob("*.png") if "_mask" not in p.name]
    table = tmp_path / "captions.csv"
    lines = [f'"{name}","a tiny mass, left"' for name in names]
    table.write_text("\n".join(["image,caption", *lines]))
    config = spread(micro, breast, captions=str(table))
    site = Site(make_sites(config, bundle, tmp_path / "run")[0])
    assert set(site.samples.captions) == {"a tiny mass, left"}


def test_two_sources_that_are_one_folder_share_images_and_are_refused(
    micro, bundle, breast, tmp_path
):
    twice = [Source(name=name, dataset="busi") for name in ("a", "b")]
    config = of(micro, sources=twice, root=str(breast), split="source")
    with pytest.raises(DataError, match=r"share|both"):
        make_sites(config, bundle, tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"sources": []}, r"data\.sources is empty"),
        ({"sources": [Source(dataset="busi")], "root": ""}, r"data\.root is empty"),
    ],
)
def test_sources_that_cannot_be_read_are_refused_before_anything_is_built(
    micro, data, says
):
    with pytest.raises(ConfigError, match=says):
        check_sources(of(micro, **data))


def test_a_source_that_fits_no_split_is_refused(micro, bundle, breast, tmp_path):
    two = [Source(name=name, dataset="busi") for name in ("a", "a")]
    with pytest.raises(ConfigError, match="one name twice"):
        make_sites(
            of(micro, sources=two, root=str(breast), split="source"), bundle, tmp_path
        )
    with pytest.raises(ConfigError, match="exactly one source"):
        make_sites(
            of(micro, sources=two, root=str(breast), split="dirichlet"),
            bundle,
            tmp_path,
        )
    with pytest.raises(ConfigError, match="modality must be one of"):
        make_sites(
            of(micro, sources=[Source(name="a", modality="xray")]), bundle, tmp_path
        )


def test_a_missing_folder_leaves_no_run_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        simulate(load_run(["experiment=busi-dirichlet", "data.root=nowhere"]))
    assert not list(tmp_path.iterdir())


def drawn(site, micro):
    install_base(site, micro.plan)
    quick = SynthesisConfig(images=3, steps=2)
    return draw(site, dataclasses.replace(micro, synthesis=quick))


def test_a_site_with_enough_images_opens_its_gate_and_tells_what_it_found(
    micro, bundle, tmp_path
):
    site = make_site(tmp_path / "site", bundle, policy={"ungated": True})
    found = drawn(site, micro)
    told = json.loads((site.folder / "synthetic/gate.json").read_text())
    assert "why" not in found.gate
    assert found.gate["tried"] == 3
    assert len(found.shown) == 3 - found.gate["flagged"]
    assert {name: told[name] for name in found.gate} == json.loads(
        json.dumps(found.gate)
    )
    assert not (site.folder / "synthetic/NOT-CLEARED.txt").exists()


def test_a_site_with_too_few_images_draws_without_a_gate_and_says_why(
    micro, bundle, tmp_path
):
    site = make_site(tmp_path / "site", bundle, phantoms=12, policy={"ungated": True})
    found = drawn(site, micro)
    assert found.gate["tried"] == len(found.shown) == 3
    assert "held-out images" in found.gate["why"]
    assert (site.folder / "synthetic/NOT-CLEARED.txt").exists()
