//! What is measured, and in which order.
//!
//! Contenders take turns within each layout, and the whole is repeated: a machine that grows slower
//! or noisier then does so for all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contender::Contender;

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Shows that all works; proves nothing.
    Quick,
    Core,
    Full,
}

/// What the load generator does in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    Bulk(Flow),
    /// Each with one request and answer. Without a rate: 16 clients, each as fast as it goes.
    Connections {
        rate: Option<u32>,
    },
    /// Requests and answers of 64 bytes on connections that stay.
    RoundTrip {
        connections: u32,
        rate: Option<u32>,
    },
    /// Connections that do nothing.
    Idle {
        connections: u32,
    },
    /// Round trips on connections that stand, while this goes on beside them.
    Isolation(Noise),
    /// A stream on a way that no gateway captures.
    Bystander {
        megabits: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    pub streams: u32,
    /// From the server to the client.
    pub down: bool,
    /// Of all streams together. None: as fast as it goes.
    pub megabits: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Handshakes, as many times what the gateway can do.
    Storm(u32),
    /// The same frames, to a port that is dropped before the gateway.
    Dropped(u32),
    /// One stream, as fast as it goes.
    Elephant,
}

/// What the contenders stand on, and how they are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layout {
    pub outside: u32,
    pub inside: u32,
    /// Segmentation offload of the cables, and merging on receipt: on as the kernel has it, or off.
    pub offload: bool,
    pub cpus: Cpus,
    pub cores: Cores,
    pub tls: Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cpus {
    /// The scheduler places all but what pins itself.
    Free,
    /// Everything on the first CPU.
    One,
}

/// Workers of each gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cores {
    One,
    /// On the first two CPUs, which both gateways share.
    Two,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// A full handshake for each connection, X25519.
    Full,
    /// The same with X25519MLKEM768.
    PostQuantum,
    /// X25519, and tickets are taken up again.
    Resumed,
}

/// One contender in its place, and the work that it then does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub layout: Layout,
    pub contender: Contender,
    /// What the contender is called in the samples.
    pub subject: String,
    pub works: Vec<Work>,
}

pub const BASE: Layout =
    Layout { outside: 1500, inside: 1500, offload: true, cpus: Cpus::Free, cores: Cores::One, tls: Tls::Full };

/// Offered by the fixed-rate cases: what every contender can carry, so that all do the same work.
pub const MEGABITS: u32 = 1000;
const CONNECTIONS_PER_SECOND: u32 = 400;
pub const REQUESTS_PER_SECOND: u32 = 2000;
const MANY_REQUESTS_PER_SECOND: u32 = 4000;
/// In a proxy each takes two descriptors, of which many a machine gives 20,000.
pub const PROXY_IDLE: u32 = 9000;
/// More than a proxy of one process gets descriptors for.
const MANY_IDLE: u32 = 100_000;

/// The turns of one round.
pub fn turns(scope: Scope, contenders: &[Contender], chosen: &dyn Fn(&str) -> bool) -> Vec<Turn> {
    let mut turns = Vec::new();
    for (layout, works) in cases(scope) {
        for contender in contenders.iter().filter(|contender| contender.fits(&layout)) {
            let wanted = |work: &&Work| chosen(&case(**work, &layout)) && contender.does(**work);
            let works: Vec<Work> = works.iter().filter(wanted).copied().collect();
            if !works.is_empty() {
                turns.push(Turn { layout, contender: *contender, subject: contender.name().into(), works });
            }
        }
    }
    turns
}

