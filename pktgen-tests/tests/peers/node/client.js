// A direct mTLS client: Node's https calls a gateway with an SVID of its own.
//
//     node client.js URL CHAIN KEY ROOT BODY [GROUPS]
//
// Posts the file BODY, and prints who answered and what came back.

'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const https = require('node:https');

const [url, chain, key, root, body, groups] = process.argv.slice(2);

const options = {
  method: 'POST',
  cert: fs.readFileSync(chain), // leaf and intermediates
  key: fs.readFileSync(key),
  ca: fs.readFileSync(root), // instead of the system's roots
  minVersion: 'TLSv1.3',
  ecdhCurve: groups ?? 'auto',
};

const request = https.request(url, options, (response) => {
  const names = response.socket.getPeerCertificate().subjectaltname.split(', ');
  const hash = crypto.createHash('sha256');
  response.on('data', (data) => hash.update(data));
  response.on('end', () => {
    console.log('peer', names.find((name) => name.startsWith('URI:')).slice('URI:'.length));
    console.log('body', hash.digest('hex'));
    console.log('runtime', `Node ${process.version}, OpenSSL ${process.versions.openssl}`);
  });
});
request.on('error', (error) => {
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
});
request.end(fs.readFileSync(body));
