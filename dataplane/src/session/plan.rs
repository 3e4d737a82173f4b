//! What a session is to do, read off the policy's [`Route`]: which leg speaks what, and who is
//! connected first (D12).

use snapshot::{Direction, Side, SourceAddress, TlsMode};

use crate::policy::Route;

/// What one leg carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Plain,
    Tls,
    /// TLS if the caller's first bytes say so (PERMISSIVE).
    Detect,
}

/// Which leg has to stand before the other is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The caller is only answered when the far side stands.
    UpFirst,
    /// The service is only called when the caller may.
    DownFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub direction: Direction,
    pub order: Order,
    pub down: Speech,
    pub up: Speech,
    /// Where the up leg calls from.
    pub source: SourceAddress,
    /// What the views show.
    pub mode: Option<TlsMode>,
}

impl Plan {
    /// None: the route refuses.
    pub fn of(route: &Route, side: Side) -> Option<Self> {
        let plan =
            |direction, order, down, up, mode| Some(Self { direction, order, down, up, source: route.source(), mode });
        match *route {
            // A probe asks whether the service is well, so it is the service that has to answer it.
            Route::Inbound { mode, bypass: Some(_), .. } => {
                plan(Direction::Inbound, Order::UpFirst, Speech::Detect, Speech::Plain, Some(mode))
            }
            Route::Inbound { mode, .. } => {
                let down = match mode {
                    TlsMode::Mutual | TlsMode::Simple => Speech::Tls,
                    TlsMode::Permissive => Speech::Detect,
                    TlsMode::Disable => {
                        return plan(Direction::Inbound, Order::UpFirst, Speech::Plain, Speech::Plain, Some(mode));
                    }
                };
                plan(Direction::Inbound, Order::DownFirst, down, Speech::Plain, Some(mode))
            }
            Route::Egress { mode, .. } => {
                let up = match mode {
                    TlsMode::Mutual | TlsMode::Simple => Speech::Tls,
                    TlsMode::Permissive | TlsMode::Disable => Speech::Plain,
                };
                plan(Direction::Egress, Order::UpFirst, Speech::Plain, up, Some(mode))
            }
            Route::Local { mode_in, .. } => {
                plan(Direction::Local, Order::UpFirst, Speech::Plain, Speech::Plain, Some(mode_in))
            }
            Route::Plain { .. } => {
                plan(super::report::direction_of(side), Order::UpFirst, Speech::Plain, Speech::Plain, None)
            }
            Route::Refuse { .. } => None,
        }
    }
}
