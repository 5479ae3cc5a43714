"""The kinds of media the lab can use, and where users have them from."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from lab.core.errors import UsageError


class MediaKind(enum.StrEnum):
    """What a medium is for; recipes ask for these names."""

    W2K3_SP2_I386 = "w2k3-sp2-i386"
    KB968930 = "kb968930"
    DOTNET20 = "dotnet20"
    DBGVIEW = "dbgview"
    DEVCON = "devcon"
    WDF_COINSTALLER = "wdf-coinstaller"
    EL5_X86_64 = "el5-x86_64"
    EL5_I386 = "el5-i386"
    XEN34_EL5 = "xen34-el5"
    PLAY_SETUP = "play-setup"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kind, for people.

    Attributes:
        title: what is wanted.
        source: where users usually get it.
    """

    title: str
    source: str


_EL5 = "the CentOS vault (CentOS-5.x DVD or disc 1), or a RHEL 5 subscription's archive"

WANTED: dict[MediaKind, Wanted] = {
    MediaKind.W2K3_SP2_I386: Wanted(
        "Windows Server 2003 with Service Pack 2, 32-bit (i386), an ISO of the installation disc",
        "the original disc, volume licensing, or a Visual Studio (MSDN) subscription",
    ),
    MediaKind.KB968930: Wanted(
        "KB968930 for Windows Server 2003 x86 (Windows Management Framework Core, WinRM 2.0)",
        "the Microsoft Update Catalog, as WindowsServer2003-KB968930-x86-ENG.exe or another "
        "language",
    ),
    MediaKind.DOTNET20: Wanted(
        ".NET Framework 2.0 SP1 or SP2 for x86, which KB968930 requires",
        "the Microsoft Download Center's archives, as NetFx20SP1_x86.exe or NetFx20SP2_x86.exe",
    ),
    MediaKind.DBGVIEW: Wanted(
        "DbgView (DebugView) that runs on Server 2003: version 4.81 or older",
        "Sysinternals' DebugView.zip of that time, unpacked: Dbgview.exe",
    ),
    MediaKind.DEVCON: Wanted(
        "devcon.exe for x86",
        "a Windows Driver Kit up to 7.1, tools\\devcon\\i386, or Microsoft's KB311272",
    ),
    MediaKind.WDF_COINSTALLER: Wanted(
        "a WDF co-installer for x86, such as WdfCoInstaller01005.dll",
        "the Windows Driver Kit the driver was built with, redist\\wdf\\x86",
    ),
    MediaKind.EL5_X86_64: Wanted("CentOS or RHEL 5.x for x86_64, DVD or disc 1", _EL5),
    MediaKind.EL5_I386: Wanted("CentOS or RHEL 5.x for i386, DVD or disc 1", _EL5),
    MediaKind.XEN34_EL5: Wanted(
        "a disc with packages of Xen 3.4 for Enterprise Linux 5, both i386 and x86_64: "
        "xen-3.4.*.rpm and xen-libs-3.4.*.rpm",
        "a repository of that time, such as gitco's; genisoimage -R -o xen34.iso FOLDER",
    ),
    MediaKind.PLAY_SETUP: Wanted(
        "the lab's own play-setup disc, for tests of installations; no Windows is on it",
        "pvlab image build play-setup",
    ),
}


class Identity(BaseModel):
    """What a file was recognised as.

    Attributes:
        kind: what it is for.
        title: what it is, for people.
        facts: what its content says: edition, language, version and the like.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: MediaKind
    title: str
    facts: dict[str, str] = {}


class Unusable(UsageError):
    """A file that is no medium the lab can use.

    Args:
        name: the file.
        what: what it is, or what is wrong with it.
        wanted: the kinds it may have been meant for; all when empty.
    """

    def __init__(self, name: str, what: str, wanted: Iterable[MediaKind] = ()) -> None:
        self.what = what
        self.wanted = tuple(wanted)
        kinds = [WANTED[kind] for kind in self.wanted]
        if kinds:
            hint = "; ".join(f"wanted: {one.title}; usually from: {one.source}" for one in kinds)
        else:
            hint = "pvlab media list shows what is wanted and where users get it"
        super().__init__(f"{name}: {what}", hint=hint)


def kind_named(name: str) -> MediaKind:
    """The kind of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        return MediaKind(name)
    except ValueError:
        known = ", ".join(MediaKind)
        raise UsageError(
            f"no kind of media is called {name!r}", hint=f"there are: {known}"
        ) from None
