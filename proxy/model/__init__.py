"""The words all floors share: frozen types, the error tree, events, observations, ports.

In charge of names and shapes. It must never do anything: no I/O, no clock, no chance, no
environment.
"""
