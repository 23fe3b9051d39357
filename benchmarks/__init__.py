"""What Parapet costs beside its peers: CPU per request and per event, latency added, memory held.

Nothing here is imported by the product.  `python -m benchmarks --help` tells how to run it;
every figure is a ratio to nginx, measured in the same round on the same core.
"""
