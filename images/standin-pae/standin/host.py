"""What the stand-in asks of the real system under it: programs, block devices, power.

All effects on the guest go through ``Host``, so that unit tests can replace it.
"""

import os
import threading
import time

#: BLKRRPART, _IO(0x12, 95) in Linux' include/uapi/linux/fs.h.
BLKRRPART = 0x125F


class Host:
    """The real thing.

    Args:
        config: a ``standin.config.Config``.
    """

    def __init__(self, config):
        self._config = config

    def run(self, program, *args, process=None):
        """Run one of the configured programs and wait for it.

        Args:
            program: key of ``Config.programs``.
            args: appended to its configured argument list.
            process: entry of the process table; ending it kills the program.

        Returns:
            Exit status (128 plus the signal's number if one killed it, 127 if it could not be
            started) and its output with errors, as bytes.
        """
        argv = [*self._config.programs[program], *args]
        reader, writer = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writer, 1),
            (os.POSIX_SPAWN_DUP2, writer, 2),
        ]
        try:
            child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
        except OSError as error:
            os.close(reader)
            return 127, f"{argv[0]}: {error.strerror}".encode()
        finally:
            os.close(writer)

        def kill():
            os.kill(child, 9)

        if process is not None:
            process.on_end(kill)
        chunks = []
        while data := os.read(reader, 65536):
            chunks.append(data)
        os.close(reader)
        if process is not None:
            process.forget(kill)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return (128 - code if code < 0 else code), b"".join(chunks)

    def reread_partitions(self, device):
        """Make the kernel read a disk's partition table again.

        Raises:
            OSError: the kernel refused, for example because a partition is in use.
        """
        from fcntl import ioctl

        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ioctl(fd, BLKRRPART)
        finally:
            os.close(fd)

    def set_clock(self, seconds):
        """Set the system's clock.

        Args:
            seconds: since the epoch.

        Raises:
            OSError: the kernel refused.
        """
        time.clock_settime(time.CLOCK_REALTIME, seconds)

    def is_mounted(self, folder):
        """Whether something is mounted at ``folder``."""
        try:
            return os.path.ismount(folder)
        except OSError:
            # A dead FUSE mount cannot be looked at, but is still one.
            return True

    def power(self, action, delay_s, process, before):
        """Reboot or power off after ``delay_s`` seconds, in the background.

        Args:
            action: ``"reboot"`` or ``"poweroff"``.
            delay_s: seconds to wait first.
            process: ending it (``shutdown /a``) calls the action off.
            before: called right before the action: unmounting.
        """
        cancelled = threading.Event()
        process.on_end(cancelled.set)

        def act():
            aborted = cancelled.wait(delay_s)
            process.exited()
            if not aborted:
                before()
                self._power_now(action)

        threading.Thread(target=act, name="shutdown", daemon=True).start()

    def _power_now(self, action):
        os.sync()
        argv = [word.replace("{action}", action) for word in self._config.power]
        os.posix_spawnp(argv[0], argv, os.environ)
