//! `onChange`, `onPeerExpiry`, `maxConnectionAge` and their times: of the Gateway for all of its node,
//! of a WorkloadIdentity for its own connections.

use std::time::Duration;

use snapshot::{Living, OnChange, OnPeerExpiry, Timeouts};

use super::decode::{Faults, Field, Fields};

/// What was said; what was not is the Gateway's word, then the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetimes {
    on_change: Option<OnChange>,
    drain_for: Option<Duration>,
    on_peer_expiry: Option<OnPeerExpiry>,
    expiry_grace: Option<Duration>,
    max_age: Option<MaxAge>,
    age_grace: Option<Duration>,
}

/// What was read, with the fields of the times that are for one word only.
struct Read<'n> {
    said: Lifetimes,
    drain: Option<Field<'n>>,
    grace: Option<Field<'n>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MaxAge {
    /// A workload's word against its Gateway's.
    Unlimited,
    Limited(Duration),
}

impl Lifetimes {
    /// Of a Gateway: a mapping that has nothing else in it.
    pub fn decode(map: &Field<'_>, faults: &mut Faults<'_>) -> Self {
        let Some(mut fields) = map.fields(faults) else { return Self::default() };
        let said = Self::read(&mut fields, faults).said;
        fields.finish(faults);
        said
    }

    /// Of a workload: some fields among others. A time that its own word has no use for is warned about; at a
    /// Gateway it may be for workloads with another word.
    pub fn decode_in(fields: &mut Fields<'_>, faults: &mut Faults<'_>) -> Self {
        let Read { said, drain, grace } = Self::read(fields, faults);
        let other = said.on_change.filter(|word| *word != OnChange::Drain).map(OnChange::name);
        idle(&drain, other, "onChange: drain", faults);
        let other = said.on_peer_expiry.filter(|word| *word != OnPeerExpiry::Grace).map(OnPeerExpiry::name);
        idle(&grace, other, "onPeerExpiry: grace", faults);
        said
    }

    fn read<'n>(fields: &mut Fields<'n>, faults: &mut Faults<'_>) -> Read<'n> {
        let on_change = fields.optional("onChange").and_then(|field| field.choice(ON_CHANGE, faults));
        let drain = fields.optional("drainFor");
        let on_peer_expiry = fields.optional("onPeerExpiry").and_then(|field| field.choice(ON_PEER_EXPIRY, faults));
        let grace = fields.optional("expiryGrace");
        let said = Self {
            on_change,
            drain_for: drain.as_ref().and_then(|field| field.duration(SHORTEST..=DAY, faults)),
            on_peer_expiry,
            expiry_grace: grace.as_ref().and_then(|field| field.duration(SECOND..=WEEK, faults)),
            max_age: fields.optional("maxConnectionAge").and_then(|field| max_age(&field, faults)),
            age_grace: fields.optional("ageGrace").and_then(|field| field.duration(Duration::ZERO..=DAY, faults)),
        };
        Read { said, drain, grace }
    }

    /// What holds for connections of whoever said this, on a node of whose Gateway `node` is the word.
    pub fn on(self, node: Self, timeouts: &Timeouts) -> Living {
        let other = Living::default();
        let max_age = match self.max_age.or(node.max_age) {
            Some(MaxAge::Limited(age)) => Some(age),
            Some(MaxAge::Unlimited) | None => other.max_age,
        };
        Living {
            on_change: self.on_change.or(node.on_change).unwrap_or(other.on_change),
            drain_for: self.drain_for.or(node.drain_for).unwrap_or(timeouts.drain),
            on_peer_expiry: self.on_peer_expiry.or(node.on_peer_expiry).unwrap_or(other.on_peer_expiry),
            expiry_grace: self.expiry_grace.or(node.expiry_grace).unwrap_or(other.expiry_grace),
            max_age,
            age_grace: self.age_grace.or(node.age_grace).unwrap_or(other.age_grace),
        }
    }
}

/// A time that no word beside it asks for.
fn idle(field: &Option<Field<'_>>, other: Option<&'static str>, needed: &str, faults: &mut Faults<'_>) {
    if let (Some(field), Some(other)) = (field, other) {
        let message = format!("has no effect: the word beside it is {other}");
        faults.warning(field.at(), &field.path, message, format!("it is for {needed}"));
    }
}

fn max_age(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<MaxAge> {
    match field.is_word("none") {
        true => Some(MaxAge::Unlimited),
        false => field.duration(SECOND..=YEAR, faults).map(MaxAge::Limited),
    }
}

const ON_CHANGE: &[(&str, OnChange)] = &[
    (OnChange::Cut.name(), OnChange::Cut),
    (OnChange::Drain.name(), OnChange::Drain),
    (OnChange::Keep.name(), OnChange::Keep),
];
const ON_PEER_EXPIRY: &[(&str, OnPeerExpiry)] = &[
    (OnPeerExpiry::Close.name(), OnPeerExpiry::Close),
    (OnPeerExpiry::Grace.name(), OnPeerExpiry::Grace),
    (OnPeerExpiry::Ignore.name(), OnPeerExpiry::Ignore),
];
const SHORTEST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
