//! Whether a workload is ready for MUTUAL, and what `sluice apply` does not do unasked.

mod words;

use ctrl::migrate::{Callers, Row};
use snapshot::callers::{COUNTS_FOR, Caller};
use snapshot::{Called, CallerName, TlsMode};
use words::{GATEWAY, identity, load};

const NOW: u64 = 1_800_000_000;

fn plain(port: Option<u16>, ago: u64, moved: bool) -> Caller {
    Caller {
        name: port.map_or(CallerName::Others, |_| CallerName::Address("198.18.30.2".parse().unwrap())),
        port,
        mode: TlsMode::Permissive,
        mtls: false,
        connections: 2,
        last_seen: NOW - ago,
        mtls_since: moved.then_some(NOW),
        bypasses: false,
    }
}

fn by_mtls(ago: u64) -> Caller {
    Caller { name: CallerName::Id("spiffe://example.com/b".into()), mtls: true, ..plain(Some(3000), ago, false) }
}

fn called(mode: TlsMode, admits: bool, callers: Vec<Caller>) -> Called {
    Called { workload: "default/a".into(), mode, admits, callers }
}

#[test]
fn a_workload_is_ready_once_nobody_calls_it_plain_any_more() {
    use TlsMode::{Disable, Mutual, Permissive, Simple};
    let cases = [
        ("all by mTLS", Permissive, true, vec![by_mtls(0)], true, "all that called in the last 24h called by mTLS"),
        (
            "one plain",
            Permissive,
            true,
            vec![by_mtls(0), plain(Some(3000), 9, false)],
            false,
            "198.18.30.2 called plain on port 3000, 2 times",
        ),
        (
            "plain a day ago but a second",
            Permissive,
            true,
            vec![by_mtls(0), plain(Some(1), COUNTS_FOR - 1, false)],
            false,
            "198.18.30.2 called plain on port 1, 2 times",
        ),
        (
            "plain a day ago",
            Permissive,
            true,
            vec![by_mtls(0), plain(Some(1), COUNTS_FOR, false)],
            true,
            "all that called in the last 24h called by mTLS",
        ),
        (
            "plain, then by mTLS",
            Permissive,
            true,
            vec![by_mtls(0), plain(Some(1), 9, true)],
            true,
            "all that called in the last 24h called by mTLS",
        ),
        (
            "a probe that MUTUAL lets in too",
            Permissive,
            true,
            vec![by_mtls(0), Caller { bypasses: true, ..plain(Some(3000), 9, false) }],
            true,
            "all that called in the last 24h called by mTLS",
        ),
        (
            "some without a place",
            Permissive,
            true,
            vec![by_mtls(0), plain(None, 9, false)],
            false,
            "others, whom the table has no room for, called plain, 2 times",
        ),
        (
            "no list",
            Permissive,
            false,
            vec![by_mtls(0)],
            false,
            "it has no allowedSPIFFEIDs.inbound: under MUTUAL nobody may call it",
        ),
        (
            "nobody",
            Permissive,
            true,
            vec![by_mtls(COUNTS_FOR)],
            false,
            "nobody was seen to call it in the last 24h: there is nothing to judge by",
        ),
        ("there already", Mutual, true, vec![plain(Some(3000), 9, false)], true, "it is MUTUAL"),
        (
            "not looked at",
            Disable,
            true,
            vec![],
            false,
            "its mode is DISABLE: who calls it is not seen; make it PERMISSIVE first",
        ),
        (
            "without certificates",
            Simple,
            true,
            vec![],
            false,
            "its mode is SIMPLE: callers are not asked for a certificate; make it PERMISSIVE first",
        ),
    ];
    for (name, mode, admits, callers, ready, because) in cases {
        let row = Row::of(called(mode, admits, callers), NOW);
        assert_eq!((row.ready, row.because), (ready, vec![because.to_owned()]), "{name}");
    }
}

