"""What every layer may use: errors, deadlines, command results, paths.

Nothing in here knows of QEMU, Xen or a guest.
"""
