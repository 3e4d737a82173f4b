//! What the machine can do at best, measured in the same run, so that each result of a gateway pair
//! reads as a share of what is possible here: [`cryptography`] alone, and the [`forward`]ing of
//! frames by AF_XDP alone.

pub mod cryptography;
pub mod forward;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::samples::Figure;

pub const SUBJECT: &str = "machine";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Cryptography,
    Forward,
}

impl Limit {
    pub const ALL: [Self; 2] = [Self::Cryptography, Self::Forward];

    pub fn case(self) -> &'static str {
        match self {
            Self::Cryptography => "limits, cryptography alone",
            Self::Forward => "limits, raw AF_XDP forward",
        }
    }

    /// Figures, and the share of the machine that strangers had meanwhile. Each is timed for as long
    /// as a stream is, and no longer than a second.
    pub fn measure(self, seconds: f64) -> Result<(BTreeMap<String, Figure>, f64)> {
        match self {
            // In the thread's own CPU time, of which strangers have none.
            Self::Cryptography => Ok((cryptography::measure()?, 0.0)),
            Self::Forward => forward::measure(seconds.min(1.0)),
        }
    }

    /// How long it takes, roughly.
    pub fn seconds(self, seconds: f64) -> f64 {
        match self {
            Self::Cryptography => 0.7,
            Self::Forward => forward::expected(seconds.min(1.0)),
        }
    }
}

fn figure(value: f64, unit: &str) -> Figure {
    Figure { value, unit: unit.into() }
}
