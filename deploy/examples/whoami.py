"""A service that is told who calls it: it reads the PROXY header of version 2 and answers with what that says.

    port 3000   HTTP: each request is answered with the header, as JSON
    port 3001   speaks first: "220 hello, SPIFFE ID" once it has read the header

It takes connections from the gateway only (proxyProtocol is on for all its ports): a caller that can reach it
past the gateway could write any header.
"""

import ipaddress
import json
import socket
import socketserver
import struct
import threading

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ALPN, AUTHORITY, SSL, SPIFFE_ID = 0x01, 0x02, 0x20, 0xD0
SSL_NAMES = {0x21: "version", 0x22: "common_name", 0x23: "cipher"}
SSL_USED, CERTIFICATE_SHOWN = 0x01, 0x02


def tlvs(data):
    while data:
        kind, length = struct.unpack_from("!BH", data)
        yield kind, data[3 : 3 + length]
        data = data[3 + length :]


def exactly(stream, count):
    data = stream.read(count)
    if len(data) != count:
        raise ValueError("the connection ended within its header")
    return data


def read_header(stream):
    """Raises ValueError where there is none: a service must not guess."""
    signature, command, family, length = struct.unpack("!12sBBH", exactly(stream, 16))
    if signature != SIGNATURE or command != 0x21 or family not in (0x11, 0x21):
        raise ValueError("no PROXY header of version 2 for TCP")
    data = exactly(stream, length)
    size = 4 if family == 0x11 else 16
    source, destination, source_port, destination_port = struct.unpack_from(f"!{size}s{size}sHH", data)
    told = {
        "source": str(ipaddress.ip_address(source)),
        "source_port": source_port,
        "destination": str(ipaddress.ip_address(destination)),
        "destination_port": destination_port,
        "spiffe_id": None,
        "server_name": None,
        "tls": None,
    }
    for kind, value in tlvs(data[2 * size + 4 :]):
        if kind == SPIFFE_ID:
            told["spiffe_id"] = value.decode()
        elif kind == AUTHORITY:
            told["server_name"] = value.decode()
        elif kind == SSL:
            flags, verify = struct.unpack_from("!BI", value)
            told["tls"] = {"verified": bool(flags & CERTIFICATE_SHOWN) and verify == 0}
            told["tls"].update((SSL_NAMES[k], v.decode()) for k, v in tlvs(value[5:]) if k in SSL_NAMES)
    return told


class Http(socketserver.StreamRequestHandler):
    def handle(self):
        body = (json.dumps(read_header(self.rfile)) + "\n").encode()
        while self.rfile.readline().strip():
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Greeting(socketserver.StreamRequestHandler):
    def handle(self):
        told = read_header(self.rfile)
        self.wfile.write(f"220 hello, {told['spiffe_id'] or 'whoever you are'}\r\n".encode())
        self.rfile.readline()


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


def main():
    servers = [Server(("", 3000), Http), Server(("", 3001), Greeting)]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
