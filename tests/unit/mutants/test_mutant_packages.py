from __future__ import annotations

import importlib.util

import pytest

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.drivers import inf
from lab.mutants.catalogue import CATALOGUE, choose, load_mutants

RECIPE = repo_root() / "images" / "standin-drivers"
MUTANTS = load_mutants()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("standin_drivers_build", RECIPE / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def template():
    return (RECIPE / "mutants" / "xenvbd.inf.in").read_text()


def packaged(recipe, template, mutant):
    return inf.parse(recipe.mutant_inf(template, mutant.model_dump()), "xenvbd.inf")


def test_catalogue_has_the_defects_that_the_suite_must_find():
    assert {mutant.name for mutant in MUTANTS} >= {
        "crash-attach",
        "crash-detach",
        "hang-attach",
        "second-disk",
        "size-off-by-one",
        "size-32-bit",
        "corrupt-unaligned",
        "corrupt-concurrent",
        "drop-flush",
        "hide-write-error",
        "ignore-read-only",
        "leak-grant",
        "refuse-unload",
        "lose-on-resume",
        "crash-20th-attach",
        "slow",
    }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_has_its_source_and_no_source_lacks_a_mutant(mutant):
    assert (RECIPE / "mutants" / f"{mutant.name.replace('-', '_')}.c").is_file()


def test_a_variant_is_a_mutant_with_options(recipe, template):
    text = (repo_root() / CATALOGUE).read_text()
    (variant,) = recipe.read_mutants(text, "variant")
    assert variant["of"] in {mutant.name for mutant in MUTANTS}
    data = recipe.mutant_inf(template, variant)
    assert b"AddReg=XenVbdX_Options\r\n" in data
    assert data.endswith(b'HKR,Parameters,ModuleOptions,,"percent=102"\r\n')
    assert inf.parse(data, "xenvbd.inf").driver_ver.version == "0.0.3.801"


def test_every_source_is_a_mutant():
    sources = {file.stem.replace("_", "-") for file in (RECIPE / "mutants").glob("*.c")}
    assert sources == {mutant.name for mutant in MUTANTS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_inf_is_the_good_driver_s_plus_a_service(recipe, template, mutant):
    good = inf.parse((RECIPE / "good" / "xenvbd.inf").read_bytes(), "xenvbd.inf")
    mutated = packaged(recipe, template, mutant)
    assert mutated.for_target
    [model] = mutated.models()
    [original] = good.models()
    assert model.hardware_id == original.hardware_id
    assert mutated.provider == good.provider
    install = mutated.install_section(model.install_section)
    assert [file.target for file in mutated.copied_files(install)] == [
        "xenpci.sys",
        "xenvbd.sys",
        "xenvbdx.sys",
    ]
    services = [service.name for service in mutated.services(install)]
    assert services == ["xenvbd", "xenvbdx", "xenpci"]
    assert str(mutated.source_path("xenvbdx.sys")) == "i386/xenvbdx.sys"


def test_inf_says_what_it_is(recipe, template):
    mutant = MUTANTS[0]
    data = recipe.mutant_inf(template, mutant.model_dump())
    text = data.decode()
    assert "NOT a Windows driver" in text
    assert text.count("\n") == text.count("\r\n")
    assert "@" not in text
    [model] = packaged(recipe, template, mutant).models()
    assert model.description == f"pvlab stand-in mutant: Xen block device ({mutant.title})"


def test_no_two_packages_share_a_version(recipe, template):
    good = inf.parse((RECIPE / "good" / "xenvbd.inf").read_bytes(), "xenvbd.inf")
    versions = [packaged(recipe, template, mutant).driver_ver.version for mutant in MUTANTS]
    assert len({*versions, good.driver_ver.version}) == len(MUTANTS) + 1


def test_catalogue_without_repetition(recipe):
    text = (repo_root() / CATALOGUE).read_text()
    assert len(recipe.read_mutants(text)) == len(MUTANTS)
    with pytest.raises(ValueError, match="two mutants have the same name"):
        recipe.read_mutants(text + text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mutant = 1", "no table called mutant"),
        ("[[mutant]]\nname = 'Bad Name'", "name"),
        ("[[mutants]]\nname = 'x'", "no table called mutant"),
        ("[[mutant", "mutants.toml"),
    ],
)
def test_bad_catalogue_is_refused_in_one_line(tmp_path, text, problem):
    file = tmp_path / "mutants.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=problem) as error:
        load_mutants(file)
    assert "\n" not in error.value.message


def test_same_build_twice_is_refused(tmp_path):
    file = tmp_path / "mutants.toml"
    entry = "[[mutant]]\nname = '{}'\nbuild = 1\ntitle = 't'\ndefect = 'd'\nshows = 's'\n"
    file.write_text(entry.format("a") + entry.format("b"))
    with pytest.raises(UsageError, match="two mutants have the same build"):
        load_mutants(file)


def test_choice_keeps_the_catalogue_s_order():
    assert choose(MUTANTS, []) == MUTANTS
    chosen = choose(MUTANTS, ["slow", "crash-attach"])
    assert [mutant.name for mutant in chosen] == ["crash-attach", "slow"]
    with pytest.raises(UsageError, match="no mutant is called 'fast'"):
        choose(MUTANTS, ["slow", "fast"])
