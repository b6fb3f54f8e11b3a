"""The providers on loopback: a real HTTP server that bills in a ledger and misbehaves on request.

It knows nothing of the rest of the package, so that it can prove the hooks wrong. See `docs/simulator.md`.
"""

from airflow_media_tasks.simulator.simulator import Simulator


__all__ = ["Simulator"]
