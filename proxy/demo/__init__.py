"""The built-in story: fake providers on loopback, one failover policy, one pack, and commands to
try.
"""
