"""Checks that a service outside makes: what it is asked and how its answer is read, as data.

One module per service; `words.py` has what they share, `table.py` lists them.  Nothing here calls
anybody: the gateway does, and hands the parsed answer in.
"""