/// Layouts with their work.
pub fn cases(scope: Scope) -> Vec<(Layout, Vec<Work>)> {
    let stream = |streams, megabits| Work::Bulk(Flow { streams, down: false, megabits });
    let bulk = vec![stream(1, Some(MEGABITS)), stream(1, None), stream(8, None)];
    let few = bulk[..2].to_vec();
    let trips = |connections, rate| Work::RoundTrip { connections, rate };
    let connections = vec![Work::Connections { rate: Some(CONNECTIONS_PER_SECOND) }, Work::Connections { rate: None }];
    let one_trip = vec![trips(1, Some(REQUESTS_PER_SECOND))];
    let small = [
        &connections[..],
        &one_trip,
        &[
            trips(64, Some(MANY_REQUESTS_PER_SECOND)),
            trips(1000, Some(MANY_REQUESTS_PER_SECOND)),
            trips(1, None),
            trips(64, None),
        ],
    ]
    .concat();
    let mtu = |outside, inside, offload| Layout { outside, inside, offload, ..BASE };
    let mut cases = vec![
        (mtu(1500, 1500, false), bulk.clone()),
        (BASE, [bulk.clone(), small].concat()),
        (mtu(1500, 65535, true), few.clone()),
        (mtu(9000, 65535, true), few.clone()),
        // The work that the one before is compared with: without a proxy the MTUs are one.
        (mtu(9000, 9000, true), few.clone()),
        (Layout { cpus: Cpus::One, ..BASE }, one_trip.clone()),
        // Laid for themselves: pools that other work has filled would serve these connections.
        (BASE, vec![Work::Idle { connections: 1000 }]),
        (BASE, [Noise::Dropped(10), Noise::Storm(10)].map(Work::Isolation).to_vec()),
        (BASE, vec![Work::Bystander { megabits: None }]),
    ];
    if scope == Scope::Full {
        let down = Work::Bulk(Flow { streams: 1, down: true, megabits: None });
        cases.extend([
            (mtu(1500, 65535, false), bulk.clone()),
            (mtu(9000, 9000, false), bulk.clone()),
            (mtu(9000, 65535, false), bulk.clone()),
            (BASE, vec![down]),
            (BASE, [Noise::Dropped(1), Noise::Storm(1), Noise::Elephant].map(Work::Isolation).to_vec()),
            (BASE, vec![Work::Bystander { megabits: Some(MEGABITS) }]),
            (BASE, vec![Work::Idle { connections: PROXY_IDLE }]),
            (BASE, vec![Work::Idle { connections: MANY_IDLE }]),
            (Layout { cpus: Cpus::One, ..BASE }, vec![stream(1, Some(MEGABITS)), connections[0]]),
            (Layout { cores: Cores::Two, ..BASE }, [&bulk[2..], &connections].concat()),
            (Layout { tls: Tls::PostQuantum, ..BASE }, connections.clone()),
            (Layout { tls: Tls::Resumed, ..BASE }, connections.clone()),
        ]);
    }
    cases
}

/// Names a case in every output.
pub fn case(work: Work, layout: &Layout) -> String {
    format!("{work}, {layout}")
}

/// The case that shows what the same work costs without a proxy, which has one MTU, no TLS and no cores.
pub fn baseline(work: Work, layout: &Layout) -> String {
    case(work, &Layout { inside: layout.outside, cores: Cores::One, tls: Tls::Full, ..*layout })
}

impl Work {
    /// How long it is timed, beside `seconds` for a stream; and roughly takes with all around it.
    pub fn seconds(self, seconds: f64) -> f64 {
        match self {
            Self::Bulk(_) => seconds,
            Self::Bystander { .. } => seconds,
            Self::Connections { .. } | Self::RoundTrip { .. } | Self::Isolation(_) => seconds * 1.25,
            // As long as opening takes: 700 to 2500 in a second on a quiet machine.
            Self::Idle { connections } => f64::from(connections) / 1000.0,
        }
    }

