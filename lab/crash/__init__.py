"""From a crash report to facts: dumps, logs and mails read into one vocabulary.

Files go in, ``lab.crash.facts.CrashFact`` comes out. No machine is touched here.
"""
