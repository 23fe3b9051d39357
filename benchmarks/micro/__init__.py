"""Micro-benchmarks of single parts: for regressions only, never added up to a budget."""
