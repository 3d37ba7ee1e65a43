"""Connections that a program has kept from before: its clients make new ones in the daemon."""

from __future__ import annotations

import http.server
import threading
import xmlrpc.server
from collections.abc import Iterator

import pytest

from tests.helpers import support


class Answer(http.server.BaseHTTPRequestHandler):
    """Keeps connections, and answers with how many requests came by this one."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        while length > 0:
            length -= len(self.rfile.read(min(length, 1 << 16)))
        self.count += 1
        text = str(self.count).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


class Remote(xmlrpc.server.SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"


def serving(server: http.server.HTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web() -> Iterator[str]:
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    yield from serving(Server(("127.0.0.1", 0), Answer))


@pytest.fixture
def remote() -> Iterator[str]:
    class Server(http.server.ThreadingHTTPServer, xmlrpc.server.SimpleXMLRPCDispatcher):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Remote)
    xmlrpc.server.SimpleXMLRPCDispatcher.__init__(server)
    server.logRequests = False  # type: ignore[attr-defined]
    server.register_function(lambda: 42, "answer")
    yield from serving(server)


def in_daemon(box: support.Sandbox, url: str, before: str, after: str) -> str:
    """What a program says in its daemon, once it has used a connection before."""
    done = box.run(f"""
import sys, http.client
from daemon_context import DaemonContext
url = sys.argv[1]
{before}
context = DaemonContext(detach_process=True, stdout="said", stderr="errors", working_directory=".")
with context:
{after}
    print(*(f"closed {{item.what}} {{bool(item.owner)}}" for item in context.closed_descriptors))
""", url)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    box.settled()
    assert (box.path / "errors").read_text() == ""
    return (box.path / "said").read_text()


def test_requests_connects_anew(box: support.Sandbox, web: str) -> None:
    pytest.importorskip("requests")
    before = "import requests; session = requests.Session(); session.get(url); session.get(url)"
    said = in_daemon(box, web, before, "    print(session.get(url).text, session.get(url).text)")
    assert said == "1 2\nclosed socket True\n"


def test_urllib3_connects_anew(box: support.Sandbox, web: str) -> None:
    pytest.importorskip("urllib3")
    before = "import urllib3; pool = urllib3.PoolManager(); pool.request('GET', url)"
    after = "    print(*(pool.request('GET', url).data.decode() for _ in range(2)))"
    assert in_daemon(box, web, before, after) == "1 2\nclosed socket True\n"


def test_xmlrpc_connects_anew(box: support.Sandbox, remote: str) -> None:
    before = "import xmlrpc.client; server = xmlrpc.client.ServerProxy(url); server.answer()"
    after = "    print(server.answer(), server.answer())"
    assert in_daemon(box, remote, before, after) == "42 42\nclosed socket True\n"


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_http_client_connects_anew_at_the_second_call(
    box: support.Sandbox, web: str, size: int
) -> None:
    before = f"""
client = http.client.HTTPConnection(url.split("/")[2])
def get():
    client.request("POST", "/", b"x" * {size})
    return client.getresponse().read().decode()
assert get() == "1" and get() == "2"
"""
    after = """
    try:
        get()
    except (ConnectionError, http.client.HTTPException) as error:
        client.close()
    print(get(), get())
"""
    assert in_daemon(box, web, before, after) == "1 2\nclosed socket True\n"


def test_the_launcher_goes_on_with_its_connection(box: support.Sandbox, web: str) -> None:
    done = box.run("""
        import http.client, sys
        from daemon_context import DaemonContext
        client = http.client.HTTPConnection(sys.argv[1].split("/")[2])
        def get():
            client.request("GET", "/")
            return client.getresponse().read().decode()
        get()
        handle = DaemonContext(detach_process=True).launch()
        if handle is None:
            client.sock.close()
        else:
            handle.wait()
            print(get())
        """, web)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_sockets_without_a_peer_are_closed_as_ever(box: support.Sandbox) -> None:
    done = box.run("""
        import socket, sys
        from daemon_context import DaemonContext
        made = [socket.socket(), *socket.socketpair(), socket.socket(type=socket.SOCK_DGRAM),
                socket.create_server(("127.0.0.1", 0))]
        made[3].connect(made[4].getsockname())
        with DaemonContext(detach_process=True, stdout=sys.stdout):
            print(*(item.fileno() for item in made))
        """)
    assert done.stdout == "-1 -1 -1 -1 -1\n"


@pytest.mark.root
def test_without_a_loopback_connections_are_closed(box: support.Sandbox) -> None:
    done = box.run("""
        import os, socket, sys
        from daemon_context import DaemonContext
        server = socket.socket(socket.AF_UNIX)
        server.bind("socket")
        server.listen(1)
        client = socket.socket(socket.AF_UNIX)
        client.connect("socket")
        with DaemonContext(detach_process=True, stdout=sys.stdout) as daemon:
            print(client.fileno(), len(daemon.closed_descriptors), len(os.listdir("/proc/self/fd")))
        """, prefix=["unshare", "--net"])  # fmt: skip
    assert done.stdout == "-1 2 4\n"
