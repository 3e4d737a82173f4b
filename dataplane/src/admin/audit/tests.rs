//! The account of decisions: which lines are written, which are left out, and that each is counted once.

use std::path::Path;

use ::snapshot::{Admitted, CloseReason, RefuseReason};
use serde_json::{Value, json};

use super::*;
use crate::admin::example;
use crate::time::{Duration, Instant};

const DENIED: Topic = Topic::Refused(RefuseReason::DeniedByRule);
const MS: u64 = 1_700_000_000_250;

fn at(ms: u64) -> Now {
    Now { mono: Instant::from_micros(3_600_000_000_i64) + Duration::from_millis(ms), unix_ms: MS + ms }
}

fn settings(directory: &Path) -> Settings {
    let file = directory.join("audit.jsonl").display().to_string();
    Settings { file, max_size: 1 << 20, keep: 2, accepted: true, per_second: 3 }
}

fn lines(settings: &Settings) -> Vec<Value> {
    let text = std::fs::read_to_string(&settings.file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn each_kind_has_its_own_rate_and_every_line_that_is_left_out_is_told_of() {
    let mut rates = Rates::new(at(0).mono);
    let mut admit = |topic, ms| rates.admit(topic, 3, at(ms).mono);
    let ten: Vec<_> = (0..10).map(|ms| admit(DENIED, ms)).collect();
    assert_eq!(ten, [&[Some(0); 3][..], &[None; 7]].concat());
    assert_eq!(admit(Topic::Accepted, 11), Some(0), "a flood of one kind takes no other's place");
    assert_eq!(admit(DENIED, 999), None, "the second is not over");
    assert_eq!(admit(DENIED, 1000), Some(8));
    assert_eq!(admit(DENIED, 1001), Some(0), "told once");
    assert_eq!((rates.omitted(DENIED), rates.omitted(Topic::Accepted), rates.total()), (8, 0, 8));
}

#[test]
fn topics_have_places_and_names_of_their_own() {
    let mut names: Vec<_> = Topic::all().map(Topic::name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    let mut rates = Rates::new(at(0).mono);
    Topic::all().for_each(|topic| rates.omit(topic, 1));
    assert!(Topic::all().all(|topic| rates.omitted(topic) == 1));
    assert_eq!(Topic::of(&example::refused(RefuseReason::DeniedByRule)), Some(DENIED));
    assert_eq!(Topic::of(&example::closed(CloseReason::PolicyChanged)), Some(Topic::Cut));
    assert_eq!(Topic::of(&example::closed(CloseReason::Finished)), None);
}

#[test]
fn a_line_is_one_json_object_whatever_a_peer_calls_itself() {
    let hostile = "x\"}\n{\"decision\":\"accepted\"";
    let report = ConnectionReport { detail: Some(hostile.into()), ..example::refused(RefuseReason::DeniedByRule) };
    let text = line::line("node-b", DENIED, &report, MS);
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let want = json!({
        "time": "2023-11-14T22:13:20.250Z", "node": "node-b", "decision": "refused", "reason": "DeniedByRule",
        "direction": "inbound", "caller_id": "spiffe://example.com/shop/frontend",
        "server_id": "spiffe://example.com/shop/backend", "client": "198.18.1.2:41326", "server": "198.18.2.2:3000",
        "seen_as": null, "endpoint": null, "workload": "shop/backend", "mode": "PERMISSIVE", "tls": "TLSv1.3", "serial": "0b",
        "not_after": "2027-01-15T08:00:00.000Z", "local_serial": "0a", "admitted": null,
        "rule": "shop/backend spec.allowedSPIFFEIDs.inbound (policy.yaml:34)", "shadow": null, "detail": hostile,
        "revision": 3, "core": 1, "id": 7,
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), want);
    let probe = ConnectionReport { admitted: Some(Admitted::Bypass), ..example::plain() };
    let said: Value = serde_json::from_str(&line::line("node-b", Topic::Accepted, &probe, MS)).unwrap();
    assert_eq!(
        (&said["decision"], &said["admitted"], &said["tls"]),
        (&json!("accepted"), &json!("bypass"), &json!(null))
    );
    let egress = ConnectionReport { direction: ::snapshot::Direction::Egress, ..report };
    let said: Value = serde_json::from_str(&line::line("node-b", DENIED, &egress, u64::MAX)).unwrap();
    assert_eq!(said["caller_id"], want["server_id"], "who calls is ours there");
}

#[test]
fn what_is_above_the_rate_is_told_before_the_next_of_its_kind_and_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let mut audit = Audit::new("node-b".into(), at(0));
    let denied = example::refused(RefuseReason::DeniedByRule);
    audit.write(DENIED, &denied, MS, at(0));
    audit.configure(Some(&settings), at(0));
    for ms in 0..5 {
        audit.write(DENIED, &denied, MS, at(ms));
    }
    (0..4).for_each(|ms| audit.write(Topic::Accepted, &example::accepted(), MS, at(ms)));
    audit.write(DENIED, &denied, MS, at(1000));
    audit.lost(6, at(1000));
    audit.finish(at(1000));
    let status = audit.status().unwrap();
    assert_eq!((status.written, status.omitted, status.failed, status.error), (7, 2 + 1 + 6, 0, None));
    let said: Vec<_> = lines(&settings)
        .iter()
        .map(|line| (line["decision"].clone(), line["of"].clone(), line["reason"].clone(), line["count"].clone()))
        .collect();
    let one = |decision: &str, reason: Value| (json!(decision), Value::Null, reason, Value::Null);
    let omitted = |of: &str, reason: Value, n: u64| (json!("omitted"), json!(of), reason, json!(n));
    let (denied, none) = (json!("DeniedByRule"), Value::Null);
    let want = [
        vec![one("refused", denied.clone()); 3],
        vec![one("accepted", none.clone()); 3],
        vec![omitted("refused", denied.clone(), 2), one("refused", denied)],
        vec![omitted("unknown", none.clone(), 6), omitted("accepted", none, 1)],
    ];
    assert_eq!(said, want.concat());
}

#[test]
fn accepted_connections_are_written_only_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { accepted: false, ..settings(directory.path()) };
    let mut audit = Audit::new("node-b".into(), at(0));
    audit.configure(Some(&settings), at(0));
    audit.write(Topic::Accepted, &example::accepted(), MS, at(0));
    audit.write(Topic::Cut, &example::closed(CloseReason::PolicyChanged), MS, at(0));
    // A change of the settings finishes what was begun, and goes on in the same file.
    let more = Settings { accepted: true, ..settings.clone() };
    audit.configure(Some(&more), at(0));
    audit.write(Topic::Accepted, &example::accepted(), MS, at(0));
    audit.finish(at(0));
    let decisions: Vec<_> = lines(&settings).iter().map(|line| line["decision"].clone()).collect();
    assert_eq!(decisions, ["cut", "accepted"]);
    assert_eq!(audit.omitted().iter().map(|(_, count)| count).sum::<u64>(), 0, "what is not asked for is not missing");
}

#[test]
fn a_disk_that_hangs_holds_up_nobody_and_what_finds_no_room_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { per_second: u32::MAX, ..settings(directory.path()) };
    let mut audit = Audit::new("node-b".into(), at(0));
    let (stuck, disk) = Writer::stuck();
    audit.writer = Some(stuck);
    audit.configure(Some(&settings), at(0));
    let denied = example::refused(RefuseReason::DeniedByRule);
    let room = writer::WAITING as u64;
    (0..room + 5).for_each(|_| audit.write(DENIED, &denied, MS, at(0)));
    assert_eq!(audit.status().map(|status| (status.written, status.omitted)), Some((0, 5)));
    drop(disk);
    // Finishing has room again as soon as a first line is written.
    while audit.counts.written.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    audit.finish(at(0));
    let all = lines(&settings);
    let last = all.last().unwrap();
    assert_eq!(
        (all.len() as u64, last["decision"].as_str(), last["count"].as_u64()),
        (room + 1, Some("omitted"), Some(5))
    );
}
