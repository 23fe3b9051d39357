"""Parapet: an LLM routing reverse proxy with inline guardrails.

The map of the house; imports only go down:

4   cli · demo · app        the commands; the built-in demo; what builds everything
3   gateway                 the data plane: one request, look to tell (see `gateway/pipeline.py`)
    control                 the control API: ingest, events, status, metrics
    workers                 background loops: supervisor, spooler, reloader
2   upstream                the way to a provider: connections, pools
    storage · spool         what must not be lost: `commit`, and each worker's log
    delivery                the way to people: webhooks, mail
    link                    the Unix socket between control process and data workers
    telemetry · settings    metrics and logs; the configuration file and its secrets
1½  runtime                 the only door to time, chance, ids and tasks
1   wire                    dialects, providers, framing, errors, usage, prices
    guardrails              packs, rules, checks, the exact stream guard
    routing                 outcomes, and what to do next
    incidents · alerting    from events to incidents and messages
0   model                   the words that all of them share
"""
