"""Packs, rules, checks and the exact stream guard: which text may pass, and what becomes of the
rest.

Read `engine.py` first, then `stream.py`: the law, then the code.  A pack becomes rules in
`compile.py` and `reading.py`; a pattern becomes a tree in `parse.py` and an automaton in
`automaton.py`; every search is in `matching.py`.

Pure: texts in, judgements out. It must never await, log, or let a text through because a check
broke.
"""
