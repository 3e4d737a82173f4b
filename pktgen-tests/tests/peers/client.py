"""A direct mTLS client: Python's ssl calls a gateway with an SVID of its own.

    client.py ADDRESS PORT SERVER_NAME CERTIFICATE KEY ROOT
"""

import http.client
import ssl
import sys

address, port, name, certificate, key, root = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(certificate, key)


class Connection(http.client.HTTPSConnection):
    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = context.wrap_socket(self.sock, server_hostname=name)


connection = Connection(address, int(port), timeout=10)
connection.request("GET", "/", headers={"X-Marker": "from-python"})
print(connection.getresponse().read().decode())
print([value for kind, value in connection.sock.getpeercert()["subjectAltName"] if kind == "URI"])
