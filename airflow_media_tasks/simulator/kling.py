"""Kling as `providers/kling.md` describes it: legacy endpoints, and two of the new standard."""

from __future__ import annotations

import time
import uuid
from typing import Any

import jwt

from airflow_media_tasks.simulator.kling_requests import LEGACY, NEW_STANDARD, Plan
from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route
from airflow_media_tasks.simulator.world import BAD_KEY, Refusal, Task, bad_request


ACCESS_KEY = "sim-access-key"
SECRET_KEY = "sim-secret-key-0123456789abcdef0123456789"  # noqa: S105  # the simulator's own, opens nothing

_LEEWAY = 5  # seconds that the server forgives `nbf` and `exp` ([O] kling.md 1)

_REFUSALS = {
    "auth": (401, 1002, "Authorization is invalid"),
    "funds": (429, 1102, "Account balance not enough"),
    "rate": (429, 1302, "The API request exceeds the rate limit"),
    "concurrency": (429, 1303, "parallel task over resource pack limit"),
    "moderation": (400, 1301, "Failure to pass the risk control system"),
    "bad_request": (400, 1201, "Invalid request parameters"),
    "not_found": (404, 1203, "The requested resource does not exist"),
    "server": (500, 5000, "Server internal error"),
}
_SERVER_CODES = {503: 5001, 504: 5002}
_FAILURES = {
    "moderation": "Failure to pass the risk control system",
    "provider": "Failed to generate",
    "timeout": "Generation timed out",
}


