//! HAProxy as Debian ships it: one thread, mode tcp.

use anyhow::{Context, Result};

use super::certificate::Certificate;
use super::{End, PLAIN, Proxy, SEALED, Setting, said};
use crate::plan::Tls;

pub fn start(setting: &Setting<'_>) -> Result<[Proxy; 2]> {
    super::start(
        setting,
        "haproxy",
        |end, certificate| configuration(setting, end, certificate),
        |file| format!("haproxy -db -f {}", file.display()),
    )
}

fn configuration(setting: &Setting<'_>, end: End, certificate: &Certificate) -> String {
    let resumed = setting.tls == Tls::Resumed;
    let (root, pem) = (certificate.root.display(), certificate.pem.display());
    let tls = format!("ssl ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 ca-file {root} crt {pem}");
    let verify = if setting.verify_clients { "required" } else { "none" };
    let (listen, call) = match end {
        End::A => {
            let reuse = if resumed { "" } else { " no-ssl-reuse" };
            (format!("bind {PLAIN} backlog 4096"), format!("server b {SEALED} {tls} verify required{reuse}"))
        }
        End::B => {
            let tickets = if resumed { "" } else { " no-tls-tickets" };
            let bind = format!("bind {SEALED} backlog 4096 {tls} verify {verify} curves X25519{tickets}");
            (bind, format!("server s {}", setting.server))
        }
    };
    format!(
        "global\n    nbthread 1\n    maxconn 9500\n\
         defaults\n    mode tcp\n    maxconn 9500\n    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n\
         listen relay\n    {listen}\n    {call}\n"
    )
}

/// HAProxy's and its TLS library's version.
pub fn version() -> Result<String> {
    let text = said("haproxy", "-vv")?;
    let find = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).map(str::trim);
    let version = find("HAProxy version ").and_then(|line| line.split_whitespace().next());
    let library = find("Running on OpenSSL version : ").unwrap_or("without OpenSSL");
    Ok(format!("HAProxy {}, {library}", version.context("`haproxy -vv` names no version")?))
}
