from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import LabBroken
from lab.xen.domain import Domain, parse_list

GOLDEN = Path(__file__).parent / "golden"
SAMPLE = Path(__file__).parents[4] / "shared/samples/xm_list_sample.txt"


def test_xl() -> None:
    domains = parse_list((GOLDEN / "xl_list.txt").read_text())
    assert domains[0] == Domain("Domain-0", 0, 768, 1, "r-----", 91.4)
    assert [one.name for one in domains] == [
        "Domain-0",
        "virtdemo",
        "win 2003 test",
        "kept after a crash",
        "(null)",
    ]
    assert [one.shut_down for one in domains] == [False, False, True, True, True]
    assert [one.crashed for one in domains] == [False, False, False, True, False]
    assert domains[-1].dying


def test_xm_with_mem_leaves_out_what_does_not_run() -> None:
    domains = parse_list((GOLDEN / "xm_list_mem.txt").read_text())
    assert [(one.name, one.domid, one.mem_mib) for one in domains] == [
        ("Domain-0", 0, 1450),
        ("virtdemo", 6, 512),
        ("broken", 14, 512),
    ]
    assert domains[2].crashed
    assert not domains[2].shut_down


def test_xm_with_mem_mib() -> None:
    domains = parse_list((GOLDEN / "xm_list_mib.txt").read_text())
    assert domains[1] == Domain("virtdemo", 1, 512, 1, "------", 8.6)


@pytest.mark.skipif(not SAMPLE.exists(), reason="no samples on this machine")
def test_real_sample() -> None:
    table = [
        line
        for line in SAMPLE.read_text().splitlines()
        if line.rstrip()[-2:-1] == "." or "Mem(MiB)" in line
    ]
    assert [one.domid for one in parse_list("\n".join(table))] == [0, 164, 165, 166, 167, 168]


def test_nonsense() -> None:
    with pytest.raises(LabBroken, match="cannot read this line of the domain list: what"):
        parse_list("Name  ID\nwhat is this\n")
