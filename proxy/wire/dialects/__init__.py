"""One file per body grammar: where its texts are, what its stream events mean, how it says an
error or an end.
"""
