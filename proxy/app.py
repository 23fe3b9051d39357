"""Builds everything and owns lifetimes."""
