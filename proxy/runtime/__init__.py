"""The only door to time, chance, ids and tasks. Everything above takes these through a port, so
that tests can move time.  Beside them stands which addresses may be spoken to.
"""
