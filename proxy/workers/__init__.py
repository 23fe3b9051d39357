"""Background loops: take a batch, a pure step, one commit, acknowledge. And the supervisor of the
processes.
"""
