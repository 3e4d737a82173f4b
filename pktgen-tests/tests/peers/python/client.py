"""A direct mTLS client: httpx calls a gateway with an SVID of its own.

    client.py URL CHAIN KEY ROOT BODY

Posts the file BODY, and prints who answered and what came back.
"""

import hashlib
import ssl
import sys

import httpx

url, chain, key, root, body = sys.argv[1:]

context = ssl.create_default_context(cafile=root)  # instead of the system's roots
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(chain, key)  # leaf and intermediates

with httpx.Client(verify=context, trust_env=False, timeout=20) as client:
    with client.stream("POST", url, content=open(body, "rb").read()) as response:
        response.raise_for_status()
        certificate = response.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()
        digest = hashlib.sha256(response.read()).hexdigest()

print("peer", *[value for kind, value in certificate["subjectAltName"] if kind == "URI"])
print("body", digest)
print("runtime", f"Python {sys.version.split()[0]}, httpx {httpx.__version__}, {ssl.OPENSSL_VERSION}")
