"""The gate: who comes in, which addresses there are, whose files are whose. Any application stands behind it."""

import asyncio
import base64

import pytest

from aizheimer.errors import InputError
from aizheimer.studio import gate as gate_module
from aizheimer.studio.gate import Gate
from aizheimer.studio.serve import is_loopback, login_of
from aizheimer.studio.visitors import COOKIE, Visitor, new_token

pytest.importorskip("starlette", reason="the studio's web server is not installed: pip install 'aizheimer[studio]'")


async def behind(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-behind", b"yes")]})
    await send({"type": "http.response.body", "body": b"the page"})


class Answer:
    def __init__(self, messages):
        start = messages[0]
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        self.came_through = self.headers.get("x-behind") == "yes"


@pytest.fixture
def ask(tmp_path):
    def act(path, *, method="GET", cookie=None, auth=None, hosts=None, **headers):
        headers = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if cookie is not None:
            headers["cookie"] = f"other=1; {COOKIE}={cookie}"
        scope = {"type": "http", "method": method, "path": path, "scheme": "http"}
        scope["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
        messages = []

        async def send(message):
            messages.append(message)

        async def receive():
            if begun:
                await asyncio.Event().wait()  # the browser stays on the line
            begun.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}

        begun = []
        asyncio.run(Gate(app=behind, root=tmp_path, auth=auth, hosts=hosts)(scope, receive, send))
        return Answer(messages)

    return act


def picture(root, token, name="a.png", folder="pictures"):
    file = Visitor.of(token, root=root).folder / folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"pixels")
    return file


def test_the_first_visit_gets_a_cookie_that_no_script_and_no_other_site_can_use(ask):
    first = ask("/")
    assert first.came_through
    cookie = first.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    token = cookie.split("=", 1)[1].split(";")[0]
    assert "set-cookie" not in ask("/", cookie=token).headers
    assert "set-cookie" in ask("/", cookie="forged").headers
    assert "set-cookie" not in ask("/config").headers


@pytest.mark.parametrize(
    "path", ["/", "/config", "/assets/index.js", "/static/x.woff2", "/gradio_api/queue/data", "/none"]
)
def test_every_answer_keeps_the_page_to_itself(ask, path):
    headers = ask(path).headers
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        *(("/gradio_api/proxy=http://example.com/", "GET"), ("/gradio_api/file=/etc/passwd", "GET")),
        *(("/gradio_api/file/etc/passwd", "GET"), ("/file=/etc/passwd", "GET"), ("/monitoring", "GET")),
        *(("/gradio_api/vibe-code", "GET"), ("/gradio_api/vibe-edit", "POST"), ("/gradio_api/run/forget", "POST")),
        *(("/gradio_api/call/forget", "POST"), ("/gradio_api/deep_link", "GET"), ("/gradio_api/stream/a/b/c", "GET")),
        *(("/docs", "GET"), ("/openapi.json", "GET"), ("/gradio_api/process_recording", "POST"), ("/..", "GET")),
        *(("/login", "POST"), ("/studio/runs/x", "GET"), ("/studio/pictures/", "GET"), ("/", "POST")),
    ],
)
def test_what_the_page_does_not_need_is_not_there(ask, path, method):
    answer = ask(path, method=method, cookie=new_token(), content_length="2")
    assert (answer.status, answer.came_through) == (404, False)


@pytest.mark.parametrize("path", ["/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/upload"])
def test_what_it_needs_is(ask, path):
    assert ask(path, method="POST", content_length="2").came_through


def test_requests_that_are_too_long_or_do_not_say_are_refused(ask, monkeypatch):
    monkeypatch.setattr(gate_module, "MOST_BYTES", 1000)
    assert ask("/gradio_api/upload", method="POST", content_length="1001").status == 413
    assert ask("/gradio_api/upload", method="POST").status == 411
    assert ask("/gradio_api/upload", method="POST", content_length="-1").status == 411
    assert ask("/", method="DELETE").status == 405


def test_visitors_get_their_own_files_and_nobody_elses(ask, tmp_path):
    ann, bob = new_token(), new_token()
    file = picture(tmp_path, ann)
    assert ask("/studio/pictures/a.png", cookie=ann).body == b"pixels"
    assert ask(f"/gradio_api/file={file}", cookie=ann).body == b"pixels"
    for cookie in (bob, None, "forged"):
        assert ask("/studio/pictures/a.png", cookie=cookie).status == 404
        assert ask(f"/gradio_api/file={file}", cookie=cookie).status == 404
    sneaky = file.parents[2] / Visitor.of(bob, root=tmp_path).id / ".." / file.parents[1].name / "pictures" / "a.png"
    assert ask(f"/gradio_api/file={sneaky}", cookie=bob).status == 404


def test_nothing_but_pictures_and_exports_is_served(ask, tmp_path):
    ann = new_token()
    record = picture(tmp_path, ann, "edit.json", "runs")
    export = picture(tmp_path, ann, "santa.safetensors", "exports")
    assert ask(f"/gradio_api/file={record}", cookie=ann).status == 404
    assert ask("/studio/runs/edit.json", cookie=ann).status == 404
    for name in ("..%2Fruns%2Fedit.json", "../runs/edit.json", "%2e%2e"):
        assert ask(f"/studio/pictures/{name}", cookie=ann).status == 404
    answer = ask(f"/studio/exports/{export.name}", cookie=ann)
    assert (answer.status, answer.body) == (200, b"pixels")
    assert "attachment" in answer.headers["content-disposition"]


def test_a_password_guards_every_address(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(gate_module, "_WRONG_PASSWORD_SECONDS", 0.0)
    ann, auth = new_token(), ("ann", "long enough")
    picture(tmp_path, ann)
    right = "Basic " + base64.b64encode(b"ann:long enough").decode()
    wrong = [
        "",
        "Basic",
        "Basic ???",
        "Basic " + base64.b64encode(b"ann:long").decode(),
        right.replace("Basic", "Bearer"),
    ]
    for path in ("/", "/config", "/studio/pictures/a.png", "/assets/x.js"):
        assert ask(path, cookie=ann, auth=auth).status == 401
        assert all(ask(path, cookie=ann, auth=auth, authorization=word).status == 401 for word in wrong)
        assert ask(path, cookie=ann, auth=auth, authorization=right).status == 200


def test_on_loopback_no_other_name_is_answered_to(ask):
    hosts = frozenset({"localhost", "127.0.0.1", "::1"})
    for host in ("127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860"):
        assert ask("/", hosts=hosts, host=host).status == 200
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", ""):
        assert ask("/", hosts=hosts, host=host).status == 403


def test_a_public_address_demands_a_password():
    assert login_of(None, host="127.0.0.1") is None
    assert login_of("ann:long enough", host="0.0.0.0") == ("ann", "long enough")
    assert login_of("ann:with:colon", host="127.0.0.1") == ("ann", "with:colon")
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.com", ""):
        assert not is_loopback(host)
        with pytest.raises(InputError, match="--auth"):
            login_of(None, host=host)
    for auth in ("", "ann", ":password", "ann:", "ann:short"):
        with pytest.raises(InputError, match="USER:PASSWORD"):
            login_of(auth, host="0.0.0.0")
