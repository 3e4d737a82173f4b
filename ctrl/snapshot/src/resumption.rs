//! `connection.resumption`: whether a second handshake may go without certificates.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resumption {
    /// Each handshake is a full one.
    #[default]
    None,
    /// By tickets, each of which is authorised anew when it is used.
    Tickets,
}

impl Resumption {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tickets => "tickets",
        }
    }
}
