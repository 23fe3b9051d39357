"""The control API: one table of routes, one chain of checks, one file per resource."""
