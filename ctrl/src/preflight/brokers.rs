//! Broker endpoints of SPIRE agents that identities come from: whether they take us, and prove to be who they should.

use super::Line;
use crate::config::{Gateway, IdentitySource};
use crate::source::spire;

pub async fn check(gateway: &Gateway) -> Vec<Line> {
    let mut lines = Vec::new();
    for named in &gateway.identity {
        let IdentitySource::Spire(config) = &named.source else { continue };
        let what = format!("broker of identity source {}", named.name);
        lines.extend(spire::look_at_broker(config, &gateway.trust_domain).await.map(|looked| match looked {
            Ok(found) => Line::fine(what, found),
            Err(fault) => Line::note(what, fault),
        }));
    }
    lines
}