class Kling(Provider):
    """Both generations of endpoints; a legacy task can only be read through the path that created it."""

    name = "kling"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        legacy = []
        for path, plan in LEGACY.items():
            legacy += [
                Route("POST", path, "submit", self._create(path, plan)),
                Route("GET", path, "read", self._list(path)),
                Route("GET", f"{path}/{{id}}", "read", self._get(path)),
            ]
        return [
            *legacy,
            *(
                Route("POST", f"{path}/{{model}}", "submit", self._create_new(plan))
                for path, plan in NEW_STANDARD.items()
            ),
            Route("GET", "/tasks", "read", self._get_new),
            Route("POST", "/tasks", "read", self._list_new),
            Route("GET", "/account/costs", "read", self._costs),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def authenticate(self, call: Call) -> str:
        """The account of an API key, or of a JWT whose signature, issuer and times are really checked."""
        header = call.request.headers.get("Authorization", "")
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if not token:
            raise Refusal("auth", "Authorization is empty", code=1001)
        if scheme.lower() != "bearer" or token == BAD_KEY:
            raise Refusal("auth")
        if token.count(".") != 2:
            return token
        if not call.request.path.startswith(("/kling/v1/", "/kling/account/")):
            raise Refusal("auth", "this endpoint needs an API key")
        try:
            claims = jwt.decode(
                token,
                SECRET_KEY,
                algorithms=["HS256"],
                issuer=ACCESS_KEY,
                # The times are compared below, with the simulator's clock instead of the machine's.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["iss", "exp"],
                },
            )
            expires, not_before = float(claims["exp"]), float(claims.get("nbf", 0))
        except (jwt.PyJWTError, TypeError, ValueError):
            raise Refusal("auth") from None
        now = time.time() + call.world.skew(self.name)
        if not_before > now + _LEEWAY:
            raise Refusal("auth", "Authorization is not yet valid", code=1003)
        if expires < now - _LEEWAY:
            raise Refusal("auth", "Authorization has expired", code=1004)
        return ACCESS_KEY

    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """The envelope of kling.md 5, or the gateway's own body for an unknown path."""
        if refusal.reason == "no_route":
            return Reply(
                {
                    "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime()),
                    "status": 404,
                    "error": "Not Found",
                    "message": "No message available",
                    "path": call.request.path.removeprefix("/kling"),
                },
                404,
            )
        status, code, usual = _REFUSALS[refusal.reason]
        if refusal.code is not None:
            code = int(refusal.code)
        if code == 1201:
            status = 400
        if refusal.status is not None:
            status, code = refusal.status, _SERVER_CODES.get(refusal.status, code)
        headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        body = {"code": code, "message": refusal.message or usual, "request_id": str(uuid.uuid4())}
        return Reply(body, status, headers)

    # Legacy.

    def _create(self, path: str, plan: Plan) -> Any:
        async def create(call: Call) -> Reply:
            task = self._accept(call, path, plan, call.body, None)
            if path == "/v1/audio/tts":
                return _enveloped(_legacy(call, task))
            data = _legacy_head(call, task, "submitted", task.created)
            if "no-id" in task.words:
                data.pop("task_id")
            return _enveloped(data)

        return create

    def _accept(self, call: Call, path: str, plan: Plan, options: dict[str, Any], model: str | None) -> Task:
        made = plan.check(call, model)
        reference = options.get("external_task_id") if plan.has_external_id else None
        if reference is not None:
            if not isinstance(reference, str) or not reference:
                bad_request("external_task_id must be a string")
            if reference in call.account.by_client_ref:
                bad_request("external_task_id already exists")
        task = call.task = call.world.accept(
            call.account,
            made.operation,
            call.body,
            call.words,
            made.outputs,
            amount=made.units,
            currency="units",
            path=path,
            host=call.request.host,
            client_ref=reference,
            slots=made.slots,
            aspect_ratio=made.aspect_ratio,
            source=made.source,
            seconds=0 if path == "/v1/audio/tts" else None,
        )
        if reference is not None:
            call.account.by_client_ref[reference] = task
        return task

    def _get(self, path: str) -> Any:
        async def get(call: Call) -> Reply:
            task = self._find(call, call.request.match_info["id"])
            if task is None or task.path != path:
                unknown = call.world.fault("unknown_as", self.name, "read")
                if unknown and unknown.fields["value"] == "1201":
                    raise Refusal("bad_request", "task_id is invalid")
                raise Refusal("not_found")
            call.task = task
            return _enveloped(_legacy(call, task))

        return get

    def _find(self, call: Call, task_id: str) -> Task | None:
        by_reference = call.account.by_client_ref.get(task_id)
        return call.world.task(call.account, by_reference.id if by_reference else task_id)

    def _list(self, path: str) -> Any:
        async def read(call: Call) -> Reply:
            number = call.whole("pageNum", 1, 1, 1000)
            size = call.whole("pageSize", 30, 1, 500)
            now = call.world.now()
            tasks = [
                task
                for task in reversed(call.account.tasks)
                if task.path == path and task.visible_from <= now
            ]
            return _enveloped([_legacy(call, task) for task in tasks[(number - 1) * size : number * size]])

        return read

    # The new standard.

    def _create_new(self, plan: Plan) -> Any:
        async def create(call: Call) -> Reply:
            options = call.body.get("options") or {}
            if not isinstance(options, dict):
                bad_request("options must be an object")
            task = self._accept(call, "/tasks", plan, options, call.request.match_info["model"])
            data = {
                "id": task.id,
                "status": "submitted",
                "create_time": _milliseconds(call, task.created),
                "update_time": _milliseconds(call, task.created),
                "external_id": task.client_ref,
            }
            if "no-id" in task.words:
                data.pop("id")
            return _enveloped(data)

        return create

    async def _get_new(self, call: Call) -> Reply:
        """`GET /tasks`: whether it also returns legacy tasks is not documented; here it does not."""
        query = call.request.query
        if ("task_ids" in query) == ("external_task_ids" in query):
            bad_request("exactly one of task_ids and external_task_ids is required")
        ids = [
            one for one in (query.get("task_ids") or query.get("external_task_ids") or "").split(",") if one
        ]
        if not 1 <= len(ids) <= 50:
            bad_request("task_ids must name 1 to 50 tasks")
        find = call.account.by_client_ref.get if "external_task_ids" in query else call.world.tasks.get
        found = (call.world.task(call.account, task.id) for task in map(find, dict.fromkeys(ids)) if task)
        tasks = [task for task in found if task is not None and task.path == "/tasks"]
        if len(ids) == 1 and tasks:
            call.task = tasks[0]
        else:
            tasks = [
                task
                for task in tasks
                if not any(word in task.words for word in ("html", "truncated", "huge"))
            ]
        return _enveloped([None if "null" in task.words else _new(call, task) for task in tasks])

    async def _list_new(self, call: Call) -> Reply:
        limit = int(call.number("limit", 1, 500, whole=True) or 100)
        cursor = call.text("cursor", required=False) or "0"
        if not cursor.isdigit():
            bad_request(f"cursor value '{cursor}' is invalid")
        start = call.number("start_time", 0, 1e15)
        end = call.number("end_time", 0, 1e15)
        statuses: set[str] | None = None
        products = {"video", "image", "try_on"}
        for entry in call.body.get("filters") or []:
            values = entry.get("values") if isinstance(entry, dict) else None
            if not isinstance(values, list) or entry.get("key") not in ("status", "product_type"):
                bad_request("filters must be a list of {key: status|product_type, values: [...]}")
            if entry["key"] == "status":
                statuses = set(values)
            else:
                products = set(values)
        now = call.world.now()
        tasks = [
            task
            for task in reversed(call.account.tasks)
            if task.path == "/tasks"
            and task.visible_from <= now
            and "video" in products
            and (statuses is None or _word(task, now, "succeeded") in statuses)
            and (start is None or _milliseconds(call, task.created) >= start)
            and (end is None or _milliseconds(call, task.created) <= end)
        ]
        first = int(cursor)
        page = tasks[first : first + limit]
        more = first + limit < len(tasks)
        return _enveloped(
            {
                "result": [_new(call, task) for task in page],
                "count": len(page),
                "next_cursor": str(first + limit) if more else "",
                "has_more": more,
            }
        )

    async def _costs(self, call: Call) -> Reply:
        for key in ("start_time", "end_time"):
            value = call.request.query.get(key)
            if value is None or not value.isdigit():
                bad_request(f"{key} is required, in unix milliseconds")
        account = call.account
        now = _milliseconds(call, call.world.now())
        pack = {
            "resource_pack_name": "Simulated pack",
            "resource_pack_id": str(uuid.uuid5(uuid.NAMESPACE_OID, account.name)),
            "resource_pack_type": "decreasing_total",
            "total_quantity": 1_000_000.0 if account.balance else 0.0,
            "remaining_quantity": float(account.balance - account.reserved),
            "purchase_time": now - 86_400_000,
            "effective_time": now - 86_400_000,
            "invalid_time": now + 30 * 86_400_000,
            "status": "online" if account.balance else "runOut",
        }
        return _enveloped({"code": 0, "msg": "SUCCEED", "resource_pack_subscribe_infos": [pack]})


