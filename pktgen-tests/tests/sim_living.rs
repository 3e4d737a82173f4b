//! `onChange`, `onPeerExpiry` and `maxConnectionAge` on living calls: each word does what it says to the
//! calls that it is about, and beside each a call that it is not about lives on and carries its bytes.

mod living;

use std::time::Duration;

use dataplane::planted::{Bug, plant};
use dataplane::stats::Total;
use living::{
    A, B, DRAIN, SECOND, all_live_by, call, change, deny_all, ended_at, lasting, on_change, shows, total, unlist,
    until, waiting,
};
use pktgen_tests::sim::pki::{Authority, TRUST_DOMAIN};
use pktgen_tests::sim::topology::id;
use pktgen_tests::sim::trust::{revoke_id, revoke_serial, trust};
use pktgen_tests::sim::{Begin, Broken, CallId, Expect, Finish, Script, Setup, Side, World, clock::EPOCH};
use snapshot::{CloseReason, IdPattern, Living, OnChange, OnPeerExpiry, RefuseReason, Snapshot, TlsMode, Version};

/// Longest that a test's calls may take, in simulated microseconds.
const LIMIT: i64 = 120_000_000;

/// A call of batch that loses its rule while one of frontend does not, under each word.
fn loses_its_rule(word: OnChange, seconds: usize) -> Result<(World, [CallId; 2], Version), Broken> {
    let mut world = World::new(&Setup::new(41));
    all_live_by(&mut world, B, on_change(word));
    let lives = call(&mut world, "frontend", "backend", lasting(seconds));
    let loses = call(&mut world, "batch", "backend", lasting(seconds));
    until(&mut world, SECOND);
    let before = change(&mut world, unlist).0 - 1;
    let (refused, at) = (call(&mut world, "batch", "backend", waiting()), world.clock.micros());
    world.calls[refused.0].expect = Expect::Refused;
    world.calls[loses.0].expect = match word {
        OnChange::Cut => Expect::Cut,
        OnChange::Drain if seconds > 3 => Expect::Cut,
        OnChange::Drain | OnChange::Keep => Expect::Delivered,
    };
    match word {
        OnChange::Cut => world.oracle.forbid(loses),
        OnChange::Drain => {
            world.run(at + DRAIN.as_micros() as i64 + SECOND / 100, |_| false)?;
            world.oracle.forbid(loses);
        }
        OnChange::Keep => {}
    }
    world.run_until_over(LIMIT)?;
    world.judge()?;
    world.drain()?;
    assert_eq!(world.report(B, refused).refused, Some(RefuseReason::NotAllowedInbound), "{word:?}");
    assert_eq!(world.report(B, lives).closed, Some(CloseReason::Finished), "{word:?}");
    Ok((world, [lives, loses], Version(before)))
}

#[test]
fn a_call_that_loses_its_rule_is_cut_drained_or_kept_as_its_workload_says_and_no_new_one_begins() {
    let why = "NotAllowedInbound: spiffe://example.com/batch is not";
    for (word, closed, counted) in [
        (OnChange::Cut, CloseReason::PolicyChanged, (0, 0)),
        (OnChange::Drain, CloseReason::PolicyChanged, (1, 0)),
        (OnChange::Keep, CloseReason::Finished, (0, 1)),
    ] {
        let (world, [_, loses], before) = loses_its_rule(word, 6).unwrap_or_else(|broken| panic!("{word:?}: {broken}"));
        let said = world.report(B, loses);
        assert_eq!((said.closed, said.allowed_by, said.version), (Some(closed), Some(before), Version(before.0 + 1)));
        assert_eq!((total(&world, B, Total::LeftToDrain), total(&world, B, Total::Kept)), counted, "{word:?}");
        let detail = said.detail.as_deref().unwrap_or_default();
        assert!(detail.starts_with(why), "{word:?}: {detail}");
        assert_eq!(detail.contains("its 2s to drain are over"), word == OnChange::Drain, "{word:?}: {detail}");
        assert!(said.rule.as_deref().is_some_and(|rule| rule.contains("allowedSPIFFEIDs.inbound")), "{said:?}");
        let told: Vec<_> = world.gateways[B].outlived.iter().map(|report| (report.client, &*report.state)).collect();
        let client = world.calls[loses.0].client;
        match word {
            OnChange::Cut => assert_eq!(told, []),
            OnChange::Drain => assert_eq!(told, [(client, "draining")]),
            OnChange::Keep => assert_eq!(told, [(client, "kept")]),
        }
    }
}

