"""A direct mTLS server: Python's http.server is called by a gateway, and sends back what it was sent.

    server.py ROOT PORT,CHAIN,KEY[,GROUPS]...

The caller's SPIFFE ID is in the header X-Peer. Without CHAIN and KEY (PORT alone) it is the plain
service behind a gateway, and X-Peer is the caller's address.
"""

import contextlib
import hashlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

root, *listeners = sys.argv[1:]


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        # Whole: a caller may send all before it reads.
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/digest":
            body = hashlib.sha256(body).hexdigest().encode()
        self.send_response(200)
        self.send_header("X-Peer", self.peer())
        self.send_header("X-Runtime", f"Python {sys.version.split()[0]}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def peer(self):
        if not isinstance(self.connection, ssl.SSLSocket):
            return self.client_address[0]
        return " ".join(value for kind, value in self.connection.getpeercert()["subjectAltName"] if kind == "URI")

    def log_message(self, *_):
        pass


class Tls(ThreadingHTTPServer):
    def __init__(self, port, chain, key, group=None):
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=root)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.load_cert_chain(chain, key)
        if group:
            self.context.set_ecdh_curve(group)
        super().__init__(("", int(port)), Echo)

    def finish_request(self, request, client_address):
        # In the connection's own thread: a handshake that does not come must not stop the others.
        with self.context.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)
            # Python leaves close_notify out unless told; to a caller that broke off there is none to say.
            with contextlib.suppress(ssl.SSLError, OSError):
                connection.unwrap()


for listener in listeners:
    port, *tls = listener.split(",")
    server = Tls(port, *tls) if tls else ThreadingHTTPServer(("", int(port)), Echo)
    threading.Thread(target=server.serve_forever).start()
