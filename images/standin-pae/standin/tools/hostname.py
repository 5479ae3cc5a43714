"""hostname.exe: the computer's name in lower case is kept as it is set, as on Server 2003."""


def run(ctx):
    """Print the computer's name."""
    if ctx.args:
        ctx.err(
            "sethostname: Use the Network Control Panel Applet to set hostname.\n"
            "hostname -s is not supported.\n"
        )
        return 1
    ctx.out(ctx.system.config.computer_name + "\n")
    return 0
