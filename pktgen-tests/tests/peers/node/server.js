// A direct mTLS server: Node's https is called by a gateway, and sends back what it was sent.
//
//     node server.js ROOT PORT,CHAIN,KEY[,GROUPS]...
//
// The caller's SPIFFE ID is in the header X-Peer.

'use strict';

const fs = require('node:fs');
const https = require('node:https');

const [root, ...listeners] = process.argv.slice(2);

for (const listener of listeners) {
  const [port, chain, key, groups] = listener.split(',');
  const options = {
    cert: fs.readFileSync(chain),
    key: fs.readFileSync(key),
    ca: fs.readFileSync(root),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    ecdhCurve: groups ?? 'auto',
  };
  const answer = (request, response) => {
    const names = request.socket.getPeerCertificate().subjectaltname.split(', ');
    response.setHeader('X-Peer', names.find((name) => name.startsWith('URI:')).slice('URI:'.length));
    response.setHeader('X-Runtime', `Node ${process.version}`);
    response.setHeader('Content-Length', request.headers['content-length'] ?? 0);
    request.pipe(response);
  };
  https.createServer(options, answer).listen(Number(port));
}
