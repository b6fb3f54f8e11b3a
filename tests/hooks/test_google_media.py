from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.hooks.google_media import GoogleMediaHook
from airflow_media_tasks.landing import storage
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaExpiredError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .by_hand import reply
from .case import KEY, HookCase
from .contract import HookContract
from .peer import Peer, say


PICTURE = "data:image/jpeg;base64," + base64.b64encode(bytes(range(90))).decode()
FILM = base64.b64encode(bytes(range(90))).decode()
VERTEX = {"vertex": True, "project": "films-1", "location": "europe-west4"}
BELOW = "projects/films-1/locations/europe-west4/publishers/google/"
PREVIEW = "models/veo-3.1-generate-preview"
PLACE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}


class VeoContract(HookContract):
    """What is so of both."""

    hook_class = GoogleMediaHook
    paid = "text_to_video"
    other = "text_to_video"
    foreign_ids = ("veo/0000", "videos/text2video/0000", "models/veo", "models/../0000", "task id", "0000")
    ambiguous = frozenset(GoogleMediaHook.operations)
    begins = TaskStatus.RUNNING
    samples: ClassVar = {
        "text_to_video": {"prompt": "a lighthouse at dusk", "duration": "8", "aspect_ratio": "16:9"},
        "image_to_video": {"prompt": "it rains", "image_url": PICTURE, "end_image_url": PICTURE},
        "extend_video": {"prompt": "it stops", "video_url": FILM},
    }
    models: ClassVar[str]

    def expected_mark(self, operation: str) -> None:
        """An operation has no place for a mark of ours."""

    def group_of(self, operation: str) -> str:
        """The model's name, as the operation's begins."""
        return self.models

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """The name of an operation."""
        return {"name": f"{self.models}/operations/{own_id}" if isinstance(own_id, str) else own_id}

    def test_unknown_status_word_is_running_and_logged_once(
        self, hook: MediaHook, sim: Simulator, call: Any
    ) -> None:
        """There is no status word: whatever is not done runs, however long."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:seconds=1000]"))
        for _ in range(2):
            sim.advance(400)
            assert call(hook, "get_task", task.id).status is TaskStatus.RUNNING

    # What refuses and fails.

    def test_all_withheld_is_moderation(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """An operation that is done without an error, and with all of its films withheld, has failed."""
        task = call(hook, "submit", self.paid, {**self.with_words("[sim:fail=moderation]"), "count": 2})
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert (done.status, done.files) == (TaskStatus.FAILED, ())
        assert type(done.error) is MediaModerationError
        assert done.error.code == "filtered"
        assert "could not generate 2 videos" in str(done.error)

    def test_what_is_not_withheld_is_kept(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """Of several films of which one was withheld the others are the result."""
        task = call(hook, "submit", self.paid, {**self.with_words("[sim:response=partial]"), "count": 3})
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert (done.status, len(done.files)) == (TaskStatus.SUCCEEDED, 2)

    def test_a_lost_submission_is_a_question(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """There is neither a list nor a place for a mark: it is never said that nothing was accepted."""
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, self.with_words("[sim:lose-reply]"))
        assert not any(hook.can_be_asked(name) for name in hook.operations)
        assert len(sim.ledger()) == 1

    @pytest.mark.parametrize(
        ("given", "word"),
        [("image_to_video", "image_url"), ("image_to_video", "end_image_url"), ("extend_video", "video_url")],
    )
    def test_nothing_is_fetched_from_the_web(
        self, hook: MediaHook, sim: Simulator, call: Any, given: str, word: str
    ) -> None:
        """An address is refused before it is paid for, with what may stand there."""
        wrong = {**self.samples[given], word: "https://example.com/1.png"}
        with pytest.raises(MediaRequestError, match=f"argument {word!r} of {given!r} must be base64"):
            call(hook, "submit", given, wrong)
        assert sim.ledger() == []

    # What lands.

    def landed(
        self, hook: MediaHook, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
    ) -> list[dict[str, Any]]:
        """What lands of a task with these arguments, as an operator lands it."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        task = hook.submit(self.paid, {**self.samples[self.paid], **more})
        sim.advance(10)
        result = {**hook.get_task(task.id).to_dict(), "media_conn_id": hook.media_conn_id}
        assert MediaTask.from_dict(json.loads(json.dumps(result))).urls == result["urls"]
        assert len(json.dumps(result)) < 5000
        made = storage.made_of(result, [hook.media_conn_id])
        (document,) = storage.land(made, storage.Destination(f"{tmp_path.as_uri()}/", PLACE), hook.log)
        files: list[dict[str, Any]] = document["files"]
        assert KEY not in json.dumps(document)
        for file in files:
            content = Path(file["path"].removeprefix("file://")).read_bytes()
            assert (file["content_type"], content[4:8], len(content)) == ("video/mp4", b"ftyp", file["size"])
        return files


