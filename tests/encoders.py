"""What Airflow does with a value of ours before anybody else sees it."""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.comms import _new_encoder
from airflow.sdk.serde import deserialize


LARGEST = 8 * 1024 * 1024


def must_take(document: Any) -> None:
    """Fails unless *document* passes: what does not, ends the triggerer with all that wait there, or a task.

    A trigger's event goes to the supervisor in msgpack, an XCom through Airflow's serde, both into a JSON
    column of PostgreSQL, which has neither NUL nor half of a surrogate pair nor NaN.
    """
    _new_encoder().encode(document)
    kept = json.loads(json.dumps(BaseXCom.serialize_value(document)))
    assert deserialize(kept) == document
    column = json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    assert len(column) < LARGEST
    assert not any("\0" in text for text in _texts(document))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _texts(part)]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []
