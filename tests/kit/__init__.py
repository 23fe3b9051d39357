"""Fakes of the ports, and real-socket players: what the tests of every floor share."""
