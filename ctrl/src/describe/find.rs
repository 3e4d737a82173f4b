//! Which one is meant by a name, and what is said where it is none.

use crate::config::suggest::nearest;

/// What has a name that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gateway,
    Workload,
    Service,
    Policy,
    TrustDomain,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::Workload => "workload",
            Self::Service => "Service",
            Self::Policy => "Policy",
            Self::TrustDomain => "trust domain or TrustBundle",
        }
    }

    const fn listed_by(self) -> &'static str {
        match self {
            Self::Gateway => "sluice get gateways",
            Self::Workload => "sluice identities",
            Self::Service => "sluice get services",
            Self::Policy => "sluice get policies",
            Self::TrustDomain => "sluice bundle",
        }
    }
}

/// No name, or no single one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error(
        "there is no {} {name} here:{} `{}` lists those that are",
        kind.name(),
        near.as_ref().map(|near| format!(" did you mean {near}?")).unwrap_or_default(),
        kind.listed_by()
    )]
    Name { kind: Kind, name: String, near: Option<String> },
    #[error("there are several by the name {name}, {}: give one with its namespace", all.join(" and "))]
    Several { name: String, all: Vec<String> },
}

/// Which of `names` is meant: it itself, or the one whose name without the namespace it is.
pub fn find<'n>(kind: Kind, wanted: &str, names: impl Iterator<Item = &'n str> + Clone) -> Result<&'n str, Unknown> {
    if let Some(exact) = names.clone().find(|name| *name == wanted) {
        return Ok(exact);
    }
    let mut short = names.clone().filter(|name| bare(name) == wanted);
    match (short.next(), short.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            let all = names.filter(|name| bare(name) == wanted).take(SHOWN).map(str::to_owned).collect();
            Err(Unknown::Several { name: wanted.into(), all })
        }
        (None, _) => {
            let near = nearest(wanted, names.clone());
            // Who leaves the namespace out may mistype the rest.
            let near = near.or_else(|| {
                let short = nearest(wanted, names.clone().map(bare))?;
                names.clone().find(|name| bare(name) == short)
            });
            Err(Unknown::Name { kind, name: wanted.into(), near: near.map(str::to_owned) })
        }
    }
}

fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Most names that are told of several.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_lack_its_namespace_where_that_is_clear_and_a_slip_is_answered_with_what_was_meant() {
        let names = ["bank/backend", "shop/backend", "shop/frontend", "partner.org"];
        let found = |wanted| find(Kind::Service, wanted, names.into_iter()).map_err(|unknown| unknown.to_string());
        assert_eq!(found("shop/backend"), Ok("shop/backend"));
        assert_eq!(found("frontend"), Ok("shop/frontend"));
        assert_eq!(found("partner.org"), Ok("partner.org"));
        for (wanted, want) in [
            (
                "backend",
                "there are several by the name backend, bank/backend and shop/backend: give one with its namespace",
            ),
            (
                "shop/bakend",
                "there is no Service shop/bakend here: did you mean shop/backend? `sluice get services` lists those \
                 that are",
            ),
            (
                "fronted",
                "there is no Service fronted here: did you mean shop/frontend? `sluice get services` lists those that \
                 are",
            ),
            ("ledger", "there is no Service ledger here: `sluice get services` lists those that are"),
        ] {
            assert_eq!(found(wanted), Err(want.to_owned()));
        }
    }
}
