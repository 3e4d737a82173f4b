//! What TrustBundles have fetched, all together: how much that may be, and from where not.
//!
//! Who may write a file of this node may as well ask anything from it. Who may write an object may do so from
//! every node at once, so such an object cannot have a node ask itself, or the metadata service beside it.

use std::net::IpAddr;

use super::{Diagnostic, Place, TrustBundle};
use crate::web::{Url, is_near as is_near_address};

pub fn lint(bundles: &[TrustBundle], found: &mut Vec<Diagnostic>) {
    // Files first: no object takes the room of what this node's own operator wants.
    let (of_files, of_objects): (Vec<_>, Vec<_>) = bundles.iter().partition(|bundle| !is_object(&bundle.place));
    let mut sources = 0;
    for bundle in of_files.iter().chain(&of_objects) {
        let before = sources;
        sources += urls(bundle).count();
        if sources > before && sources > MOST_SOURCES {
            let message = format!(
                "with its {} there are {sources} endpoints and URLs of CRLs in all TrustBundles; at most {MOST_SOURCES} are asked",
                sources - before
            );
            found.push(Diagnostic::error(&bundle.place, "spec", message).help("take some out, or give files"));
        }
    }
    for (place, path, url) in of_objects.iter().flat_map(|bundle| urls(bundle)).filter(|(.., url)| is_near(url.host()))
    {
        let message = format!("{url} would be the node itself, or its link; no object of the API has that asked");
        let help = "a host that others reach, too; or a TrustBundle in a file of the node";
        found.push(Diagnostic::error(place, format!("{path}.url"), message).help(help));
    }
}

fn urls(bundle: &TrustBundle) -> impl Iterator<Item = (&Place, &str, &Url)> {
    let endpoint = bundle.endpoint.iter().map(|one| (&one.place, one.path.as_str(), &one.url));
    endpoint.chain(bundle.crl_urls.iter().map(|one| (&one.place, one.path.as_str(), &one.url)))
}

/// A file's resources begin at a line.
pub fn is_object(place: &Place) -> bool {
    place.line == 0
}

/// As it is written: what a name stands for, nobody knows before it is asked for ([`crate::web::Reach`]).
fn is_near(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => is_near_address(address),
        // With a zone, or what resolvers take for an IPv4 address all the same: 127.1, 2130706433, 0x7f.0.0.1.
        Err(_) => {
            let last = host.rsplit('.').next().unwrap_or_default();
            let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
            host.contains(':') || is_number || last == "localhost"
        }
    }
}

/// Of all TrustBundles together.
pub const MOST_SOURCES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_the_node_or_its_link_are_known_however_they_are_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "0.0.0.0",
            "0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fe80::1%eth0",
            "ff02::1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
        ] {
            assert!(is_near(host), "{host}");
        }
        for host in
            ["pki.partner.org", "10.0.0.1", "198.18.1.2", "2001:db8::1", "fd00::1", "localhost.org", "1.example"]
        {
            assert!(!is_near(host), "{host}");
        }
    }
}
