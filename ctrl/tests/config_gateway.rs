//! Each thing that does not load of a Gateway: the exact words about it.

mod words;

use words::{GATEWAY, differs, gateway, load, words};

/// A Gateway with these under `spec.identity.sources`, one a line from line 14 on.
fn sources(entries: &[&str]) -> String {
    let lines: String = entries.iter().map(|entry| format!("\n      - {entry}")).collect();
    let embedded = "identity: { source: embedded, embedded: { directory: ca/node-a, ttl: 1h } }";
    gateway(embedded, &format!("identity:\n    sources:{lines}"))
}

#[test]
fn each_fault_of_a_gateway_is_named() {
    let cases: &[(&str, String, &[&str])] = &[
        (
            "a misspelt side",
            gateway("side: inside", "side: insid"),
            &[
                "g.yaml:7:31: error: spec.ports[0].side: \"insid\" is not allowed here [did you mean inside? allowed: inside, outside]",
            ],
        ),
        (
            "an audit log of the wrong size, to nowhere, in words",
            gateway("cores:", "audit: { maxSize: 100MB, keep: 0, accepted: yes, perSecnd: 3 }\n  cores:"),
            &[
                "g.yaml:9:10: error: spec.audit.file: is missing",
                "g.yaml:9:21: error: spec.audit.maxSize: \"100MB\": not a size [a number with KiB, MiB or GiB, such as 100MiB]",
                "g.yaml:9:34: error: spec.audit.keep: 0 is out of range [use 1 to 1000]",
                "g.yaml:9:47: error: spec.audit.accepted: \"yes\" is not true or false",
                "g.yaml:9:52: error: spec.audit.perSecnd: there is no such field [did you mean perSecond? fields here: accepted, file, keep, maxSize, perSecond]",
            ],
        ),
        (
            "an audit log in a directory of whoever starts it",
            gateway("cores:", "audit: { file: audit.jsonl, maxSize: 1KiB }\n  cores:"),
            &[
                "g.yaml:9:18: error: spec.audit.file: \"audit.jsonl\": not an absolute path to a file [an absolute path to a file, such as /var/log/sluice/audit.jsonl]",
                "g.yaml:9:40: error: spec.audit.maxSize: \"1KiB\": out of range [use 64KiB to 64GiB]",
            ],
        ),
        (
            "an interface twice",
            gateway("out0", "in0"),
            &["g.yaml:8:20: error: spec.ports[1].interface: \"in0\": is a port already [give each interface one side]"],
        ),
        (
            "no inside port",
            gateway("side: inside", "side: outside"),
            &[
                "g.yaml:7:5: error: spec.ports: no port is inside [give the interface towards the workloads side: inside]",
            ],
        ),
        (
            "a core twice",
            gateway("[0] ", "[0, 0]"),
            &["g.yaml:9:14: error: spec.cores[1]: 0: is in the list already [one worker a core]"],
        ),
        (
            "a life without a unit",
            gateway("ttl: 1h", "ttl: 3600"),
            &[
                "g.yaml:13:72: error: spec.identity.embedded.ttl: 3600: has no unit [such as 500ms, 30s, 10m, 1h or 1h30m]",
            ],
        ),
        (
            "a life that is too short",
            gateway("ttl: 1h", "ttl: 1s"),
            &["g.yaml:13:72: error: spec.identity.embedded.ttl: \"1s\": out of range [use 2s to 2592000s]"],
        ),
        (
            "a source that is not built in",
            gateway("source: embedded", "source: ldap"),
            &[
                "g.yaml:13:23: error: spec.identity.source: \"ldap\" is not allowed here [allowed: embedded, files, spire, vault]",
            ],
        ),
        (
            "both forms of identity",
            gateway("identity: { source: embedded,", "identity: { sources: [], source: embedded,"),
            &[
                "g.yaml:13:24: error: spec.identity.sources: an empty list [give at least one source]",
                "g.yaml:13:28: error: spec.identity.source: there is no such field [did you mean sources? fields here: sources]",
                "g.yaml:13:46: error: spec.identity.embedded: there is no such field [fields here: sources]",
            ],
        ),
        (
            "sources that are for nobody or name what is no workload",
            sources(&[
                "{ name: a, source: files, files: { directory: a, key: k } }",
                "{ name: a, source: files, files: { directory: 'a/{pod}' }, workloads: [] }",
                "{ name: B, source: files, embedded: { directory: b }, workloads: [shop, shop/*x, 'spiffe://x*'] }",
            ]),
            &[
                "g.yaml:15:42: error: spec.identity.sources[0].files.certificate: is missing, and `key` is given [name the certificate too, or neither: then the layout is found by what is there]",
                "g.yaml:16:55: error: spec.identity.sources[1].files.directory: \"a/{pod}\": \"{\" stands for nothing [a path; {namespace} and {name} stand for those of the WorkloadIdentity]",
                "g.yaml:16:79: error: spec.identity.sources[1].workloads: an empty list: the source is for nobody [list whom it is for, or leave the field out: then it is for all that no source before it takes]",
                "g.yaml:17:9: error: spec.identity.sources[2].files: is missing",
                "g.yaml:17:17: error: spec.identity.sources[2].name: \"B\": not a resource name [lower-case letters, digits, '-' and '.', such as cert-manager]",
                "g.yaml:17:35: error: spec.identity.sources[2].embedded: there is no such field [fields here: files, name, source, workloads]",
                "g.yaml:17:75: error: spec.identity.sources[2].workloads[0]: \"shop\": there is no '/' [namespace/name, namespace/*, an ID such as spiffe://example.com/myapp/app/frontend, or all under a path]",
                "g.yaml:17:81: error: spec.identity.sources[2].workloads[1]: \"shop/*x\": \"*x\" is not a resource name [namespace/name, namespace/*, an ID such as spiffe://example.com/myapp/app/frontend, or all under a path]",
                "g.yaml:17:90: error: spec.identity.sources[2].workloads[2]: \"spiffe://x*\": '*' is allowed as the whole last segment only, as in spiffe://example.com/myapp/* [namespace/name, namespace/*, an ID such as spiffe://example.com/myapp/app/frontend, or all under a path]",
            ],
        ),
        (
            "an agent without a socket, without selectors, and what is neither",
            sources(&[
                "{ name: a, source: spire, spire: {}, workloads: [a/b] }",
                "{ name: b, source: spire, spire: { socket: 'tcp://x', delegated: [{ workloads: [a/b], selectors: [unix, 'unix:{uid}', 'k8s:'] }] }, workloads: [a/b] }",
                "{ name: c, source: spire, spire: { adminSocket: /a }, workloads: [a/b] }",
                "{ name: d, source: spire, spire: { socket: /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx } }",
            ]),
            &[
                "g.yaml:15:42: error: spec.identity.sources[0].spire: names no socket of an agent [give `socket` (the Workload API), or `adminSocket` (admin_socket_path of the agent)]",
                "g.yaml:16:42: error: spec.identity.sources[1].spire.adminSocket: is missing, and `delegated` is given [the admin_socket_path of the agent; the socket of workloads does not tell about others]",
                "g.yaml:16:52: error: spec.identity.sources[1].spire.socket: \"tcp://x\": is no path; only Unix sockets are asked [the path of a Unix socket, such as /run/spire/agent/api.sock]",
                "g.yaml:16:107: error: spec.identity.sources[1].spire.delegated[0].selectors[0]: \"unix\": there is no ':' [type:value, such as unix:uid:1000 or k8s:sa:frontend; {namespace} and {name} stand for those of the WorkloadIdentity]",
                "g.yaml:16:113: error: spec.identity.sources[1].spire.delegated[0].selectors[1]: \"unix:{uid}\": \"{\" stands for nothing [type:value, such as unix:uid:1000 or k8s:sa:frontend; {namespace} and {name} stand for those of the WorkloadIdentity]",
                "g.yaml:16:127: error: spec.identity.sources[1].spire.delegated[0].selectors[2]: \"k8s:\": the type or the value is empty [type:value, such as unix:uid:1000 or k8s:sa:frontend; {namespace} and {name} stand for those of the WorkloadIdentity]",
                "g.yaml:17:42: error: spec.identity.sources[2].spire.delegated: is missing, and `adminSocket` is given [say by which selectors the agent knows which workloads]",
                "g.yaml:18:52: error: spec.identity.sources[3].spire.socket: \"/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…: 108 bytes; the path of a socket has at most 107 [the path of a Unix socket, such as /run/spire/agent/api.sock]",
            ],
        ),
        (
            "a broker that nobody would reach, trust or be asked about by",
            sources(&[
                "{ name: a, source: spire, spire: { broker: { spiffeID: 'spiffe://example.com', agentID: 'spiffe://x*', address: 'tcp://localhost:80', references: [] } }, workloads: [a/b] }",
                "{ name: b, source: spire, spire: { socket: /s, broker: { spiffeID: 'spiffe://a/b', agentID: 'spiffe://a/*', references: [{ workloads: [a/b], object: { group: apps/v1, plural: Pod, name: '{pod}' } }] } }, workloads: [a/b] }",
                "{ name: c, source: spire, spire: { socket: /s, broker: { spiffeID: 'spiffe://a/b', agentID: 'spiffe://a/*', address: /s, references: [{ workloads: [a/b] }, { workloads: [a/c], pod: mine }, { workloads: [a/d], pod: attested, object: {} }] } }, workloads: [a/b] }",
                "{ name: d, source: spire, spire: { socket: /s, adminSocket: /a, delegated: [{ workloads: [a/b], selectors: ['a:b'] }], broker: { spiffeID: 'spiffe://a/b', agentID: 'spiffe://a/*', references: [{ workloads: [a/b], pod: attested }] } } }",
            ]),
            &[
                "g.yaml:15:42: error: spec.identity.sources[0].spire.socket: is missing, and `broker` is given [the Workload API, where sluice-ctrl gets the SVID that it shows there]",
                "g.yaml:15:64: error: spec.identity.sources[0].spire.broker.spiffeID: \"spiffe://example.com\": there is no path after the trust domain [the ID of sluice-ctrl, as it stands in `brokers` of the agent, such as spiffe://example.com/sluice]",
                "g.yaml:15:97: error: spec.identity.sources[0].spire.broker.agentID: \"spiffe://x*\": '*' is allowed as the whole last segment only, as in spiffe://example.com/myapp/* [an ID, or all under a path: a SPIRE agent is spiffe://example.com/spire/agent/*]",
                "g.yaml:15:121: error: spec.identity.sources[0].spire.broker.address: \"tcp://localhost:80\": is no IP address with a port, which is all that the standard allows [unix:///run/spire/agent/broker/api.sock or tcp://127.0.0.1:8083; left out, it is what SPIFFE_BROKER_SOCKET in the environment of sluice-ctrl says]",
                "g.yaml:15:155: error: spec.identity.sources[0].spire.broker.references: an empty list [say by what the agent knows which workloads]",
                "g.yaml:16:167: error: spec.identity.sources[1].spire.broker.references[0].object.group: \"apps/v1\": has a version; the group alone is apps [such as apps, or core for what has none]",
                "g.yaml:16:184: error: spec.identity.sources[1].spire.broker.references[0].object.plural: \"Pod\": not a resource name [the plural that kubectl shows, in lower case, such as serviceaccounts or deployments]",
                "g.yaml:16:195: error: spec.identity.sources[1].spire.broker.references[0].object.name: \"{pod}\": \"{\" stands for nothing [of the object; {namespace} and {name} stand for those of the WorkloadIdentity]",
                "g.yaml:17:126: error: spec.identity.sources[2].spire.broker.address: \"/s\": is neither unix:///PATH nor tcp://IP:PORT [unix:///run/spire/agent/broker/api.sock or tcp://127.0.0.1:8083; left out, it is what SPIFFE_BROKER_SOCKET in the environment of sluice-ctrl says]",
                "g.yaml:17:143: error: spec.identity.sources[2].spire.broker.references[0]: has neither `object` nor `pod` [give one: `object` (a Kubernetes object by its key), or `pod: attested` (the pod of this node that the k8s:* selectors mean)]",
                "g.yaml:17:190: error: spec.identity.sources[2].spire.broker.references[1].pod: \"mine\" is not allowed here [allowed: attested]",
                "g.yaml:17:198: error: spec.identity.sources[2].spire.broker.references[2]: has both `object` and `pod` [give one: `object` (a Kubernetes object by its key), or `pod: attested` (the pod of this node that the k8s:* selectors mean)]",
                "g.yaml:18:136: error: spec.identity.sources[3].spire.broker.references[0].workloads: a/b is never asked about here: an entry of `delegated` takes it [take it out of one of the two]",
            ],
        ),
        (
            "a vault that would be told a token in clear, and one that nobody logs in to",
            sources(&[
                "{ name: a, source: vault, vault: { server: 'http://bao.example.com', path: pki/sign/a, auth: { tokenFile: t } }, workloads: [a/b] }",
                "{ name: b, source: vault, vault: { server: 'https://me:hunter2@bao', path: pki/issue/a, auth: {} }, workloads: [a/b] }",
                "{ name: c, source: vault, vault: { server: bao, path: sign/a, auth: { tokenFile: t, appRole: { roleId: r, secretIdFile: s } }, workloads: [a/b] } }",
            ]),
            &[
                "g.yaml:15:52: error: spec.identity.sources[0].vault.server: http://bao.example.com/: sends tokens in clear over the network [such as https://bao.example.com:8200; http:// on loopback only]",
                "g.yaml:16:52: error: spec.identity.sources[1].vault.server: the URL names a user before the host; credentials do not belong into a URL [see `auth`]",
                "g.yaml:16:84: error: spec.identity.sources[1].vault.path: \"pki/issue/a\": lets the server make the private key; want sign, where it stays here [MOUNT/sign/ROLE of a PKI secrets engine, such as pki/sign/node]",
                "g.yaml:16:103: error: spec.identity.sources[1].vault.auth: names no way to log in [give one of tokenFile, appRole and kubernetes]",
                "g.yaml:17:52: error: spec.identity.sources[2].vault.server: \"bao\": does not begin with https:// (or http://, where that is allowed) [such as https://bao.example.com:8200; http:// on loopback only]",
                "g.yaml:17:63: error: spec.identity.sources[2].vault.path: \"sign/a\": does not end in sign/ROLE [MOUNT/sign/ROLE of a PKI secrets engine, such as pki/sign/node]",
                "g.yaml:17:77: error: spec.identity.sources[2].vault.auth: names several ways to log in [give one of tokenFile, appRole and kubernetes]",
                "g.yaml:17:136: error: spec.identity.sources[2].vault.workloads: there is no such field [fields here: auth, caBundle, dnsNames, namespace, path, refresh, server, ttl]",
            ],
        ),
        (
            "a vault with values that are none",
            sources(&[
                "{ name: a, source: vault, vault: { server: 'https://bao?x=1', path: pki/../sign/a, ttl: 1s, refresh: 0s, namespace: 'a b', caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg, dnsNames: maybe, auth: { kubernetes: { mountPath: 'x?y', role: r } } } }",
                "{ name: b, source: vault, vault: { server: 'http://127.0.0.1:8200', caBundle: ca.pem, path: pki/sign-verbatim/a, auth: { appRole: {} } } }",
            ]),
            &[
                "g.yaml:15:52: error: spec.identity.sources[0].vault.server: https://bao/?…: has a query [such as https://bao.example.com:8200; http:// on loopback only]",
                "g.yaml:15:77: error: spec.identity.sources[0].vault.path: \"pki/../sign/a\": \"..\" is no part of a path [MOUNT/sign/ROLE of a PKI secrets engine, such as pki/sign/node]",
                "g.yaml:15:97: error: spec.identity.sources[0].vault.ttl: \"1s\": out of range [use 2s to 2592000s]",
                "g.yaml:15:110: error: spec.identity.sources[0].vault.refresh: \"0s\": out of range [use 1s to 86400s]",
                "g.yaml:15:125: error: spec.identity.sources[0].vault.namespace: \"a b\": ' ' is no letter, digit, '.', '-' or '_' [as X-Vault-Namespace has it, such as team-a or team-a/prod]",
                "g.yaml:15:142: error: spec.identity.sources[0].vault.caBundle: \"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg\": is the certificates themselves; put them into a file beside this one [the path of a PEM file, such as bao-ca.pem]",
                "g.yaml:15:192: error: spec.identity.sources[0].vault.dnsNames: \"maybe\" is not true or false",
                "g.yaml:15:232: error: spec.identity.sources[0].vault.auth.kubernetes.mountPath: \"x?y\": '?' is no letter, digit, '.', '-' or '_' [where the auth method is enabled, such as kubernetes]",
                "g.yaml:16:87: warning: spec.identity.sources[1].vault.caBundle: nothing is verified by it: the server is asked by http:// [use https://, or leave it out]",
                "g.yaml:16:101: error: spec.identity.sources[1].vault.path: \"pki/sign-verbatim/a\": signs whatever is asked for; want sign, and a role that says what may be [MOUNT/sign/ROLE of a PKI secrets engine, such as pki/sign/node]",
                "g.yaml:16:139: error: spec.identity.sources[1].vault.auth.appRole.roleId: is missing",
                "g.yaml:16:139: error: spec.identity.sources[1].vault.auth.appRole.secretIdFile: is missing",
            ],
        ),
        (
            "a source that is never asked, and a name given twice",
            sources(&[
                "{ name: a, source: files, files: { directory: a } }",
                "{ name: a, source: files, files: { directory: b } }",
            ]),
            &[
                "g.yaml:16:9: error: spec.identity.sources[1]: a is never asked: a before it takes every workload [move the source without `workloads` to the end]",
                "g.yaml:16:9: error: spec.identity.sources[1].name: \"a\" is the name of a source already [give each its own]",
            ],
        ),
        (
            "a key exchange that is unknown, and one twice",
            format!("{GATEWAY}  tls: {{ groups: [x25519, X25519, X25519] }}\n"),
            &[
                "g.yaml:15:19: error: spec.tls.groups[0]: \"x25519\" is not allowed here [did you mean X25519? allowed: X25519MLKEM768, X25519, secp256r1]",
                "g.yaml:15:35: error: spec.tls.groups[2]: \"X25519\": is in the list already [each group once]",
            ],
        ),
        (
            "no key exchange at all",
            format!("{GATEWAY}  tls: {{ groups: [] }}\n"),
            &["g.yaml:15:18: error: spec.tls.groups: an empty list [name at least one group, such as [X25519]]"],
        ),
        (
            "a limit of zero",
            format!("{GATEWAY}  limits: {{ sessions: 0, flow: 5 }}\n"),
            &[
                "g.yaml:15:23: error: spec.limits.sessions: 0 is out of range [use 1 to 16777216]",
                "g.yaml:15:26: error: spec.limits.flow: there is no such field [did you mean flows? fields here: buffer, flows, frames, handshakes, history, preExistingGrace, sessions, sourcePorts]",
            ],
        ),
        (
            "ports in the wrong order",
            format!("{GATEWAY}  limits: {{ sourcePorts: 65535-61000 }}\n"),
            &[
                "g.yaml:15:26: error: spec.limits.sourcePorts: \"65535-61000\": not a range of ports [the first and the last, such as 61000-65535]",
            ],
        ),
        (
            "a timeout that is none",
            format!("{GATEWAY}  timeouts: {{ handshake: soon }}\n"),
            &[
                "g.yaml:15:26: error: spec.timeouts.handshake: \"soon\": not a duration [such as 500ms, 30s, 10m, 1h or 1h30m]",
            ],
        ),
        (
            "a host that is no address",
            gateway("[198.18.2.2]", "[backend]"),
            &[
                "g.yaml:12:50: error: spec.hosts[\"backend-api.myapp.svc.cluster.local\"][0]: \"backend\": not an IP address [such as 198.18.1.2 or 2001:db8::2]",
            ],
        ),
        (
            "a state directory that is relative",
            gateway("admin: {", "admin: { stateDirectory: state,"),
            &[
                "g.yaml:14:28: error: spec.admin.stateDirectory: \"state\": not an absolute path [an absolute path, such as /var/lib/sluice]",
            ],
        ),
        (
            "a socket that is relative",
            gateway("/run/sluice/node-a.sock", "node-a.sock"),
            &[
                "g.yaml:14:20: error: spec.admin.socket: \"node-a.sock\": not an absolute path [an absolute path, such as /run/sluice/node-a.sock]",
            ],
        ),
        (
            "the wrong apiVersion",
            gateway("sluice.dev/v1alpha1", "v1"),
            &["g.yaml:1:13: error: apiVersion: \"v1\" has no Gateway [Gateway is in sluice.dev/v1alpha1]"],
        ),
        (
            "a misspelt kind",
            gateway("kind: Gateway", "kind: Gatway"),
            &[
                "g.yaml:2:7: error: kind: \"Gatway\" is not a kind that is known [did you mean Gateway? kinds: Gateway, Policy, Service, TrustBundle, WorkloadIdentity]",
                "g.yaml: error: there is no Gateway [add a resource of kind Gateway (apiVersion: sluice.dev/v1alpha1)]",
            ],
        ),
    ];
    let mut wrong = String::new();
    for (name, text, want) in cases {
        let faults = load(&[("g.yaml", text)]).expect_err(name);
        wrong.extend(differs(name, &words(&faults), want));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_audit_log_has_defaults_for_all_but_its_file() {
    let of = |audit: &str| {
        let text = gateway("cores:", &format!("audit: {audit}\n  cores:"));
        load(&[("g.yaml", &text)]).expect("a Gateway").gateway.audit.expect("a log")
    };
    let least = of("{ file: /var/log/sluice/audit.jsonl }");
    let want = snapshot::Audit {
        file: "/var/log/sluice/audit.jsonl".into(),
        max_size: 100 << 20,
        keep: 5,
        accepted: true,
        per_second: 100,
    };
    assert_eq!(least, want);
    let all = of("{ file: /a, maxSize: 64KiB, keep: 1, accepted: false, perSecond: 7 }");
    let want = snapshot::Audit { file: "/a".into(), max_size: 64 << 10, keep: 1, accepted: false, per_second: 7 };
    assert_eq!(all, want);
    assert_eq!(load(&[("g.yaml", words::GATEWAY)]).expect("a Gateway").gateway.audit, None, "off by default");
}