#[test]
fn a_draining_call_that_ends_in_its_time_ends_in_order() {
    let (world, [_, drained], _) = loses_its_rule(OnChange::Drain, 2).unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(world.report(B, drained).closed, Some(CloseReason::Finished));
}

/// Ways in which an end is not who it was, each with another change that alone would be `onChange`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Id,
    Serial,
    Root,
    /// A revocation beside a rule and a mode that also speak against it.
    IdAndMode,
    /// A revocation beside a rule that refuses from addresses alone.
    IdAndAddress,
    /// The workload that is called is another now.
    Renamed,
}

fn is_gone(word: OnChange, gone: Gone) -> Result<World, Broken> {
    let mut world = World::new(&Setup::new(42));
    let mut second = Authority::new(world.chance.fork(), TRUST_DOMAIN);
    let bundles = [world.authority.bundle(), second.bundle()];
    world.push(B, &[], |snapshot| trust(snapshot, &bundles));
    all_live_by(&mut world, B, on_change(word));
    let own = world.authority.issue(&id("peer"), EPOCH - 3_600, EPOCH + 86_400);
    let of_second = second.issue(&id("peer"), EPOCH - 3_600, EPOCH + 86_400);
    let lives = call(&mut world, "frontend", "open", lasting(4));
    let loses = match gone {
        Gone::Serial => shows(&mut world, &own, "backend", lasting(4)),
        Gone::Root => shows(&mut world, &of_second, "backend", lasting(4)),
        Gone::Id | Gone::IdAndMode | Gone::IdAndAddress | Gone::Renamed => {
            call(&mut world, "batch", "backend", lasting(4))
        }
    };
    until(&mut world, SECOND);
    world.calls[loses.0].expect = Expect::Cut;
    let batch = IdPattern::Exact(id("batch"));
    change(&mut world, |snapshot| {
        unlist(snapshot);
        match gone {
            Gone::Id => revoke_id(snapshot, batch),
            Gone::IdAndMode => {
                revoke_id(snapshot, batch);
                snapshot.workloads[0].mode = TlsMode::Simple;
            }
            Gone::IdAndAddress => {
                revoke_id(snapshot, batch);
                deny_all(snapshot, "batch");
            }
            Gone::Serial => revoke_serial(snapshot, &own.svid.serial),
            Gone::Root => trust(snapshot, &bundles[..1]),
            Gone::Renamed => {
                snapshot.workloads[0].spiffe_id = id("renamed");
                snapshot.workloads[0].svid = None;
            }
        }
    });
    world.oracle.forbid(loses);
    world.run_until_over(LIMIT)?;
    world.judge()?;
    world.drain()?;
    let said = world.report(B, loses);
    assert_eq!(said.closed, Some(CloseReason::PolicyChanged), "{word:?} {gone:?}: {said:?}");
    let detail = said.detail.unwrap_or_default();
    let want = match gone {
        Gone::Id | Gone::Serial | Gone::IdAndMode | Gone::IdAndAddress => "PeerRevoked",
        Gone::Root => "PeerUntrusted",
        Gone::Renamed => "another identity",
    };
    assert!(detail.contains(want), "{word:?} {gone:?}: {detail}");
    assert_eq!(world.report(B, lives).closed, Some(CloseReason::Finished), "{word:?} {gone:?}");
    Ok(world)
}

#[test]
fn whoever_is_revoked_not_believed_or_somebody_else_is_cut_by_every_word() {
    for word in [OnChange::Cut, OnChange::Drain, OnChange::Keep] {
        for gone in [Gone::Id, Gone::Serial, Gone::Root, Gone::IdAndMode, Gone::IdAndAddress, Gone::Renamed] {
            is_gone(word, gone).unwrap_or_else(|broken| panic!("{word:?} {gone:?}: {broken}"));
        }
    }
}

