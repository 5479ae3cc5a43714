from __future__ import annotations

import pytest
from plugin_bench import by_name

pytest_plugins = ["pytester"]

ERRATA = """
driver = "xenvbd"
provider = "pvlab tests"
version = "0.0.3.*"
[[known]]
test = "{file}.py::test_it"
why = "the disk shows twice"
source = "announcement of 0.0.3"
until = "0.0.4"
{more}
"""


@pytest.fixture
def known(bench, request):
    """A run with an erratum about ``test_it``."""
    folder = bench.path / "errata"
    folder.mkdir()

    def run(test, *args, more="", **others):
        text = ERRATA.format(file=request.node.originalname, more=more)
        (folder / "xenvbd.toml").write_text(text)
        return bench(test, f"--pvlab-errata={folder}", *args, **others)

    return run


def test_known_failure_is_expected(known):
    run = known(
        """
        def test_it(installed_driver): assert 0, "two disks"
        def test_other(installed_driver): pass
        """
    )
    assert run.code == 0
    assert run.record["verdict"]["status"] == "PASS"
    assert "1 failed as expected" in run.record["verdict"]["reasons"][0]
    assert by_name(run)["test_it"]["outcome"] == "xfailed"
    (issue,) = run.record["errata"]
    assert issue["why"] == "the disk shows twice"
    assert issue["until"] == "0.0.4"
    assert issue["test"].endswith("::test_it")
    run.pytest.stdout.fnmatch_lines(["pvlab: errata: 1 of the tests*"])
    assert "the disk shows twice" in (run.folder / "report.html").read_text()


def test_unexpected_pass_is_news_and_no_pass(known):
    run = known(
        """
        def test_it(installed_driver): pass
        def test_other(installed_driver): pass
        """
    )
    assert run.code == 3
    assert by_name(run)["test_it"]["outcome"] == "xpassed"
    assert run.record["verdict"]["status"] == "UNDECIDED"
    (reason,) = run.record["verdict"]["reasons"]
    assert reason.startswith("news: ")
    assert "known to fail: the disk shows twice (announcement of 0.0.3; until 0.0.4)" in reason


def test_unexpected_pass_beside_a_failure_is_told_behind_it(known):
    run = known(
        """
        def test_it(installed_driver): pass
        def test_other(installed_driver): assert 0, "no disk"
        """
    )
    assert run.record["verdict"]["status"] == "FAIL"
    assert [reason.partition(":")[0] for reason in run.record["verdict"]["reasons"]] == [
        "the driver failed",
        "news",
    ]


def test_crash_is_not_excused(known):
    run = known(
        """
        def test_it(installed_driver, place):
            place.bugcheck()
            assert 0, "two disks"
        """
    )
    assert run.code == 1
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"]) == ("failed", "driver")
    assert "not what is known" in test["message"]


def test_crash_is_excused_if_the_errata_say_so(known):
    run = known(
        """
        def test_it(installed_driver, place):
            place.bugcheck()
        def test_other(installed_driver): pass
        """,
        more="crash = true",
    )
    assert run.code == 0
    assert by_name(run)["test_it"]["outcome"] == "xfailed"


def test_another_failure_is_not_excused(known):
    run = known(
        'def test_it(installed_driver): assert 0, "no disk at all"', more='says = "two disks"'
    )
    assert run.code == 1
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"]) == ("failed", "driver")
    assert "not the failure that is known" in test["message"]


def test_the_failure_that_is_known_is_excused(known):
    run = known(
        """
        def test_it(installed_driver): assert 0, "there are two disks"
        def test_other(installed_driver): pass
        """,
        more='says = "two disks"',
    )
    assert run.code == 0


def test_failure_of_the_lab_is_not_excused(known):
    run = known(
        """
        from lab.core.errors import LabBroken
        def test_it(installed_driver): raise LabBroken("dom0 is full")
        """
    )
    assert run.code == 3
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"]) == ("failed", "lab")


def test_failed_setup_is_not_excused_by_what_the_test_is_known_to_say(known):
    run = known(
        "def test_it(installed_driver): pass",
        template="install=DriverFailure('xenvbd.inf could not be installed')",
        more='says = "two disks"',
    )
    assert run.code == 1
    test = by_name(run)["test_it"]
    assert (test["outcome"], test["blame"]) == ("error", "driver")


def test_errata_of_other_releases_do_not_apply(known, bench):
    inf = bench.path / "package" / "xenvbd.inf"
    inf.write_text(inf.read_text().replace("0.0.3.0", "0.0.4.0"))
    run = known("def test_it(installed_driver): pass")
    assert run.code == 0
    assert run.record["errata"] == []


def test_malformed_errata_are_one_line_and_no_test_runs(known):
    run = known("def test_it(installed_driver): pass", more="colour = 1")
    assert run.code == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in run.pytest.stderr.lines if line.strip()]
    assert len(errors) == 1
    assert "colour" in errors[0]
    assert run.record is None


def test_tests_of_the_lab_know_no_errata(known):
    run = known("def test_it(place): pass", driver=False)
    assert run.code == 0
