"""A direct mTLS server: Python's ssl is called by a gateway, and answers with the caller's SPIFFE ID.

    server.py PORT CERTIFICATE KEY ROOT
"""

import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

port, certificate, key, root = sys.argv[1:]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        names = [value for kind, value in self.connection.getpeercert()["subjectAltName"] if kind == "URI"]
        body = f"hello {' '.join(names)}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(HTTPServer):
    def shutdown_request(self, request):
        # Python leaves close_notify out unless told; without it the stream counts as cut off.
        request.unwrap()
        super().shutdown_request(request)


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=root)
context.verify_mode = ssl.CERT_REQUIRED
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(certificate, key)
server = Server(("", int(port)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
