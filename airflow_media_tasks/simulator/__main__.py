"""`python -m airflow_media_tasks.simulator --port 8765 --seconds 3`."""

from __future__ import annotations

import argparse
import signal
import sys

from airflow_media_tasks.simulator.kling import ACCESS_KEY, SECRET_KEY
from airflow_media_tasks.simulator.simulator import PROVIDERS, Simulator
from airflow_media_tasks.simulator.world import BAD_KEY, NO_FUNDS_KEY


def main() -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_media_tasks.simulator",
        description="The providers on loopback; nothing is paid, real media files come out.",
    )
    parser.add_argument("--port", type=int, default=8765, help="TCP port, 0 for a free one (default 8765)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a task takes (default 3)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    options = parser.parse_args()
    # Blocked here and in the threads to come, then waited for: no handler runs, so a second signal cannot
    # find the first one's half done.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        simulator = Simulator(options.port, options.seconds, options.host).start()
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr)
        return 1
    print(f"simulator   {simulator.url}")
    for name in (provider.name for provider in PROVIDERS):
        print(f"{name:<11} {simulator.url}/{name}")
    print(f"API key     anything; {BAD_KEY} is refused, {NO_FUNDS_KEY} has no money")
    print(f"Kling JWT   access key {ACCESS_KEY}, secret key {SECRET_KEY}")
    print(f"control     {simulator.url}/_sim/ledger, /requests, /tasks, /faults, /clock", flush=True)
    signal.sigwait(signals)
    simulator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
