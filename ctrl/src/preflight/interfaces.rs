//! The ports' interfaces: there, up, able to run XDP in their mode, not taken by another program.

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached};
use snapshot::{Port, Side, XdpMode};

use super::{Line, read};
use crate::config::Gateway;

/// Drivers with native XDP (kernel sources, `ndo_bpf`).
const NATIVE: &[&str] = &[
    "veth",
    "virtio_net",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "ice",
    "igb",
    "igc",
    "mlx4_en",
    "mlx5_core",
    "bnxt_en",
    "ena",
    "gve",
    "mana",
    "hv_netvsc",
    "nfp",
    "qede",
    "stmmac",
    "tun",
    "bonding",
    "vmxnet3",
    "xen_netfront",
    "sfc",
    "tsnep",
    "mvneta",
    "mvpp2",
    "dpaa2-eth",
    "fec",
    "lan966x",
    "enetc",
    "thunder_nicvf",
    "octeontx2",
];

pub async fn check(gateway: &Gateway) -> Vec<Line> {
    let links = match links().await {
        Ok(links) => links,
        Err(e) => return vec![Line::wrong("interfaces", format!("cannot be listed: {e}"))],
    };
    gateway.ports.iter().flat_map(|port| port_lines(port, gateway, &links)).collect()
}

async fn links() -> anyhow::Result<Vec<LinkMessage>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle.link().get().execute().try_collect().await?)
}

fn port_lines(port: &Port, gateway: &Gateway, links: &[LinkMessage]) -> Vec<Line> {
    let subject = format!("port {}", port.interface);
    let named = |l: &&LinkMessage| {
        l.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(name) if *name == port.interface))
    };
    let Some(link) = links.iter().find(named) else {
        return vec![Line::wrong(subject, "there is no such interface here")];
    };
    let mut lines = vec![state(&subject, port, link), runs(&subject, port.xdp, &driver(port, link))];
    lines.push(queues(&subject, port, gateway));
    lines.extend(attached(&subject, port, link));
    lines
}

fn state(subject: &str, port: &Port, link: &LinkMessage) -> Line {
    let mtu = link.attributes.iter().find_map(|a| if let LinkAttribute::Mtu(m) = a { Some(*m) } else { None });
    let mtu = mtu.unwrap_or(0);
    if !link.header.flags.contains(LinkFlags::Up) {
        return Line::wrong(subject, format!("is down: ip link set {} up", port.interface));
    }
    if !link.header.flags.contains(LinkFlags::LowerUp) {
        return Line::note(subject, "is up without a carrier");
    }
    match port.side {
        Side::Inside if driver(port, link) == "veth" && mtu < 9000 => {
            Line::note(subject, format!("up, MTU {mtu}; up to 65535 is possible on this side and much faster"))
        }
        Side::Inside | Side::Outside => Line::fine(subject, format!("up, MTU {mtu}")),
    }
}

fn driver(port: &Port, link: &LinkMessage) -> String {
    let kind = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|i| match i {
            LinkInfo::Kind(InfoKind::Veth) => Some("veth".to_owned()),
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        _ => None,
    });
    let path = format!("/sys/class/net/{}/device/driver", port.interface);
    let device = std::fs::read_link(path).ok().and_then(|p| Some(p.file_name()?.to_str()?.to_owned()));
    kind.or(device).unwrap_or_else(|| "unknown".into())
}

/// Whether the driver can do what is asked of it.
fn runs(subject: &str, mode: XdpMode, driver: &str) -> Line {
    match (mode, NATIVE.contains(&driver)) {
        (XdpMode::Generic, true) if driver != "veth" => {
            Line::note(subject, format!("driver {driver} runs XDP natively, which is faster than the generic mode"))
        }
        (XdpMode::Generic, _) => Line::note(
            subject,
            format!(
                "driver {driver}: XDP in generic mode, which workloads with CAP_NET_ADMIN can get around: see README"
            ),
        ),
        (XdpMode::Auto | XdpMode::Native, true) => Line::fine(subject, format!("driver {driver} runs XDP natively")),
        (XdpMode::Auto | XdpMode::Native, false) => {
            Line::note(subject, format!("driver {driver} is not known to run XDP natively; attaching will tell"))
        }
    }
}

/// Each queue has a socket on one core; fewer queues than cores leave cores without packets.
fn queues(subject: &str, port: &Port, gateway: &Gateway) -> Line {
    let count = std::fs::read_dir(format!("/sys/class/net/{}/queues", port.interface))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rx-"))
        .count();
    let cores = gateway.cores.len();
    if count == 0 {
        let seen = read(format!("/sys/class/net/{}/ifindex", port.interface)).is_some();
        let why = if seen { "are not in /sys" } else { "cannot be told: /sys is of another network namespace" };
        return Line::note(subject, format!("receive queues {why}"));
    }
    match count < cores {
        true => Line::note(
            subject,
            format!("{count} receive queues for {cores} cores: ethtool -L {} combined {cores}", port.interface),
        ),
        false => Line::fine(subject, format!("{count} receive queues for {cores} cores")),
    }
}

/// What is on the interface already. A pinned program of ours keeps its mode over a restart, whatever the
/// configuration says by then.
fn attached(subject: &str, port: &Port, link: &LinkMessage) -> Option<Line> {
    let xdp = link.attributes.iter().find_map(|a| if let LinkAttribute::Xdp(x) = a { Some(x) } else { None })?;
    let mode = xdp.iter().find_map(|x| if let LinkXdp::Attached(mode) = x { Some(*mode) } else { None })?;
    let id = xdp.iter().find_map(|x| if let LinkXdp::ProgId(id) = x { Some(*id) } else { None });
    let (name, generic) = match mode {
        XdpAttached::None => return None,
        XdpAttached::SocketBuffer => ("generic", true),
        XdpAttached::Driver => ("native", false),
        _ => ("another", !port.xdp.is_generic()),
    };
    let id = id.map_or_else(|| "(unknown)".into(), |id| id.to_string());
    let found = format!("XDP program {id} is attached, in {name} mode");
    let away =
        format!("`sluice detach` takes ours off a stopped gateway, `ip link set {} xdp off` others", port.interface);
    Some(match generic == port.xdp.is_generic() {
        true => {
            Line::note(subject, format!("{found}: ours if a gateway runs or ran here; another one has to go first"))
        }
        false => Line::wrong(subject, format!("{found}, which is not what is configured, and stays so: {away}")),
    })
}