    /// What was asked for in a second: Mbit, connections or requests.
    pub fn rate(self) -> Option<u32> {
        match self {
            Self::Bulk(flow) => flow.megabits,
            Self::Connections { rate } | Self::RoundTrip { rate, .. } => rate,
            Self::Bystander { megabits } => megabits,
            Self::Isolation(_) => Some(REQUESTS_PER_SECOND),
            Self::Idle { .. } => None,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        match *self {
            Self::Bulk(Flow { streams, down, megabits }) => {
                write!(f, "bulk, {streams} stream{}{}", plural(streams), if down { " down" } else { "" })?;
                megabits.map_or(Ok(()), |megabits| write!(f, " at {:.1} Gbit/s", f64::from(megabits) / 1000.0))
            }
            Self::Connections { rate: None } => write!(f, "new connections, 16 clients"),
            Self::Connections { rate: Some(rate) } => write!(f, "new connections, {rate}/s"),
            Self::RoundTrip { connections, rate } => {
                write!(f, "round trip, {connections} connection{}", plural(connections))?;
                match rate {
                    Some(rate) => write!(f, ", {rate}/s"),
                    None => write!(f, ", closed loop"),
                }
            }
            Self::Idle { connections } => write!(f, "memory, {connections} idle connections"),
            Self::Isolation(Noise::Storm(times)) => write!(f, "isolation, storm {times}x"),
            Self::Isolation(Noise::Dropped(times)) => write!(f, "isolation, dropped {times}x"),
            Self::Isolation(Noise::Elephant) => write!(f, "isolation, elephant"),
            Self::Bystander { megabits } => {
                write!(f, "uncaptured stream")?;
                megabits.map_or(Ok(()), |megabits| write!(f, " at {:.1} Gbit/s", f64::from(megabits) / 1000.0))
            }
        }
    }
}

impl Cores {
    pub fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outside, inside, offload, cpus, cores, tls } = *self;
        write!(f, "MTU {outside}/{inside}, offload {}", if offload { "on" } else { "off" })?;
        match cpus {
            Cpus::Free => {}
            Cpus::One => write!(f, ", one CPU")?,
        }
        match cores {
            Cores::One => {}
            Cores::Two => write!(f, ", two cores each")?,
        }
        match tls {
            Tls::Full => Ok(()),
            Tls::PostQuantum => write!(f, ", ML-KEM"),
            Tls::Resumed => write!(f, ", resumed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(scope: Scope) -> Vec<Turn> {
        turns(scope, &Contender::ALL, &|_| true)
    }

    #[test]
    fn contenders_take_turns_in_each_layout() {
        let turns = all(Scope::Core);
        let order: Vec<_> = turns[..5].iter().map(|turn| turn.contender).collect();
        assert_eq!(order, Contender::ALL);
        assert!(turns[..5].iter().all(|turn| turn.layout == turns[0].layout));
        // The kernel alone cannot make small segments of large ones on the way.
        assert!(turns.iter().all(|t| t.contender != Contender::None || t.layout.inside == t.layout.outside));
    }

    #[test]
    fn every_case_of_a_proxy_has_its_work_done_without_one() {
        for scope in [Scope::Quick, Scope::Core, Scope::Full] {
            let turns = all(scope);
            let cases = |turn: &Turn| turn.works.iter().map(|w| case(*w, &turn.layout)).collect::<Vec<_>>();
            let none: Vec<String> =
                turns.iter().filter(|turn| turn.contender == Contender::None).flat_map(cases).collect();
            for turn in &turns {
                for work in &turn.works {
                    let wanted = baseline(*work, &turn.layout);
                    let alone = matches!(work, Work::Idle { .. } | Work::Isolation(_));
                    assert!(alone || none.contains(&wanted), "{wanted}");
                }
            }
        }
    }

    #[test]
    fn more_cores_stand_beside_the_same_work_on_one_and_are_sluices_alone() {
        let turns = all(Scope::Full);
        let two: Vec<_> = turns.iter().filter(|turn| turn.layout.cores == Cores::Two).collect();
        assert!(!two.is_empty() && two.iter().all(|turn| turn.contender == Contender::Sluice));
        for work in two.iter().flat_map(|turn| &turn.works) {
            let one = |turn: &Turn| turn.contender == Contender::Sluice && turn.layout == BASE;
            assert!(turns.iter().any(|turn| one(turn) && turn.works.contains(work)), "{work} on one core");
        }
    }

    #[test]
    fn connections_that_no_proxy_has_descriptors_for_are_sluices_alone() {
        let idle = |turn: &Turn, count| turn.works.contains(&Work::Idle { connections: count });
        let turns = all(Scope::Full);
        let with = |count| turns.iter().filter(|turn| idle(turn, count)).map(|turn| turn.contender).collect::<Vec<_>>();
        assert_eq!(with(PROXY_IDLE), Contender::ALL);
        assert_eq!(with(MANY_IDLE), [Contender::Sluice]);
    }

    #[test]
    fn names_of_cases_differ() {
        let cases = cases(Scope::Full);
        let names: Vec<_> = cases.iter().flat_map(|(l, works)| works.iter().map(|w| case(*w, l))).collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:#?}");
    }

    #[test]
    fn cases_are_chosen_by_part_of_their_name() {
        let turns = turns(Scope::Core, &[Contender::Sluice], &|name| name.contains("memory"));
        assert_eq!(turns.len(), 1);
        assert_eq!(turns[0].works, [Work::Idle { connections: 1000 }]);
    }
}
