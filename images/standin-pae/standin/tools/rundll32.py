"""rundll32.exe, for one call: ``setupapi,InstallHinfSection SECTION MODE INF``.

Windows Driver Kit, "InstallHinfSection": it installs the section (copies files, adds registry
entries) and the section ``SECTION.Services``, and knows nothing of devices. Like the real
program it prints nothing and ends with 0 whatever happens; setupapi.log tells.
"""

from standin.inf import Inf, InfError, decode
from standin.pnp import SetupLog, error_line


def run(ctx):
    """The one call there is; any other library is not there."""
    library, _, call = ctx.line.strip().partition(",")
    words = call.split(None, 3)
    if library.lower() not in ("setupapi", "setupapi.dll") or len(words) < 4:
        return 0
    if words[0].lower() != "installhinfsection":
        return 0
    section, name = words[1], words[3].strip('"')
    log = SetupLog(ctx.system.windows_file("setupapi.log"), ctx.process.pid)
    log(f'#-199 Executing "rundll32.exe" with command line: rundll32.exe {ctx.line.strip()}')
    try:
        path = ctx.path(name)
        with open(path, "rb") as file:
            inf = Inf(decode(file.read()))
        model = inf.section_model(section)
        ctx.system.devices.install_section(model, path, log)
    except (OSError, InfError) as error:
        log(error_line(section, error))
    return 0
