"""The demo's backend: plain HTTP on port 3000, and on 3001 a service that speaks first.

It knows nothing of TLS. Each connection and each request becomes a line of JSON on standard output,
with the caller as this side sees it.

    /           answers with the caller's X-Marker header, so that the marker crosses both ways
    /bytes?count=N&seconds=S    N bytes (i mod 251) spread over S seconds
"""

import json
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PATTERN = bytes(i % 251 for i in range(251)) * 264


def log(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Logged:
    """Logs a connection when the kernel hands it over, before a byte of it is read."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    address_family = socket.AF_INET6

    def process_request(self, request, client_address):
        # The socket is of both families: IPv4 callers show as ::ffff:a.b.c.d.
        client_address = (client_address[0].removeprefix("::ffff:"), client_address[1])
        log(event="accept", port=self.server_address[1], peer=client_address[0], peer_port=client_address[1])
        super().process_request(request, client_address)


class Http(Logged, ThreadingHTTPServer):
    pass


class Greeter(Logged, socketserver.ThreadingTCPServer):
    pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        marker = self.headers.get("X-Marker", "")
        log(event="request", path=url.path, marker=marker, peer=self.client_address[0], peer_port=self.client_address[1])
        if url.path == "/bytes":
            query = parse_qs(url.query)
            self.send_bytes(int(query["count"][0]), float(query.get("seconds", ["0"])[0]))
        else:
            body = f"hello {self.client_address[0]}, you said: {marker}\n".encode()
            self.start(len(body))
            self.wfile.write(body)

    def start(self, length):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send_bytes(self, count, seconds):
        self.start(count)
        began, sent = time.monotonic(), 0
        while sent < count:
            at = sent % 251
            length = min(count - sent, 251 * 64 if seconds else 251 * 256)
            self.wfile.write(PATTERN[at : at + length])
            sent += length
            pause = began + seconds * sent / count - time.monotonic()
            if pause > 0:
                time.sleep(pause)

    def log_message(self, *_):
        pass


class Greeting(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 hello, I speak first\r\n")
        self.rfile.readline()


def main():
    servers = [Http(("", 3000), Handler), Greeter(("", 3001), Greeting)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    log(event="ready")


if __name__ == "__main__":
    main()
