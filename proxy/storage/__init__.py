"""What must not be lost: one atomic `commit` and narrow ports over it, with an engine per
database.
"""
