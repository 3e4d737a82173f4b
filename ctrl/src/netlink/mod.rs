//! A mirror of what the kernel knows about the Gateway's ports: links, addresses, routes, neighbours.
//!
//! Events only say that something changed; the mirror then dumps that table again. A dump cannot
//! drift, needs no order between events, and makes an overrun of the event socket (ENOBUFS) the
//! same case as any other change. Bursts of events are one dump.
//!
//! The kernel is also asked to resolve next hops ([`resolve`]): frames that leave by AF_XDP do not
//! make it do so by itself.

pub mod resolve;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, MulticastGroup};
use snapshot::Network;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

/// How long events have to pause before the tables are read again, and how long they may at most
/// put it off.
const QUIET: Duration = Duration::from_millis(10);
const AT_MOST: Duration = Duration::from_millis(100);
/// The tables are read this often even if nothing was heard.
const RESYNC: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[from] std::io::Error),
    #[error("the kernel refused to list {what}: {error}")]
    Dump { what: &'static str, error: rtnetlink::Error },
    #[error("the netlink socket was closed")]
    Closed,
}

/// The names of all interfaces that there are now.
pub async fn interfaces() -> Result<Vec<String>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let links = all("links", handle.link().get().execute()).await?;
    Ok(links.iter().filter_map(table::name).map(str::to_owned).collect())
}

/// Which tables may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Dirty {
    links: bool,
    addresses: bool,
    routes: bool,
    neighbours: bool,
}

impl Dirty {
    const ALL: Self = Self { links: true, addresses: true, routes: true, neighbours: true };

    fn any(self) -> bool {
        self != Self::default()
    }

    fn add(&mut self, event: &NetlinkPayload<RouteNetlinkMessage>) {
        use RouteNetlinkMessage::{
            DelAddress, DelLink, DelNeighbour, DelRoute, NewAddress, NewLink, NewNeighbour, NewRoute,
        };
        match event {
            // A link that goes down takes its routes and neighbours with it without a word on each.
            NetlinkPayload::InnerMessage(NewLink(_) | DelLink(_)) => *self = Self::ALL,
            // IPv4 routes go with the address that they name as source, without a word on each.
            NetlinkPayload::InnerMessage(NewAddress(_) | DelAddress(_)) => {
                (self.addresses, self.routes) = (true, true);
            }
            NetlinkPayload::InnerMessage(NewRoute(_) | DelRoute(_)) => self.routes = true,
            NetlinkPayload::InnerMessage(NewNeighbour(_) | DelNeighbour(_)) => self.neighbours = true,
            NetlinkPayload::Overrun(_) => *self = Self::ALL,
            _ => {}
        }
    }
}

/// The tables as last dumped, of all interfaces.
#[derive(Debug, Default)]
struct Tables {
    links: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
    neighbours: Vec<NeighbourMessage>,
}

impl Tables {
    async fn read(&mut self, handle: &Handle, dirty: Dirty) -> Result<(), Error> {
        if dirty.links {
            self.links = all("links", handle.link().get().execute()).await?;
        }
        if dirty.addresses {
            self.addresses = all("addresses", handle.address().get().execute()).await?;
        }
        if dirty.routes {
            let mut routes = vec![];
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let mut request = RouteMessage::default();
                request.header.address_family = family;
                routes.append(&mut all("routes", handle.route().get(request).execute()).await?);
            }
            self.routes = routes;
        }
        if dirty.neighbours {
            self.neighbours = all("neighbours", handle.neighbours().get().execute()).await?;
        }
        Ok(())
    }

    fn network(&self, ports: &[String]) -> Network {
        table::network(&self.links, &self.addresses, &self.routes, &self.neighbours, ports)
    }
}

async fn all<T>(what: &'static str, stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, Error> {
    let rows: Vec<_> = stream.collect().await;
    rows.into_iter().collect::<Result<_, _>>().map_err(|error| Error::Dump { what, error })
}

/// Keeps a [`Network`] of the interfaces named by `ports` up to date, from the first dump on.
/// Revisions count up from `revision`.
pub async fn mirror(
    ports: watch::Receiver<Vec<String>>,
    revision: u64,
) -> Result<(watch::Receiver<Arc<Network>>, Handle), Error> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    // Events have a socket of their own: an overrun there loses no answer here.
    let (connection, _, events) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let mut tables = Tables::default();
    tables.read(&handle, Dirty::ALL).await?;
    let mut first = tables.network(&ports.borrow());
    first.revision = revision;
    let (network, out) = watch::channel(Arc::new(first));
    let requests = handle.clone();
    tokio::spawn(async move {
        if let Err(e) = follow(ports, tables, requests, events.map(|(event, _)| event), network).await {
            tracing::error!(error = %e, "routes and neighbours are no longer followed");
        }
    });
    Ok((out, handle))
}

async fn follow(
    mut ports: watch::Receiver<Vec<String>>,
    mut tables: Tables,
    handle: Handle,
    mut events: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
    network: watch::Sender<Arc<Network>>,
) -> Result<(), Error> {
    let mut dirty = Dirty::default();
    let mut due = Instant::now() + RESYNC;
    let mut latest = due;
    loop {
        tokio::select! {
            event = events.next() => {
                let had_any = dirty.any();
                dirty.add(&event.ok_or(Error::Closed)?.payload);
                if dirty.any() {
                    let now = Instant::now();
                    latest = if had_any { latest } else { now + AT_MOST };
                    due = (now + QUIET).min(latest);
                }
                continue;
            }
            changed = ports.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = network.closed() => return Ok(()),
            () = sleep_until(due) => {
                if !dirty.any() {
                    dirty = Dirty::ALL;
                }
            }
        }
        match tables.read(&handle, dirty).await {
            Ok(()) => {
                dirty = Dirty::default();
                due = Instant::now() + RESYNC;
            }
            // A dump that a change interrupted comes whole the next time.
            Err(e) => {
                warn!(error = %e, "will be tried again");
                due = Instant::now() + AT_MOST;
            }
        }
        let mut now = tables.network(&ports.borrow_and_update());
        network.send_if_modified(|last| {
            now.revision = last.revision;
            if now == **last {
                return false;
            }
            now.revision += 1;
            debug!(revision = now.revision, routes = now.routes.len(), neighbours = now.neighbours.len(), "network");
            *last = Arc::new(now);
            true
        });
    }
}
