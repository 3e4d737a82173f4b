//! Facts about an interface that its port depends on: index, MTU, MAC, driver, queues.
//!
//! Asked for by ioctl and not read from sysfs, which shows the namespace it was mounted in and not
//! the one that this process is in.

use super::xsk::{Ask, ETHTOOL_GCHANNELS, ETHTOOL_GDRVINFO, ETHTOOL_SCHANNELS, ethtool_request, interface_request};

#[derive(Debug, thiserror::Error)]
#[error("port {interface}: cannot {what}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct LinkError {
    pub interface: String,
    pub what: &'static str,
    pub errno: i32,
}

fn failed<'a>(interface: &'a str, what: &'static str) -> impl Fn(i32) -> LinkError + 'a {
    move |errno| LinkError { interface: interface.to_owned(), what, errno }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub mtu: usize,
    pub mac: [u8; 6],
    pub veth: bool,
    pub up: bool,
}

impl Link {
    pub fn read(interface: &str) -> Result<Self, LinkError> {
        let index = index(interface)?;
        let mtu = mtu(interface)?;
        let mac = mac(interface)?;
        let flags = interface_request(interface, Ask::Flags).map_err(failed(interface, "read its flags"))?;
        let up = super::xsk::answer_flags(&flags) & libc::IFF_UP != 0;
        Ok(Self { index, mtu, mac, veth: driver(interface)? == "veth", up })
    }
}

pub fn index(interface: &str) -> Result<u32, LinkError> {
    let answer = interface_request(interface, Ask::Index).map_err(failed(interface, "find it"))?;
    Ok(super::xsk::answer_number(&answer) as u32)
}

pub fn mtu(interface: &str) -> Result<usize, LinkError> {
    let answer = interface_request(interface, Ask::Mtu).map_err(failed(interface, "read its MTU"))?;
    Ok(super::xsk::answer_number(&answer) as usize)
}

pub fn mac(interface: &str) -> Result<[u8; 6], LinkError> {
    let answer = interface_request(interface, Ask::Mac).map_err(failed(interface, "read its MAC"))?;
    Ok(super::xsk::answer_mac(&answer))
}

/// The driver's name, as `ethtool -i` shows it.
pub fn driver(interface: &str) -> Result<String, LinkError> {
    let mut info = [0; 49];
    info[0] = ETHTOOL_GDRVINFO;
    match ethtool_request(interface, &mut info) {
        // An interface without ethtool has no driver to speak of.
        Err(libc::EOPNOTSUPP) => Ok(String::new()),
        Err(errno) => Err(failed(interface, "read its driver")(errno)),
        Ok(()) => {
            let bytes = info[1..9].iter().flat_map(|word| word.to_ne_bytes());
            Ok(bytes.take_while(|&byte| byte != 0).map(char::from).collect())
        }
    }
}

/// Queues of an interface, and how many it could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    pub rx: u32,
    pub tx: u32,
    pub most: u32,
    /// Receive and transmit queues are counted together.
    combined: bool,
}

impl Queues {
    /// Queues that can both receive and send.
    pub fn usable(self) -> u32 {
        self.rx.min(self.tx)
    }
}

pub fn queues(interface: &str) -> Result<Queues, LinkError> {
    let mut c = [0; 9];
    c[0] = ETHTOOL_GCHANNELS;
    match ethtool_request(interface, &mut c) {
        Err(libc::EOPNOTSUPP) => Ok(Queues { rx: 1, tx: 1, most: 1, combined: true }),
        Err(errno) => Err(failed(interface, "read its queues")(errno)),
        Ok(()) => {
            let [_, max_rx, max_tx, _, max_combined, rx, tx, _, combined] = c;
            Ok(Queues {
                rx: (rx + combined).max(1),
                tx: (tx + combined).max(1),
                most: max_rx.min(max_tx).max(max_combined).max(1),
                combined: max_combined > 0,
            })
        }
    }
}

/// Gives an interface at least `wanted` queues each way, if its driver lets it; returns how many it
/// has. To be called before the program is attached and sockets are bound.
pub fn ensure_queues(interface: &str, wanted: u32) -> Result<u32, LinkError> {
    let now = queues(interface)?;
    let goal = wanted.min(now.most);
    if now.usable() >= goal {
        return Ok(now.usable());
    }
    let mut c = [0; 9];
    c[0] = ETHTOOL_GCHANNELS;
    ethtool_request(interface, &mut c).map_err(failed(interface, "read its queues"))?;
    c[0] = ETHTOOL_SCHANNELS;
    if now.combined {
        c[8] = goal;
    } else {
        (c[5], c[6]) = (c[5].max(goal), c[6].max(goal));
    }
    ethtool_request(interface, &mut c).map_err(failed(interface, "raise its queues (`ethtool -L`)"))?;
    Ok(queues(interface)?.usable())
}
