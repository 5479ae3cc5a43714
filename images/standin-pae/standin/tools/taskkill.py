"""taskkill.exe: end processes of the stand-in.

Texts and exit codes (128: not found): Server 2003's "Taskkill".
"""

from standin.paths import matcher


def run(ctx):
    """``taskkill [/f] [/t] {/im name | /pid number}...``."""
    args = ctx.args
    force = False
    wanted = []
    index = 0
    while index < len(args):
        word = args[index].lower()
        if word == "/f":
            force = True
        elif word in ("/im", "/pid") and index + 1 < len(args):
            index += 1
            wanted.append((word, args[index]))
        elif word != "/t":
            ctx.err(
                f"ERROR: Invalid argument/option - '{args[index]}'.\n"
                'Type "TASKKILL /?" for usage.\n'
            )
            return 1
        index += 1
    if not wanted:
        ctx.err(
            "ERROR: Invalid syntax. Neither /FI nor /PID nor /IM were specified.\n"
            'Type "TASKKILL /?" for usage.\n'
        )
        return 1
    code = 0
    for kind, text in wanted:
        found = [
            process
            for process in ctx.system.processes.running()
            if process is not ctx.process
            and (
                matcher(text)(process.name)
                if kind == "/im"
                else text.isdigit() and process.pid == int(text)
            )
        ]
        if not found:
            ctx.err(f'ERROR: The process "{text}" not found.\n')
            code = 128
        for process in found:
            process.end(1)
            # The name is free again once taskkill has returned.
            process.exited()
            if force:
                ctx.out(
                    f'SUCCESS: The process "{process.name}" with PID {process.pid} has been '
                    "terminated.\n"
                )
            else:
                ctx.out(
                    f'SUCCESS: Sent termination signal to the process "{process.name}" with PID '
                    f"{process.pid}.\n"
                )
    return code
