"""The clocks of the machine, and what a thread may compute."""

import time

from proxy.runtime.clock import cpu_budget


def test_only_computing_counts_against_a_budget() -> None:
    little, much = cpu_budget(0.02), cpu_budget(3600)
    time.sleep(0.05)
    assert not little()
    began = time.thread_time()
    while time.thread_time() < began + 0.03:
        pass
    assert little()
    assert not much()
