"""The server: this machine only, no other hosts, no files left, a queue that loses nothing."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from captum_scorecam.app.pictures import MOST_BYTES
from tests.app.conftest import TINY, Serving, running_command
from tests.support.tiny_classifier import picture

pytestmark = pytest.mark.slow

LOOK, EXPLAIN = "load", "explain"


class Visitor:
    """A visitor without a browser, who sends what the page sends."""

    def __init__(self, address: str) -> None:
        self.session = uuid.uuid4().hex
        self.client = httpx.Client(base_url=f"{address}gradio_api", timeout=60)
        self.config = httpx.get(f"{address}config", timeout=60).json()

    def function(self, name: str) -> dict[str, Any]:
        """The function of the button with that name, or of the page that loads."""
        names = {part["id"]: part["props"].get("elem_id") for part in self.config["components"]}
        found: dict[str, Any] = next(
            each
            for each in self.config["dependencies"]
            for target, event in each["targets"]
            if (event == LOOK if name == LOOK else names.get(target) == name) and each["backend_fn"]
        )
        return found

    def join(self, name: str, *values: Any) -> str:
        """Joins the queue; returns the number of the event."""
        body = {"data": values, "fn_index": self.function(name)["id"], "session_hash": self.session}
        joined = self.client.post("/queue/join", json=body)
        joined.raise_for_status()
        return str(joined.json()["event_id"])

    def messages(self) -> list[dict[str, Any]]:
        """What the queue says until all events have ended."""
        found = []
        with self.client.stream("GET", "/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    found.append(json.loads(line.removeprefix("data:")))
                    if found[-1]["msg"] == "close_stream":
                        break
        return found

    def look(self, model: str) -> None:
        self.join(LOOK, "Cat", model)
        assert self.messages()[-2]["success"]

    def explain(self, max_forwards: int) -> str:
        choices = [[0, 2], None, ["features"], ["score_cam", "rise"], max_forwards, True]
        return self.join(EXPLAIN, None, "", None, *choices)


def ended(messages: list[dict[str, Any]]) -> bool:
    """Whether a run came to its end with maps."""
    final = [message for message in messages if message["msg"] == "process_completed"]
    return len(final) == 1 and final[0]["success"] and any("Done." in json.dumps(message) for message in messages)


def memory(process: subprocess.Popen[str]) -> int:
    """The resident memory of a process, in kB."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_twenty_runs_wait_for_each_other_and_one_is_cancelled(serving: Serving) -> None:
    used = []
    with ExitStack() as stack:
        visitors = [Visitor(serving.address) for _ in range(20)]
        for visitor in visitors:
            stack.enter_context(visitor.client)
            visitor.look(TINY)
        for max_forwards in (64, 65, 66, 67):  # runs with the same choices would show the same maps again
            events = [visitor.explain(max_forwards) for visitor in visitors]
            cancelled = visitors[10]
            fn_index = cancelled.function(EXPLAIN)["id"]
            body = {"session_hash": cancelled.session, "fn_index": fn_index, "event_id": events[10]}
            with ThreadPoolExecutor(20) as pool:
                answers = pool.map(Visitor.messages, visitors)
                cancelled.client.post("/cancel", json=body).raise_for_status()
                results = list(answers)
            assert [ended(messages) for messages in results] == [number != 10 for number in range(20)]
            used.append(memory(serving.process))
    assert used[3] <= 1.02 * used[1]
    assert serving.uploads() == []


def test_the_page_names_no_other_host_and_tells_nobody(serving: Serving) -> None:
    html, theme = httpx.get(serving.address).text, httpx.get(f"{serving.address}theme.css").text
    for text in (html, theme):
        loaded = re.findall(r"""(?:src=|href=|url\(|@import )["']?(https?://[^"')]+)""", text)
        assert [url for url in loaded if not url.startswith(serving.address)] == []
    assert json.loads(httpx.get(f"{serving.address}config").text)["analytics_enabled"] is False


def test_uploads_that_are_too_large_are_refused_and_files_elsewhere_are_not_served(serving: Serving) -> None:
    with httpx.Client(base_url=f"{serving.address}gradio_api", timeout=60) as client:
        refused = client.post("/upload", files={"files": ("large.png", bytes(MOST_BYTES + 1))})
        assert refused.status_code == 413
        assert client.get("/file=/etc/hostname").status_code in (403, 404)
    assert serving.uploads() == []


def test_files_and_the_page_are_gone_with_the_command(tmp_path: Path) -> None:
    with running_command(tmp_path) as serving:
        upload = httpx.post(f"{serving.address}gradio_api/upload", files={"files": ("photo.png", b"never read")})
        assert [str(path) for path in serving.uploads()] == upload.json()
    assert serving.process.returncode == 130
    assert list(tmp_path.iterdir()) == []  # nor what ONNX Runtime, which reports unless told not to, keeps there
    with pytest.raises(httpx.ConnectError):
        httpx.get(serving.address)


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}], ids=["as an upload", "as a dict"])
def test_a_file_of_the_server_is_neither_read_nor_removed(serving: Serving, tmp_path: Path, meta: Any) -> None:
    secret = tmp_path / "secret.png"
    picture(1)[0].save(secret)
    visitor = Visitor(serving.address)
    with visitor.client:
        own = visitor.client.post("/upload", files={"files": ("mine.png", secret.read_bytes())}).json()[0]
        for path, is_read in ((str(secret), False), (own, bool(meta))):  # Gradio takes no dict without
            visitor.join("upload", {"path": path, "orig_name": "mine.png", **meta}, TINY, None, None)
            messages = visitor.messages()
            assert [m["success"] for m in messages if m["msg"] == "process_completed"] == [is_read]
            assert any("Choose what to explain." in json.dumps(message) for message in messages) == is_read
    assert secret.is_file()