#[test]
fn what_outlives_a_change_is_decided_by_each_later_one_again() {
    let list = |snapshot: &mut Snapshot| {
        snapshot.workloads[0].inbound.as_mut().expect("a list").push(IdPattern::Exact(id("batch")));
    };
    let cut = |snapshot: &mut Snapshot| snapshot.workloads[0].living.on_change = OnChange::Cut;
    type Edit<'e> = &'e dyn Fn(&mut Snapshot);
    let revoke = |snapshot: &mut Snapshot| revoke_id(snapshot, IdPattern::Exact(id("batch")));
    let nothing = |_: &mut Snapshot| {};
    let cases: [(&str, OnChange, Edit<'_>, bool); 6] = [
        ("kept, then revoked", OnChange::Keep, &revoke, false),
        ("kept, then the word is cut", OnChange::Keep, &cut, false),
        ("kept, then allowed again", OnChange::Keep, &list, true),
        ("drains, then revoked", OnChange::Drain, &revoke, false),
        ("drains, then allowed again", OnChange::Drain, &list, true),
        ("drains, and another change gives no longer", OnChange::Drain, &nothing, false),
    ];
    for (name, word, edit, lives) in cases {
        let mut world = World::new(&Setup::new(43));
        all_live_by(&mut world, B, on_change(word));
        let other = call(&mut world, "frontend", "backend", lasting(6));
        let loses = call(&mut world, "batch", "backend", lasting(6));
        until(&mut world, SECOND);
        change(&mut world, unlist);
        until(&mut world, 2 * SECOND);
        assert!(world.gateways[B].ended.is_empty(), "{name}: both go on");
        world.calls[loses.0].expect = if lives { Expect::Delivered } else { Expect::Cut };
        change(&mut world, edit);
        if !lives {
            until(&mut world, SECOND + DRAIN.as_micros() as i64 + SECOND / 10);
            world.oracle.forbid(loses);
        }
        world.finish(LIMIT, name);
        let said = world.report(B, loses);
        let want = if lives { CloseReason::Finished } else { CloseReason::PolicyChanged };
        assert_eq!((said.closed, said.allowed_by.is_none()), (Some(want), lives), "{name}: {said:?}");
        assert_eq!(world.report(B, other).closed, Some(CloseReason::Finished), "{name}");
    }
}

fn on_expiry(on_peer_expiry: OnPeerExpiry) -> Living {
    Living { on_peer_expiry, expiry_grace: Duration::from_secs(2), ..Living::default() }
}

/// Seconds after the start that a peer's certificate is valid for, and a little more.
const VALID: u64 = 3;

/// A call of a peer whose certificate ends, and one of a peer whose does not; what each came to.
fn expires(word: OnPeerExpiry) -> (World, [CallId; 2]) {
    let mut world = World::new(&Setup::new(44));
    all_live_by(&mut world, B, on_expiry(word));
    let short = world.authority.issue(&id("peer"), EPOCH - 60, EPOCH + VALID);
    let long = world.authority.issue(&id("peer"), EPOCH - 60, EPOCH + 600);
    let ids = [&short, &long].map(|shown| shows(&mut world, shown, "backend", lasting(8)));
    if word != OnPeerExpiry::Ignore {
        world.calls[ids[0].0].expect = Expect::GivenUp;
    }
    world.finish(LIMIT, &format!("{word:?}"));
    (world, ids)
}

#[test]
fn a_call_whose_peers_certificate_ends_is_closed_with_it_a_grace_later_or_not_at_all() {
    for (word, at) in
        [(OnPeerExpiry::Close, Some(VALID + 1)), (OnPeerExpiry::Grace, Some(VALID + 3)), (OnPeerExpiry::Ignore, None)]
    {
        let (world, [short, long]) = expires(word);
        assert_eq!(world.report(B, long).closed, Some(CloseReason::Finished), "{word:?}");
        let said = world.report(B, short);
        let Some(at) = at else {
            assert_eq!(said.closed, Some(CloseReason::Finished), "{word:?}");
            continue;
        };
        assert_eq!(said.closed, Some(CloseReason::PeerExpired), "{word:?}");
        let ended = ended_at(&world, B, short);
        assert!((at * 1000..at * 1000 + 50).contains(&ended), "{word:?}: it ended at {ended} ms, not {at} s");
        let detail = said.detail.unwrap_or_default();
        assert!(detail.contains(&format!("spiffe://example.com/peer ended at {}", EPOCH + VALID)), "{detail}");
    }
}

#[test]
fn a_caller_watches_its_servers_certificate_and_a_plain_or_local_call_has_none_to_watch() {
    let mut world = World::new(&Setup::new(45));
    for node in [A, B] {
        all_live_by(&mut world, node, on_expiry(OnPeerExpiry::Close));
    }
    let backend = world.authority.issue(&id("backend"), EPOCH - 60, EPOCH + VALID);
    world.push(B, std::slice::from_ref(&backend), |snapshot| snapshot.workloads[0].svid = Some(backend.svid.clone()));
    until(&mut world, SECOND / 10);
    let watched = call(&mut world, "frontend", "backend", lasting(6));
    let others = [
        ("another server", call(&mut world, "frontend", "open", lasting(6))),
        ("plain, under PERMISSIVE", call(&mut world, "legacy", "open", lasting(6))),
        ("between two of one node", call(&mut world, "frontend", "local", lasting(6))),
    ];
    world.calls[watched.0].expect = Expect::GivenUp;
    world.finish(LIMIT, "both directions");
    assert_eq!(world.report(A, watched).closed, Some(CloseReason::PeerExpired));
    for (name, other) in others {
        let node = if name.starts_with("between") { A } else { B };
        assert_eq!(world.report(node, other).closed, Some(CloseReason::Finished), "{name}");
    }
}

/// A call that is over before its certificate is, unless the wall clock is set by `seconds` meanwhile.
fn clock_set(seconds: i64) -> Result<(World, CallId), Broken> {
    let mut world = World::new(&Setup::new(46));
    all_live_by(&mut world, B, on_expiry(OnPeerExpiry::Close));
    let shown = world.authority.issue(&id("peer"), EPOCH - 86_400, EPOCH + 8);
    let watched = shows(&mut world, &shown, "backend", lasting(6));
    world.calls[watched.0].expect = if seconds > 0 { Expect::GivenUp } else { Expect::Delivered };
    world.run(SECOND, |_| false)?;
    world.clock.set_wall(seconds);
    world.run_until_over(LIMIT)?;
    world.judge()?;
    world.drain()?;
    Ok((world, watched))
}

#[test]
fn a_wall_clock_that_is_set_forward_closes_at_once_and_one_that_is_set_back_does_not_too_early() {
    let (world, watched) = clock_set(3_600).unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(world.report(B, watched).closed, Some(CloseReason::PeerExpired));
    let ended = ended_at(&world, B, watched);
    assert!((3_601_000..3_601_100).contains(&ended), "it ended at {ended} ms");
    let (world, watched) = clock_set(-3_600).unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(world.report(B, watched).closed, Some(CloseReason::Finished));
}

fn at_most(seconds: u64) -> Living {
    Living { max_age: Some(Duration::from_secs(seconds)), age_grace: Duration::from_secs(2), ..Living::default() }
}

/// Calls to `backend`, whose age is bounded, and one to `open`, whose is not.
fn ages(scripts: [Script; 2], expect: Expect, count: usize) -> Result<(World, Vec<CallId>, CallId), Broken> {
    let mut world = World::new(&Setup::new(47));
    world.push(B, &[], |snapshot| snapshot.workloads[0].living = at_most(5));
    let old: Vec<_> = (0..count).map(|_| call(&mut world, "frontend", "backend", scripts.clone())).collect();
    let other = call(&mut world, "frontend", "open", lasting(10));
    old.iter().for_each(|id| world.calls[id.0].expect = expect);
    world.run_until_over(LIMIT)?;
    world.judge()?;
    world.drain()?;
    Ok((world, old, other))
}

#[test]
fn an_old_call_that_pauses_ends_in_order_and_one_that_does_not_is_reset_a_grace_later() {
    let pauses = ages(waiting(), Expect::Delivered, 1);
    let streams = ages(lasting(20), Expect::Cut, 1);
    for (name, run, end) in [("pauses", pauses, 5_600), ("streams", streams, 7_200)] {
        let (world, old, other) = run.unwrap_or_else(|broken| panic!("{name}: {broken}"));
        let said = world.report(B, old[0]);
        assert_eq!(said.closed, Some(CloseReason::MaxAge), "{name}: {said:?}");
        assert_eq!(said.detail.is_some(), name == "streams", "{said:?}");
        let ended = ended_at(&world, B, old[0]);
        assert!((4_500..end).contains(&ended), "{name}: it ended at {ended} ms");
        assert_eq!(world.report(B, other).closed, Some(CloseReason::Finished), "{name}");
        assert!(ended_at(&world, B, other) > 9_000, "{name}: another workload's lives on");
    }
}

#[test]
fn a_caller_that_speaks_when_the_service_has_been_told_its_end_is_reset_and_not_left_in_doubt() {
    let late = [
        Script::new(2_000, Begin::AtOnce, Finish::Last).paced(500, 1_750_000),
        Script::new(500, Begin::AfterReceived(500), Finish::Last),
    ];
    let mut world = World::new(&Setup::new(48));
    world.push(B, &[], |snapshot| snapshot.workloads[0].living = at_most(5));
    let id = call(&mut world, "frontend", "backend", late);
    world.run_until_over(LIMIT).unwrap_or_else(|broken| panic!("{broken}"));
    world.drain().unwrap_or_else(|broken| panic!("{broken}"));
    let said = world.report(B, id);
    assert_eq!(said.closed, Some(CloseReason::MaxAge), "{said:?}");
    assert!(said.detail.as_deref().is_some_and(|detail| detail.contains("sent more")), "{said:?}");
    let sent = |side| world.end(id, side).map(|end| (end.progress.sent, end.progress.received));
    assert_eq!((sent(Side::Client), sent(Side::Server)), (Some((1_500, 500)), Some((500, 1_000))));
}

#[test]
fn calls_that_began_together_do_not_all_end_together() {
    let (world, old, _) = ages(waiting(), Expect::Delivered, 60).unwrap_or_else(|broken| panic!("{broken}"));
    let mut ends: Vec<_> = old.iter().map(|id| ended_at(&world, B, *id)).collect();
    ends.sort_unstable();
    let most = ends.iter().map(|from| ends.iter().filter(|at| (*from..from + 50).contains(at)).count()).max();
    assert!(most <= Some(20), "{most:?} of 60 within 50 ms: {ends:?}");
    assert!(ends[59] - ends[0] > 300, "{ends:?}");
    // Half a second is their tenth; the look at whether they pause comes after it.
    assert!(ends[0] >= 4_500 && ends[59] < 5_600, "{ends:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let hashes = [(); 2].map(|()| {
        let (world, ..) = ages(waiting(), Expect::Delivered, 10).unwrap_or_else(|broken| panic!("{broken}"));
        let (drained, ..) = loses_its_rule(OnChange::Drain, 6).unwrap_or_else(|broken| panic!("{broken}"));
        (world.trace_hash(), drained.trace_hash())
    });
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn each_planted_bug_of_living_connections_is_caught() {
    let planted = |bug, run: &dyn Fn() -> Option<Broken>| {
        plant(Some(bug));
        let broken = run();
        plant(None);
        broken.unwrap_or_else(|| panic!("{bug:?} was not caught")).what
    };
    for bug in Bug::OF_LIVING {
        let (run, sign): (&dyn Fn() -> Option<Broken>, _) = match bug {
            Bug::RevokedKept => {
                (&|| is_gone(OnChange::Keep, Gone::Id).err(), "payload without an Allow in force: batch")
            }
            Bug::DrainEndless => {
                (&|| loses_its_rule(OnChange::Drain, 6).err(), "payload without an Allow in force: batch")
            }
            Bug::ClockJumpMissed => (&|| clock_set(3_600).err(), "giving up was not told as an abort"),
            Bug::AgeCutsShort => (&|| ages(lasting(20), Expect::Cut, 1).err(), "a cut was told as an orderly end"),
            other => unreachable!("{other:?} is not of them"),
        };
        let what = planted(bug, run);
        assert!(what.contains(sign), "{bug:?}: {what}");
    }
}
