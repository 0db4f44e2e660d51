"""What the command says before it serves anything; the page itself is in tests/browser."""

import socket

import pytest


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4"])
def test_a_public_address_without_a_password_is_refused(cli, tmp_path, host):
    done = cli("studio", "--host", host, "--folder", tmp_path / "studio")
    assert done.code == 2
    assert "--auth USER:PASSWORD" in done.error
    assert not (tmp_path / "studio").exists()


def test_a_password_that_is_none_is_refused(cli, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_STUDIO_AUTH", "ann:short")
    done = cli("studio")
    assert done.code == 2
    assert "at least 8 characters" in done.error
    assert "short" not in done.err


@pytest.mark.long
@pytest.mark.enable_socket
def test_a_taken_port_is_told(cli):
    pytest.importorskip("gradio", reason="the studio is not installed: pip install 'aizheimer[studio]'")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = cli("studio", "--port", other.getsockname()[1])
    assert done.code == 1
    assert "choose another --port" in done.error
