"""A place: one nested Xen host with one guest, cloned from a state that was baked once.

Puts the layers below together. Nothing in here knows what is tested.
"""