#[test]
fn apply_shuts_out_plain_callers_only_where_it_is_told_to() {
    let with = |connection: &str| {
        let spec = format!(
            "workloadID: a\nselectors: [{{ net:ip: 198.18.1.2 }}]\nconnection: {connection}\nallowedSPIFFEIDs: {{ inbound: [] }}\n"
        );
        load(&[("g.yaml", GATEWAY), ("a.yaml", &identity(&spec))]).unwrap()
    };
    let callers = |callers: Vec<Caller>| Callers {
        since: 0,
        lost: 0,
        workloads: vec![Row::of(called(TlsMode::Permissive, true, callers), NOW)],
    };
    let (mutual, one) = ("{ tls: { mode: MUTUAL } }", plain(Some(3000), 9, false));
    let cases = [
        ("to MUTUAL", mutual, one.clone(), true),
        ("to MUTUAL, for those without a place", mutual, plain(None, 9, false), true),
        ("that port stays", "{ tls: { mode: MUTUAL, ports: { '3000': PERMISSIVE } } }", one.clone(), false),
        ("that port alone", "{ tls: { mode: PERMISSIVE, ports: { '3000': MUTUAL } } }", one.clone(), true),
        ("another port", "{ tls: { mode: PERMISSIVE, ports: { '3001': MUTUAL } } }", one.clone(), false),
        ("no change", "{ tls: { mode: PERMISSIVE } }", one.clone(), false),
        ("a caller of a day ago", mutual, plain(Some(3000), COUNTS_FOR, false), false),
        ("a caller that moved", mutual, plain(Some(3000), 9, true), false),
        ("a caller by mTLS", mutual, by_mtls(9), false),
        ("a probe that it lets in", "{ bypass: [{ sources: [198.18.30.2], ports: [3000] }] }", one.clone(), false),
        ("another port's probe", "{ bypass: [{ sources: [198.18.30.2], ports: [3001] }] }", one.clone(), true),
        ("another's probe", "{ bypass: [{ sources: [198.18.30.3], ports: [3000] }] }", one.clone(), true),
        // Else every later change of anything would be refused for what was forced once.
        ("refused already", mutual, Caller { mode: TlsMode::Mutual, ..one.clone() }, false),
    ];
    for (name, connection, caller, refused) in cases {
        let refusal = callers(vec![caller]).refusal(&with(connection), NOW);
        assert_eq!(refusal.is_some(), refused, "{name}: {refusal:?}");
    }
    // Only what can shut anybody out asks the dataplane.
    let cases = [
        ("{ tls: { mode: PERMISSIVE } }", mutual, true),
        ("{ tls: { mode: PERMISSIVE } }", "{ tls: { mode: PERMISSIVE, ports: { '1': MUTUAL } } }", true),
        ("{ tls: { mode: MUTUAL, ports: { '1': PERMISSIVE } } }", mutual, true),
        (
            "{ tls: { mode: MUTUAL, ports: { '1': PERMISSIVE } } }",
            "{ tls: { mode: MUTUAL, ports: { '1': PERMISSIVE } } }",
            false,
        ),
        (mutual, mutual, false),
        ("{ tls: { mode: PERMISSIVE } }", "{ tls: { mode: DISABLE } }", false),
        (mutual, "{ tls: { mode: PERMISSIVE } }", false),
    ];
    for (now, then, asks) in cases {
        let now = ctrl::view::Resources::of(&with(now));
        assert_eq!(ctrl::migrate::is_stricter(&now.identities, &with(then)), asks, "{now:?} to {then}");
    }
    let said = callers(vec![one, plain(Some(3001), 9, false)]).refusal(&with(mutual), NOW).unwrap();
    assert!(
        said.error.starts_with("2 callers spoke plain in the last 24h to what would no longer be PERMISSIVE"),
        "{said:?}"
    );
    assert_eq!(said.details[0], "default/a: 198.18.30.2 called plain on port 3000, 2 times");
}
