"""Packs, rules, checks and the exact stream guard: which text may pass, and what becomes of the
rest.

Pure: texts in, judgements out. It must never await, log, or let a text through because a check
broke.
"""
