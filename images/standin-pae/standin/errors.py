"""Windows' texts for the errors that the real system under the stand-in reports.

Texts and numbers are those of MS-ERREF section 2.2 (Win32 error codes).
"""

import errno

#: errno -> (Win32 error code, text).
_WIN32 = {
    errno.ENOENT: (2, "The system cannot find the file specified."),
    errno.ENOTDIR: (3, "The system cannot find the path specified."),
    errno.EACCES: (5, "Access is denied."),
    errno.EPERM: (5, "Access is denied."),
    errno.EISDIR: (5, "Access is denied."),
    errno.ENODEV: (15, "The system cannot find the drive specified."),
    errno.EROFS: (19, "The media is write protected."),
    errno.ENXIO: (21, "The device is not ready."),
    errno.ENOTCONN: (21, "The device is not ready."),
    errno.ESTALE: (21, "The device is not ready."),
    errno.EBUSY: (
        32,
        "The process cannot access the file because it is being used by another process.",
    ),
    errno.EEXIST: (80, "The file exists."),
    errno.ENOSPC: (112, "There is not enough space on the disk."),
    errno.EINVAL: (123, "The filename, directory name, or volume label syntax is incorrect."),
    errno.ENOTEMPTY: (145, "The directory is not empty."),
    errno.EMEDIUMTYPE: (
        1005,
        "The volume does not contain a recognized file system.\nPlease make sure that all "
        "required file system drivers are loaded and that the\nvolume is not corrupted.",
    ),
    errno.EIO: (1117, "The request could not be performed because of an I/O device error."),
}

_OTHER = (31, "A device attached to the system is not functioning.")


def win32_code(error):
    """The Win32 error code for an ``OSError``."""
    return _WIN32.get(error.errno, _OTHER)[0]


def win32_text(error):
    """Windows' text for an ``OSError``."""
    return _WIN32.get(error.errno, _OTHER)[1]
