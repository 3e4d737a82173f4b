"""What partner.org publishes: its bundle by HTTPS on port 8443, its CRL by HTTP on port 8080.

publisher.py DIRECTORY. The files are read with each request, the certificate (endpoint.pem: chain and key) with
each connection, so that whoever replaces them rotates.
"""

import functools
import http.server
import json
import pathlib
import ssl
import sys
import threading

directory = pathlib.Path(sys.argv[1])


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Publisher(http.server.SimpleHTTPRequestHandler):
    def log_message(self, form, *arguments):
        say("request", line=form % arguments)


class Https(http.server.ThreadingHTTPServer):
    def get_request(self):
        connection, peer = super().get_request()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "endpoint.pem")
        # The handshake is the handler's thread's: who hangs holds up nobody.
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer

    def handle_error(self, request, peer):
        say("broken", why=str(sys.exception()) if hasattr(sys, "exception") else "")


handler = functools.partial(Publisher, directory=str(directory))
https = Https(("", 8443), handler)
plain = http.server.ThreadingHTTPServer(("", 8080), handler)
threading.Thread(target=https.serve_forever, daemon=True).start()
say("ready")
plain.serve_forever()
