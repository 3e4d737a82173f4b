//! Vaults that identities come from: whether they can be asked, without logging in.

use super::Line;
use crate::config::{Gateway, IdentitySource};
use crate::source::vault;

pub async fn check(gateway: &Gateway) -> Vec<Line> {
    let mut lines = Vec::new();
    for named in &gateway.identity {
        let IdentitySource::Vault(config) = &named.source else { continue };
        let what = format!("identity source {}", named.name);
        lines.push(match vault::look(&named.name, config, &gateway.trust_domain).await {
            Ok(1) => Line::fine(what, format!("{} has one root; nobody has logged in", config.server)),
            Ok(roots) => Line::fine(what, format!("{} has {roots} roots; nobody has logged in", config.server)),
            Err(fault) => Line::note(what, fault.problem.to_string()),
        });
    }
    lines
}
