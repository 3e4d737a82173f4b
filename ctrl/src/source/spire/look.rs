//! Whether an agent can be asked, for `sluice check`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::broker::{self, Broker};
use super::{Fault, Spire};
use crate::config::TrustDomain;
use crate::config::broker::Address;
use crate::config::spire::Spire as Config;
use crate::source::News;

/// Whether somebody listens at the sockets.
pub fn look(config: &Config) -> Result<(), String> {
    let sockets = config.socket.iter().chain(&config.admin_socket);
    sockets.map(PathBuf::as_path).try_for_each(listens)
}

/// Whether the broker endpoint takes us, and is who it should be. None: none is configured. Who asks is not
/// sluice-ctrl, so an agent may give it no SVID to try that with; then the reason is said, and who listens.
pub async fn look_at_broker(config: &Config, trust_domain: &TrustDomain) -> Option<Result<String, String>> {
    let broker = config.broker.as_ref()?;
    let address = match broker::address(broker) {
        Ok(address) => address,
        Err(fault) => return Some(Err(fault.to_string())),
    };
    let mut spire = Spire::new(config.clone(), trust_domain.clone(), News::default());
    let shown = spire.shown();
    spire.follow_ourselves(&[], shown);
    let (_, ourselves) = spire.ourselves.as_ref()?;
    let opened = Broker::open(broker, &spire.home, ourselves);
    let mut ways = opened.link.ways();
    let known = timeout(PATIENCE, ways.wait_for(Option::is_some)).await;
    let known = known.ok().and_then(Result::ok).and_then(|known| known.clone());
    let tried = match known {
        Some(Ok(way)) => timeout(PATIENCE, way.dial.connect()).await,
        Some(Err(Fault::NoOwnSvid { fault, .. })) => {
            let heard = if hears(&address).await { "somebody listens" } else { "nobody listens" };
            let id = &broker.id;
            let why = format!("whether it takes us was not tried, for want of an SVID of {id}: {fault}");
            return Some(Err(format!("{address}: {heard}; {why}")));
        }
        Some(Err(fault)) => return Some(Err(fault.to_string())),
        None => return Some(Err(format!("{address}: our own SVID has not come within {} s", PATIENCE.as_secs()))),
    };
    Some(match tried {
        Ok(Ok(_)) => Ok(format!("{address} takes {}, and proves to be one of {}", broker.id, broker.agent)),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no end of the TLS handshake within {} s", PATIENCE.as_secs())),
    })
}

async fn hears(address: &Address) -> bool {
    let heard = async {
        match address {
            Address::Unix(path) => UnixStream::connect(path).await.is_ok(),
            Address::Tcp(address) => TcpStream::connect(address).await.is_ok(),
        }
    };
    timeout(PATIENCE, heard).await.unwrap_or(false)
}

fn listens(path: &Path) -> Result<(), String> {
    std::os::unix::net::UnixStream::connect(path).map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

/// As long as an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