class TestByTheGeminiApi(VeoContract):
    """The contract, for a key of the Gemini API."""

    models = PREVIEW
    unknown_id = f"{PREVIEW}/00000000"
    wrong_key_words = "API key not valid"
    wrong_key_status = "400"
    results_at = "/google_media/v1beta/files/"
    documented = (("text_to_video", "1.mp4", "video/mp4"),)

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """An operation that made one film."""
        made = {"generatedSamples": [{"video": {"uri": url}}]}
        return {**self.accepted("t-1"), "done": True, "response": {"generateVideoResponse": made}}

    def test_what_is_sent(self, hook: MediaHook, sim: Simulator) -> None:
        """One instance with what is seen, parameters under Veo's words, and what stands beside both."""
        negative = {"negative_prompt": "rain", "resolution": "1080p", "personGeneration": "allow_adult"}
        hook.submit("text_to_video", {"prompt": "a cup", "duration": "8", "count": "2", **negative})
        hook.submit(
            "image_to_video",
            {"prompt": "it turns", "image_url": PICTURE, "end_image_url": FILM, "labels": {"a": "b"}},
        )
        hook.submit("extend_video", {"video_url": FILM, "model": "veo-9-of-next-year"})
        content = PICTURE.partition(",")[2]
        assert [entry["request"] for entry in sim.ledger()] == [
            {
                "instances": [{"prompt": "a cup"}],
                "parameters": {
                    "durationSeconds": 8,
                    "sampleCount": 2,
                    "negativePrompt": "rain",
                    "resolution": "1080p",
                    "personGeneration": "allow_adult",
                },
            },
            {
                "instances": [
                    {
                        "prompt": "it turns",
                        "image": {"bytesBase64Encoded": content, "mimeType": "image/jpeg"},
                        "lastFrame": {"bytesBase64Encoded": FILM, "mimeType": "image/png"},
                    }
                ],
                "parameters": {},
                "labels": {"a": "b"},
            },
            {"instances": [{"video": {"encodedVideo": FILM, "encoding": "video/mp4"}}], "parameters": {}},
        ]
        assert "POST /google_media/{version:v1|v1beta}/models/{model:[^/:]+}:predictLongRunning" in (
            sim.requests()
        )

    def test_a_film_of_this_account_is_extended(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """What this account has made is named by its address."""
        made = self.finished(hook, sim)
        call(hook, "submit", "extend_video", {"prompt": "it goes on", "video_url": made.url})
        (instance,) = sim.ledger()[1]["request"]["instances"]
        assert instance == {"prompt": "it goes on", "video": {"uri": made.url}}

    def test_the_key_goes_in_a_header(self, connect: Any, peer: Peer) -> None:
        """The key stands in no address."""
        hook = GoogleMediaHook(connect(conn_type="google_media", host=peer.url, password=KEY))
        peer.answer = lambda handler: say(handler, self.accepted("t-1"))
        hook.get_task(f"{PREVIEW}/t-1")
        ((method, path, headers, _),) = peer.seen
        assert (method, path) == ("GET", f"/v1beta/{PREVIEW}/operations/t-1")
        assert headers["x-goog-api-key"] == KEY
        assert "authorization" not in headers

    def test_a_file_behind_the_key_lands(
        self, hook: MediaHook, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A film that is only given to the key lands with it; the result says so, and has no key."""
        files = self.landed(hook, sim, tmp_path, monkeypatch, count=2)
        assert [file["access"] for file in files] == ["key", "key"]
        assert sum("files" in route for route in sim.requests()) == 1

    def test_what_another_address_names_is_asked_at_the_connections(self, connect: Any, peer: Peer) -> None:
        """Behind a gateway a film is downloaded there, too, whatever address the document names."""
        hook = GoogleMediaHook(connect(conn_type="google_media", host=f"{peer.url}/google", password=KEY))
        said = "https://generativelanguage.googleapis.com/v1beta/files/abc-123:download?alt=media"
        peer.answer = lambda handler: say(handler, self.finished_with("text_to_video", said))
        (file,) = hook.get_task(f"{PREVIEW}/t-1").files
        assert file.url == f"{peer.url}/google/v1beta/files/abc-123:download?alt=media"
        assert file.access == "key"

    def test_an_address_elsewhere_is_left_as_it_is(self, connect: Any, peer: Peer) -> None:
        """A film at another host is anybody's: its address stays, and no key goes there."""
        hook = GoogleMediaHook(connect(conn_type="google_media", host=peer.url, password=KEY))
        said = "https://cdn.example.com/v1beta/files/a.mp4"
        peer.answer = lambda handler: say(handler, self.finished_with("text_to_video", said))
        (file,) = hook.get_task(f"{PREVIEW}/t-1").files
        assert (file.url, file.access, file.kind) == (said, None, "video")
        assert hook.headers_for(said) == {}
        assert hook.headers_for("https://storage.googleapis.com/films/1.mp4") == {}

    def test_a_film_in_the_document_lands(
        self, hook: MediaHook, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A film that is no file but stands in the operation lands from there."""
        files = self.landed(hook, sim, tmp_path, monkeypatch, prompt="a cup [sim:inline]")
        assert [file["access"] for file in files] == ["task"]


class TestByVertex(VeoContract):
    """The contract, for a token of Vertex; films come inline unless a bucket is named."""

    models = f"{BELOW}models/veo-3.1-generate-001"
    unknown_id = f"{models}/00000000"
    wrong_key_words = "invalid authentication credentials"
    results_at = f"/google_media/{BELOW}models/veo-3.1-generate-001/"

    def hook_for(self, connect: Any, sim: Simulator, **fields: Any) -> MediaHook:
        """A hook of a connection that names a project and a location."""
        extra = {**VERTEX, **fields.pop("extra", {})}
        return super().hook_for(connect, sim, extra=extra, **fields)

    def test_what_is_sent(self, hook: MediaHook, sim: Simulator) -> None:
        """Below the project and the location, with Vertex's own parameters passed on."""
        hook.submit("text_to_video", {"prompt": "a cup", "seed": "7", "storageUri": "gs://films/today"})
        hook.submit("extend_video", {"video_url": FILM, "model": "veo-9"})
        assert [entry["request"] for entry in sim.ledger()] == [
            {
                "instances": [{"prompt": "a cup"}],
                "parameters": {"seed": 7, "storageUri": "gs://films/today"},
            },
            {
                "instances": [{"video": {"bytesBase64Encoded": FILM, "mimeType": "video/mp4"}}],
                "parameters": {},
            },
        ]

    def test_how_it_is_asked(self, connect: Any, peer: Peer) -> None:
        """By a token, a submission below the project, a look by its name."""
        fields = {"conn_type": "google_media", "host": peer.url, "password": KEY, "extra": VERTEX}
        hook = GoogleMediaHook(connect(**fields))
        peer.answer = lambda handler: say(handler, self.accepted("t-1"))
        task = hook.submit("text_to_video", {"prompt": "a cup"})
        hook.get_task(task.id)
        assert task.id == f"{self.models}/t-1"
        (_, first, headers, _), (method, second, _, body) = peer.seen
        assert first == f"/v1beta1/{self.models}:predictLongRunning"
        assert (method, second) == ("POST", f"/v1beta1/{self.models}:fetchPredictOperation")
        assert json.loads(body) == {"operationName": f"{self.models}/operations/t-1"}
        assert headers["authorization"] == f"Bearer {KEY}"
        assert "x-goog-api-key" not in headers

    @pytest.mark.parametrize(
        ("location", "address"),
        [
            ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
            ("global", "https://aiplatform.googleapis.com"),
        ],
    )
    def test_the_address_is_that_of_the_location(self, connect: Any, location: str, address: str) -> None:
        """Each location has an API of its own."""
        extra = {**VERTEX, "location": location}
        hook = GoogleMediaHook(connect(conn_type="google_media", password=KEY, extra=extra))
        assert hook._address("") == address
        assert hook._address("storage") == "https://storage.googleapis.com"
        assert hook.headers_for(f"{address}/v1/x") == {"Authorization": f"Bearer {KEY}"}
        assert hook.headers_for("https://storage.googleapis.com/b/o") == {"Authorization": f"Bearer {KEY}"}
        assert hook.headers_for("https://storage.googleapis.com.evil.com/b/o") == {}

    def test_films_inline_land(
        self, hook: MediaHook, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Films that come within the operation land, and neither XCom nor a waiting task carries them."""
        files = self.landed(hook, sim, tmp_path, monkeypatch, count=2)
        assert [file["access"] for file in files] == ["task", "task"]
        assert len({file["sha256"] for file in files}) == 2

    def test_films_in_a_bucket_land(
        self, hook: MediaHook, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Films that Veo leaves in a bucket land from there, with the token."""
        files = self.landed(hook, sim, tmp_path, monkeypatch, storageUri="gs://films/of today/")
        assert [file["access"] for file in files] == ["key"]
        assert files[0]["url"].startswith(f"{sim.url}/google_media/storage/films/of%20today/")

    def test_a_film_in_a_bucket_is_extended(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """What lies in Google's storage is named by its address, and sent as Vertex calls it."""
        task = hook.submit(self.paid, {"prompt": "a cup", "storageUri": "gs://films/of today/"})
        sim.advance(10)
        made = hook.get_task(task.id)
        call(hook, "submit", "extend_video", {"video_url": made.url})
        (instance,) = sim.ledger()[1]["request"]["instances"]
        place = f"gs://films/of today/{task.id.rpartition('/')[2]}/sample_0.mp4"
        assert instance["video"] == {"gcsUri": place, "mimeType": "video/mp4"}

    def test_a_film_that_is_gone_has_expired(
        self, hook: MediaHook, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An operation that Vertex has forgotten with its films is an expired result, and said to be paid."""
        task = hook.submit(self.paid, self.samples[self.paid])
        sim.advance(10)
        result = {**hook.get_task(task.id).to_dict(), "media_conn_id": hook.media_conn_id}
        sim.reset()
        made = storage.made_of(result, [hook.media_conn_id])
        with pytest.raises(MediaExpiredError, match="generated and paid for"):
            storage.land(made, storage.Destination(f"{tmp_path.as_uri()}/", PLACE), hook.log)
        with pytest.raises(MediaNotFoundError):
            hook.get_file(task.id, 0)

    @pytest.mark.parametrize("size", [3_000_000, 30_000_000])
    def test_a_large_film_is_not_carried_by_who_waits(
        self, connect: Any, peer: Peer, call: Any, size: int
    ) -> None:
        """Of a reply of any size a look keeps little; the film itself is had whole by who lands it."""
        content = bytes(size)
        made = {
            "videos": [{"bytesBase64Encoded": base64.b64encode(content).decode(), "mimeType": "video/mp4"}]
        }
        document = {**self.accepted("t-1"), "done": True, "response": made}
        peer.answer = lambda handler: say(handler, document)
        fields = {"conn_type": "google_media", "host": peer.url, "password": KEY, "extra": VERTEX}
        hook = GoogleMediaHook(connect(**fields))
        task = call(hook, "get_task", f"{self.models}/t-1")
        assert (task.status, len(task.files)) == (TaskStatus.SUCCEEDED, 1)
        assert len(json.dumps(task.raw)) < 20_000
        assert call(hook, "get_file", task.id, 0) == content
        assert peer.seen[0][2]["accept-encoding"] == "identity"

    @pytest.mark.parametrize("held", [[], ["%%%"], [5], "x", None, [{"bytesBase64Encoded": "AA=="}] * 2])
    def test_a_file_that_is_none(self, connect: Any, peer: Peer, held: Any) -> None:
        """What a document holds in the place of a file is an error of ours, whatever it is."""
        films = held if not isinstance(held, list) else [{"bytesBase64Encoded": one} for one in held]
        document = {**self.accepted("t-1"), "done": True, "response": {"videos": films}}
        peer.answer = lambda handler: say(handler, document)
        fields = {"conn_type": "google_media", "host": peer.url, "password": KEY, "extra": VERTEX}
        with pytest.raises(MediaNotFoundError, match="has no file"):
            GoogleMediaHook(connect(**fields)).get_file(f"{self.models}/t-1", 0)

    # What the connection says.

    @pytest.mark.parametrize(
        ("extra", "expected"),
        [
            ({"project": ""}, "vertex needs a project in extra, such as 'films-1', got ''"),
            ({"project": "Films"}, "project"),
            ({"project": "../films"}, "project"),
            ({"location": None}, "vertex needs a location in extra, such as 'us-central1', got None"),
            ({"location": "evil.com/#"}, "location"),
            ({"location": "us-central1.evil.com"}, "location"),
            ({"location": 5}, "location"),
            ({"vertex": "yes"}, "vertex in extra must be true or false, got 'yes'"),
            (
                {"vertex": False, "google_cloud_conn_id": "google"},
                "google_cloud_conn_id in extra is for Vertex",
            ),
        ],
    )
    def test_what_is_missing_or_wrong(
        self, connect: Any, sim: Simulator, call: Any, extra: dict[str, Any], expected: str
    ) -> None:
        """It is named with the connection, also by Test, before a key goes to such a host."""
        hook = self.hook_for(connect, sim, extra=extra)
        with pytest.raises(MediaRequestError, match=f"'account'.*{expected}"):
            call(hook, "submit", self.paid, self.samples[self.paid])
        good, text = self.hook_for(connect, sim, extra=extra).test_connection()
        assert not good
        assert expected in text
        assert sim.requests() == {}

    @pytest.mark.parametrize("vertex", [True, "true", "True"])
    def test_every_way_to_say_it(self, connect: Any, sim: Simulator, vertex: Any) -> None:
        """A form keeps true as a text."""
        hook = self.hook_for(connect, sim, extra={"vertex": vertex})
        assert hook.submit(self.paid, self.samples[self.paid]).id.startswith("projects/")

    def test_the_connection_names_the_models(self, connect: Any, sim: Simulator) -> None:
        """`models` in the connection's extra replaces the default; a task's own `model` outranks it."""
        hook = self.hook_for(connect, sim, extra={"models": {"text_to_video": "veo-3.1-lite-generate-001"}})
        ids = [
            hook.submit("text_to_video", {"prompt": "a cup", **more}).id for more in ({}, {"model": "veo-9"})
        ]
        assert [one.split("/")[-2] for one in ids] == ["veo-3.1-lite-generate-001", "veo-9"]


class Credentials:
    """As of Google's library: a token that has to be asked for, and lives for a while."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.valid = False
        self.asked = 0
        self.fails = False
        self.where: set[bool] = set()

    def refresh(self, request: object) -> None:
        """Asks for a token."""
        if self.fails:
            raise RuntimeError("invalid_grant: the account is gone")
        try:
            asyncio.get_running_loop()
            self.where.add(True)
        except RuntimeError:
            self.where.add(False)
        self.asked += 1
        self.token, self.valid = f"ya29.token-{self.asked}-of-google", True


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """Those of the Google Cloud connection `google`, as Airflow's Google provider has them."""
    known = Credentials()

    def hook(gcp_conn_id: str) -> Any:
        assert gcp_conn_id == "google"
        return SimpleNamespace(get_credentials=lambda: known)

    base = SimpleNamespace(GoogleBaseHook=hook)
    monkeypatch.setitem(sys.modules, "airflow.providers.google.common.hooks.base_google", base)
    requests = SimpleNamespace(Request=object)
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", requests)
    return known


class TestByAGoogleCloudConnection(HookCase):
    """Vertex with the token of a Google Cloud connection."""

    hook_class = GoogleMediaHook

    @pytest.fixture
    def hook(self, connect: Any, sim: Simulator) -> MediaHook:
        """A hook without a password of its own."""
        extra = {**VERTEX, "google_cloud_conn_id": "google"}
        return self.hook_for(connect, sim, password="", extra=extra)

    def test_its_token_is_shown(self, hook: MediaHook, credentials: Credentials, sim: Simulator) -> None:
        """One token serves many requests; when it is over, another one is asked for."""
        task = hook.submit("text_to_video", {"prompt": "a cup"})
        sim.advance(10)
        assert hook.get_task(task.id).status is TaskStatus.SUCCEEDED
        assert credentials.asked == 1
        assert hook.headers_for(f"{hook.settings.base_url}/x") == {
            "Authorization": "Bearer ya29.token-1-of-google"
        }
        credentials.valid = False
        with pytest.raises(MediaNotFoundError):
            hook.get_task(task.id)
        assert credentials.asked == 2

    def test_an_event_loop_does_not_wait_for_it(
        self, hook: MediaHook, credentials: Credentials, sim: Simulator
    ) -> None:
        """In the triggerer the token is asked for beside the loop."""
        asyncio.run(hook.asubmit("text_to_video", {"prompt": "a cup"}))
        assert credentials.where == {False}

    def test_google_gives_none(
        self, hook: MediaHook, credentials: Credentials, sim: Simulator, call: Any
    ) -> None:
        """What Google says is told, of this connection, and nothing is sent."""
        credentials.fails = True
        with pytest.raises(MediaAuthError, match=r"'account'.*no access token.*invalid_grant"):
            call(hook, "submit", "text_to_video", {"prompt": "a cup"})
        assert sim.requests() == {}

    def test_the_package_is_missing(
        self, hook: MediaHook, sim: Simulator, call: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error says which package to install."""
        monkeypatch.setitem(sys.modules, "airflow.providers.google.common.hooks.base_google", None)
        with pytest.raises(MediaRequestError, match="apache-airflow-providers-google"):
            call(hook, "submit", "text_to_video", {"prompt": "a cup"})
        assert sim.requests() == {}


@pytest.fixture
def hook(connect: Any) -> GoogleMediaHook:
    """A hook that is talked to by hand."""
    return GoogleMediaHook(connect(conn_type="google_media", password="a-good-key"))


def read(hook: GoogleMediaHook, **document: Any) -> Any:
    """The task that this operation is."""
    return hook._task(f"{PREVIEW}/t-1", {"name": f"{PREVIEW}/operations/t-1", **document})


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({}, TaskStatus.RUNNING, None),
        ({"done": False, "metadata": {}}, TaskStatus.RUNNING, None),
        ({"done": True}, TaskStatus.FAILED, "no_output"),
        ({"done": True, "response": {}}, TaskStatus.FAILED, "no_output"),
        ({"done": True, "response": {"videos": []}}, TaskStatus.FAILED, "no_output"),
        ({"done": True, "response": {"raiMediaFilteredCount": 0}}, TaskStatus.FAILED, "no_output"),
        ({"done": True, "response": {"raiMediaFilteredCount": 1}}, TaskStatus.FAILED, "filtered"),
        (
            {"done": True, "response": {"generateVideoResponse": {"raiMediaFilteredCount": 2}}},
            TaskStatus.FAILED,
            "filtered",
        ),
        ({"done": True, "error": {"code": 8, "message": "x"}}, TaskStatus.FAILED, "8"),
        (
            {"done": True, "response": {"videos": [{"gcsUri": "gs://b/o.mp4"}], "raiMediaFilteredCount": 1}},
            TaskStatus.SUCCEEDED,
            None,
        ),
    ],
)
def test_every_end(
    hook: GoogleMediaHook, document: dict[str, Any], status: TaskStatus, code: str | None
) -> None:
    """Done is no success: an error, nothing at all, and everything withheld are failures."""
    task = read(hook, **document)
    assert task.status is status
    assert (task.error and task.error.code) == code


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        ({"code": 3, "message": "This prompt violates Vertex AI's usage guidelines."}, MediaModerationError),
        ({"code": 3, "message": "Blocked by our Responsible AI practices."}, MediaModerationError),
        ({"code": 8, "message": "Resource exhausted"}, MediaTaskFailed),
        ({"code": 13, "message": "Internal error"}, MediaTaskFailed),
        ({"code": 14, "message": "Unavailable"}, MediaTaskFailed),
        ({}, MediaTaskFailed),
        ("broken", MediaTaskFailed),
    ],
)
def test_every_failure(hook: GoogleMediaHook, error: Any, cls: type[Exception]) -> None:
    """An operation's error has a number and words, and moderation is told by the words alone."""
    task = read(hook, done=True, error=error or {"code": None, "message": ""} if error else {"x": 1})
    assert type(task.error) is cls


def refused(code: int, status: str, message: str, *details: Any) -> dict[str, Any]:
    """An error as Google's APIs write it."""
    return {"error": {"code": code, "status": status, "message": message, "details": list(details)}}


DAY = {"violations": [{"quotaId": "PredictLongRunningRequestsPerDayPerProjectPerModel"}]}


@pytest.mark.parametrize(
    ("status", "body", "cls", "wait"),
    [
        (400, refused(400, "INVALID_ARGUMENT", "durationSeconds is out of bound"), MediaRequestError, None),
        (
            400,
            refused(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}),
            MediaAuthError,
            None,
        ),
        (400, refused(400, "INVALID_ARGUMENT", "Usage guidelines are violated."), MediaModerationError, None),
        (400, refused(400, "FAILED_PRECONDITION", "Please enable billing."), MediaFundsError, None),
        (401, refused(401, "UNAUTHENTICATED", "Invalid credentials"), MediaAuthError, None),
        (403, refused(403, "PERMISSION_DENIED", "No permission"), MediaAuthError, None),
        (
            403,
            refused(403, "PERMISSION_DENIED", "Enable it", {"reason": "BILLING_DISABLED"}),
            MediaFundsError,
            None,
        ),
        (404, refused(404, "NOT_FOUND", "Publisher model was not found"), MediaNotFoundError, None),
        (
            429,
            refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded", {"retryDelay": "37s"}),
            MediaRateLimitError,
            37,
        ),
        (429, refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded", DAY), MediaFundsError, None),
        (429, refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0"), MediaFundsError, None),
        (429, {"error": "slow down"}, MediaRateLimitError, None),
    ],
)
def test_every_refusal(
    hook: GoogleMediaHook, status: int, body: Any, cls: type[MediaTaskError], wait: float | None
) -> None:
    """A wrong key is no wrong request, a day's quota no matter of minutes; how long to wait is said."""
    error = hook.error_of(reply(body, status))
    assert error is not None
    assert (type(error), error.retry_after) == (cls, wait)