def _enveloped(data: Any) -> Reply:
    return Reply({"code": 0, "message": "SUCCEED", "request_id": str(uuid.uuid4()), "data": data})


def _word(task: Task, now: float, success: str) -> str:
    state = task.state(now)
    if state in ("queued", "running"):
        return task.words.text("status") or {"queued": "submitted", "running": "processing"}[state]
    return task.words.text("final") or {"succeeded": success, "failed": "failed"}[state]


def _updated(task: Task, now: float) -> float:
    return {"queued": task.created, "running": task.started}.get(task.state(now), task.ended)


def _legacy_head(call: Call, task: Task, word: str, updated: float) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "task_status": word,
        "task_info": {"external_task_id": task.client_ref} if task.client_ref else {},
        "created_at": _milliseconds(call, task.created),
        "updated_at": _milliseconds(call, updated),
    }


def _legacy(call: Call, task: Task) -> dict[str, Any]:
    now = call.world.now()
    data = _legacy_head(call, task, _word(task, now, "succeed"), _updated(task, now))
    data["task_status_msg"] = ""
    state = task.state(now)
    if state == "failed":
        data["task_status_msg"] = _FAILURES[task.words.text("fail") or "provider"]
    elif state == "succeeded":
        pack, balance = ("0", str(task.amount)) if "from-balance" in task.words else (str(task.amount), "0")
        data["final_unit_deduction"] = pack
        data["final_balance_deduction"] = {"quota": balance, "list_price": balance}
        data["task_result"] = {} if "no-output" in task.words else _legacy_result(call, task)
        parent = task.request.get("video_id")
        if isinstance(parent, str) and parent in call.world.outputs:
            made, index = call.world.outputs[parent]
            parent_video = {
                "id": parent,
                "url": call.url(made, index),
                "duration": _length(made.outputs[index].duration),
            }
            data["task_info"] = {**data["task_info"], "parent_video": parent_video}
    return data


def _legacy_result(call: Call, task: Task) -> dict[str, list[dict[str, Any]]]:
    result: dict[str, list[dict[str, Any]]] = {}
    audio: dict[str, Any] = {}
    for index, output in enumerate(task.outputs):
        url = call.url(task, index)
        marked = {"watermark_url": url} if "watermark" in task.words else {}
        if output.kind == "image":
            images = result.setdefault("images", [])
            images.append({"index": len(images), "url": url, **marked})
        elif output.kind == "video":
            duration = _length(output.duration)
            result.setdefault("videos", []).append(
                {"id": output.id, "url": url, **marked, "duration": duration}
            )
        elif task.path == "/v1/audio/tts":
            result["audios"] = [{"id": output.id, "url": url, "duration": _length(output.duration)}]
        else:
            audio |= {"id": output.id, f"url_{output.suffix}": url}
            audio[f"duration_{output.suffix}"] = _length(output.duration)
            result["audios"] = [audio]
    return result


def _new(call: Call, task: Task) -> dict[str, Any]:
    now = call.world.now()
    state = task.state(now)
    data: dict[str, Any] = {
        "id": task.id,
        "status": _word(task, now, "succeeded"),
        "message": _FAILURES[task.words.text("fail") or "provider"] if state == "failed" else "",
        "create_time": _milliseconds(call, task.created),
        "update_time": _milliseconds(call, _updated(task, now)),
        "external_id": task.client_ref,
        "outputs": [],
        "billing": [],
    }
    if state == "succeeded":
        amount = str(task.amount)
        data["billing"] = [
            {"charge_type": "unit", "package_type": "video", "amount": amount, "list_price": amount}
        ]
        if "no-output" not in task.words:
            output, url = task.outputs[0], call.url(task, 0)
            marked = {"watermark_url": url} if "watermark" in task.words else {}
            video = {
                "type": "video",
                "id": output.id,
                "url": url,
                **marked,
                "duration": _length(output.duration),
            }
            data["outputs"] = [video]
    return data


def _length(seconds: float | None) -> str:
    """A duration as Kling writes it: text, a little longer than what was asked for."""
    return f"{(seconds or 5) + 0.1:.1f}"


def _milliseconds(call: Call, moment: float) -> int:
    return int(call.stamp(moment) * 1000)
