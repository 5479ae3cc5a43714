"""Packages that are refused before anything is built or booted for them."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from lab.core.paths import repo_root

INF = """\
[Version]
Signature="$Windows NT$"
Provider="pvlab tests"
DriverVer=11/09/2007,0.0.3.0
[Manufacturer]
"pvlab tests"=Models,NTx86
[Models.NTx86]
"Disk"=Install,XEN\\VBD
[Install.NTx86]
CopyFiles=Files
[Install.NTx86.Services]
AddService=xenvbd,2,Service
[Files]
xenvbd.sys
[Service]
ServiceType=1
StartType=0
ErrorControl=1
ServiceBinary=%12%\\xenvbd.sys
[DestinationDirs]
DefaultDestDir=12
"""


def missing(folder):
    return folder / "nowhere.zip"


def zip_that_climbs_out(folder):
    path = folder / "climbs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xenvbd.inf", INF)
        archive.writestr("../evil", "out of here")
    return path


def inf_without_its_sys(folder):
    path = folder / "half"
    path.mkdir()
    (path / "xenvbd.inf").write_text(INF)
    return path


def not_a_zip(folder):
    path = folder / "text.zip"
    path.write_text("no archive")
    return path


@pytest.mark.parametrize(
    ("package", "named"),
    [
        (missing, "nowhere.zip"),
        (zip_that_climbs_out, "../evil"),
        (inf_without_its_sys, "xenvbd.sys"),
        (not_a_zip, "text.zip"),
    ],
)
def test_unusable_package_is_one_line_and_code_2(tmp_path, package, named):
    path = package(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli", "gate", "--driver", str(path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo_root()), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("pvlab: ")
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before, "it left something behind"
    assert not (tmp_path.parent / "evil").exists()
