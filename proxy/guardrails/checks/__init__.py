"""One file per kind of check: how a rule of that kind finds its spans."""
