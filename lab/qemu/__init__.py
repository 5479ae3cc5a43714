"""L0: QEMU processes, their monitor, disks, memory and ports.

Nothing in here knows what boots inside.
"""
