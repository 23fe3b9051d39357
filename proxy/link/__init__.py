"""The Unix socket between the control process and the data workers: snapshots down, totals up.

Neither side ever waits for the other: a missing peer is tried again, the last good state stays
in force.
"""
