"""The Xen host as seen from its dom0: connection, toolstack, xenstore, block devices, logs.

Every process started in an emulated dom0 costs 0.05 to 0.3 s, an ``xl`` 1 to 3 s and an SSH
handshake several seconds, so this layer keeps one connection and does compound operations
in one remote shell script.
"""
