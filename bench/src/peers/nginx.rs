//! nginx as Debian ships it: one worker, the stream module.

use anyhow::{Context, Result};

use super::certificate::Certificate;
use super::{End, PLAIN, Proxy, SEALED, Setting, said};
use crate::plan::Tls;

pub fn start(setting: &Setting<'_>) -> Result<[Proxy; 2]> {
    super::start(
        setting,
        "nginx",
        |end, certificate| configuration(setting, end, certificate),
        // The log until the file is read; after that `error_log` says the same.
        |file| format!("nginx -e stderr -c {}", file.display()),
    )
}

fn configuration(setting: &Setting<'_>, end: End, certificate: &Certificate) -> String {
    let server = match end {
        End::A => call(setting, certificate),
        End::B => listen(setting, certificate),
    };
    let directory = setting.site.rig.directory().display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nworker_processes 1;\nerror_log stderr warn;\n\
         pid {directory}/nginx-{}.pid;\n\
         events {{ worker_connections 19000; }}\n\
         stream {{\n  proxy_timeout 1h;\n  server {{\n{server}  }}\n}}\n",
        end.name()
    )
}

fn call(setting: &Setting<'_>, certificate: &Certificate) -> String {
    let reuse = if setting.tls == Tls::Resumed { "on" } else { "off" };
    let Certificate { chain, key, root, .. } = certificate;
    format!(
        "    listen {PLAIN} backlog=4096;\n    proxy_pass {SEALED};\n    proxy_ssl on;\n    \
         proxy_ssl_protocols TLSv1.3;\n    proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n    \
         proxy_ssl_certificate {};\n    proxy_ssl_certificate_key {};\n    proxy_ssl_trusted_certificate {};\n    \
         proxy_ssl_verify on;\n    proxy_ssl_verify_depth 3;\n    proxy_ssl_name b.peer;\n    \
         proxy_ssl_session_reuse {reuse};\n",
        chain.display(),
        key.display(),
        root.display()
    )
}

fn listen(setting: &Setting<'_>, certificate: &Certificate) -> String {
    let (tickets, cache) = if setting.tls == Tls::Resumed { ("on", "shared:s:16m") } else { ("off", "off") };
    let verify = if setting.verify_clients { "on" } else { "off" };
    let Certificate { chain, key, root, .. } = certificate;
    format!(
        "    listen {SEALED} ssl backlog=4096;\n    proxy_pass {};\n    \
         ssl_protocols TLSv1.3;\n    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n    \
         ssl_ecdh_curve X25519;\n    ssl_certificate {};\n    ssl_certificate_key {};\n    \
         ssl_client_certificate {};\n    ssl_verify_client {verify};\n    ssl_verify_depth 3;\n    \
         ssl_session_tickets {tickets};\n    ssl_session_cache {cache};\n",
        setting.server,
        chain.display(),
        key.display(),
        root.display()
    )
}

pub fn version() -> Result<String> {
    let text = said("nginx", "-V")?;
    let version = text.lines().find_map(|line| line.strip_prefix("nginx version: nginx/"));
    let library = text.lines().find_map(|line| line.strip_prefix("built with ")).unwrap_or("without OpenSSL");
    Ok(format!("nginx {}, {library}", version.context("`nginx -V` names no version")?.trim()))
}
