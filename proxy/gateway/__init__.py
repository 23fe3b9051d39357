"""The data plane. Start with `pipeline.py`: one request from look to tell, in one page.

It must never touch the store, Redis or the control process, and never let unscanned text
through a guarded route.
"""
