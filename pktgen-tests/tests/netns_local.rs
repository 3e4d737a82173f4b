//! Calls between workloads of one node: both policies decide, and nobody without identity gets in.

use std::time::Duration;

use pktgen_tests::netns::pair::{Pair, Setup, policy};
use pktgen_tests::netns::{Host, Service, wait_until};
use snapshot::Direction;

const SECOND: &str = "apiVersion: core.riptides.io/v1alpha1
kind: Service
metadata: { name: second, namespace: riptides-system }
spec:
  addresses:
    - { address: 198.18.3.2, port: 3000 }
    - { address: \"2001:db8:3::2\", port: 3000 }
  labels: { app: second }
---
apiVersion: core.riptides.io/v1alpha1
kind: WorkloadIdentity
metadata: { name: second, namespace: riptides-system }
spec:
  workloadID: myapp/app/second
  selectors:
    - net:ip: 198.18.3.2
    - net:ip: \"2001:db8:3::2\"
  connection: { tls: { mode: MUTUAL } }
  allowedSPIFFEIDs:
    inbound: [spiffe://example.com/myapp/app/frontend]
";

#[test]
fn two_workloads_of_one_node_speak_by_their_identities_and_a_stranger_does_not() {
    let outbound = "    outbound:\n      - spiffe://example.com/myapp/app/backend-api\n";
    let egress = "  egress:\n";
    let policy = policy();
    assert!(policy.contains(outbound) && policy.contains(egress), "the frontend has both");
    let policy = policy
        .replacen(outbound, &format!("{outbound}      - spiffe://example.com/myapp/app/second\n"), 1)
        .replacen(egress, &format!("{egress}    - selectors:\n        - app: second\n"), 1);
    // What the entry does not say is the workload's own mode, which must be MUTUAL for its peer.
    let policy = policy.replacen("mode: PERMISSIVE", "mode: MUTUAL", 1);
    let files = [("policy.yaml", policy.as_str()), ("second.yaml", SECOND)];
    let pair = Pair::start(&Setup { files: &files, ..Setup::default() }).unwrap();
    let service = Service::start(&pair.site.intruder, pair.site.rig.directory()).unwrap();
    for v6 in [false, true] {
        let address = Host::Intruder.address(v6);
        let host = if v6 { format!("[{address}]") } else { address.to_string() };
        let line = format!("curl -sS --max-time 5 -H X-Marker:local http://{host}:3000/");
        let patience = Duration::from_secs(10);
        let reply = pair.site.frontend.run(&line, patience).unwrap();
        assert!(reply.ok().unwrap().contains("you said: local"), "IPv6 {v6}: {reply:?}");
        wait_until("node-a reports it as local", patience, || {
            let all = pair.node_a.connections().ok()?;
            all.into_iter().find(|c| c.direction == Direction::Local && c.server.ip() == address)
        })
        .unwrap();
        let accepted = service.accepted().unwrap();
        for outsider in [&pair.site.stranger, &pair.site.legacy] {
            let reply = outsider.run(&line, patience).unwrap();
            assert!(!reply.status.success(), "IPv6 {v6}: {reply:?}");
        }
        assert_eq!(service.accepted().unwrap(), accepted, "IPv6 {v6}: the service saw a connection");
    }
}
