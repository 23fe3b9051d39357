"""Builds everything and owns lifetimes: the data half, the control half, and the processes of both.

Nothing is built at import; whoever needs a clock, a store or a pool is given one here.
"""
