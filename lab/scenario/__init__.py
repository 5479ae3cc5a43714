"""What is done to a guest and its disks, as a list that can be written, run, cut down and sent.

A scenario is recorded from a test, written by hand or made up from a crash report. ``model`` is
what it consists of, ``text`` its YAML form, ``run`` executes it, ``record`` listens to a test,
``minimise`` finds what of it is needed, ``repro`` goes from a crash report to one that shows the
crash again.
"""
