"""What the metrics show of store and spool."""

from proxy.storage.choose import Engine
from proxy.telemetry.exposition import Registry
from proxy.workers.spooler import SpoolProgress


def show_storage(metrics: Registry, spool: SpoolProgress, store: Engine) -> None:
    metrics.set("spool_bytes", (), spool.waiting_bytes)
    metrics.set("spool_lag_seconds", (), spool.lag_s)
    metrics.set("spool_corrupt_total", (), spool.corrupt)
    metrics.set("store_writable", (), int(store.writable()))
    metrics.set("store_queue_depth", (), store.queue_depth())
    link = store.link()
    if link is not None:
        metrics.set("redis_up", (), int(link["up"] is True))
        metrics.set("redis_rollbacks_total", (), store.rollbacks)
