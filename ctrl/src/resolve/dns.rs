//! Asks for one name: /etc/hosts, then the servers, search domains and `ndots` of /etc/resolv.conf.
//!
//! The library is hickory's resolver, without its cache, since [`Lookups`](super::Lookups) keeps what was
//! answered. Both files are read again when they have changed, as the C library does; nsswitch.conf is not
//! looked at.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};

use super::answer::{Answer, Found, bounded};

/// How long one name is waited for, all servers and search domains together.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address of /etc/hosts is good for so long, since nobody says when the file changes.
const FILE_TTL: u32 = 5;

/// A file that cannot be larger and still be what it is.
const LARGEST_FILE: u64 = 4 << 20;

/// Where names are asked for.
#[derive(Debug)]
pub struct Dns {
    /// Instead of those of resolv.conf, if there are any.
    servers: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    hosts: PathBuf,
    ready: Mutex<Option<Ready>>,
}

/// Made of the files as they were.
#[derive(Clone)]
struct Ready {
    of: [Option<(SystemTime, u64)>; 2],
    hosts: Arc<Hosts>,
    resolver: Result<(TokioResolver, Arc<[Name]>), String>,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("of", &self.of).finish_non_exhaustive()
    }
}

impl Dns {
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self::by(servers, "/etc/resolv.conf".into(), "/etc/hosts".into())
    }

    /// The same by other files.
    pub fn by(servers: &[SocketAddr], resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self { servers: servers.to_vec(), resolv_conf, hosts, ready: Mutex::new(None) }
    }

    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    pub async fn look_up(&self, name: &str) -> Answer {
        let Ready { hosts, resolver, .. } = self.ready();
        if let Some(answer) = in_hosts(&hosts, name) {
            return answer;
        }
        let (resolver, search) = match resolver {
            Ok(ready) => ready,
            Err(why) => return Answer::failed(why),
        };
        let Some(candidates) = candidates(name, &search, resolver.options().ndots) else {
            return Answer::failed("it is no name that DNS could have");
        };
        let answer = async {
            let mut answer = Answer::failed("there is nothing to ask for");
            for (nth, candidate) in candidates.into_iter().enumerate() {
                let next = ask(&resolver, candidate).await;
                let is_known = next.is_known();
                // As the C library does, one that fails is passed over; but then nobody knows.
                if nth == 0 || is_known || !answer.has_failed() {
                    answer = next;
                }
                if is_known {
                    break;
                }
            }
            answer
        };
        let waited = tokio::time::timeout(PATIENCE, answer).await;
        waited.unwrap_or_else(|_| Answer::failed(format!("no answer within {PATIENCE:?}")))
    }

    /// Reads the files if they are not what they were.
    fn ready(&self) -> Ready {
        let of = [&self.resolv_conf, &self.hosts].map(|path| stamp(path));
        let mut ready = self.ready.lock().expect("no holder panics");
        match &*ready {
            Some(same) if same.of == of => same.clone(),
            Some(_) | None => {
                let hosts = Arc::new(read_hosts(&self.hosts));
                let resolver = self.resolver().map_err(|why| format!("{}: {why}", self.resolv_conf.display()));
                ready.insert(Ready { of, hosts, resolver }).clone()
            }
        }
    }

    fn resolver(&self) -> Result<(TokioResolver, Arc<[Name]>), String> {
        let text = read(&self.resolv_conf);
        // Of a file without servers, or that is not there, search domains and options are none either.
        let (config, options) = match text.and_then(|text| parse_resolv_conf(text).map_err(|e| e.to_string())) {
            Ok((config, options)) => (config, options),
            Err(why) if self.servers.is_empty() => return Err(why),
            Err(_) => (ResolverConfig::default(), ResolverOpts::default()),
        };
        let servers = match self.servers.is_empty() {
            true => config.name_servers().to_vec(),
            false => self.servers.iter().map(server).collect(),
        };
        let search: Arc<[Name]> = config.domain().into_iter().chain(config.search()).cloned().collect();
        // Names are asked for as they are: which those are is ours to say, see `candidates`.
        let config = ResolverConfig::from_parts(None, vec![], servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let chosen = builder.options_mut();
        *chosen = options;
        chosen.cache_size = 0;
        chosen.use_hosts_file = ResolveHosts::Never;
        chosen.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        // No name's silence takes another's place.
        chosen.max_active_requests = 4 * super::lookups::AT_ONCE;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok((resolver, search))
    }
}

/// What a name may mean, in the order in which it is asked for: with search domains after it, and as it is,
/// which goes first if it has `ndots` dots. Addresses of both families have to be of one of them, so that the
/// library's own search, which goes on for one family alone, is not used.
fn candidates(name: &str, search: &[Name], ndots: usize) -> Option<Vec<Name>> {
    let mut as_it_is: Name = name.parse().ok()?;
    as_it_is.set_fqdn(false);
    let mut all: Vec<Name> = Vec::new();
    for domain in search {
        let full = as_it_is.clone().append_domain(domain).ok().map(|mut full| {
            full.set_fqdn(true);
            full
        });
        all.extend(full.filter(|full| !all.contains(full)));
    }
    let dots = name.matches('.').count();
    as_it_is.set_fqdn(true);
    if dots >= ndots {
        all.insert(0, as_it_is)
    } else {
        all.push(as_it_is)
    }
    Some(all)
}

async fn ask(resolver: &TokioResolver, name: Name) -> Answer {
    let of = |kind| resolver.lookup(name.clone(), kind);
    let (v4, v6) = tokio::join!(of(RecordType::A), of(RecordType::AAAA));
    Answer { v4: found(v4, true), v6: found(v6, false) }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection: &mut ConnectionConfig| connection.port = address.port());
    server
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let length = path.metadata().map_err(|error| error.to_string())?.len();
    if length > LARGEST_FILE {
        return Err(format!("{length} bytes, more than the {LARGEST_FILE} that are read"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// A line that does not parse is left out, as the C library does; a file that is not there says nothing.
fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    if let Ok(text) = read(path)
        && let Err(error) = hosts.read_hosts_conf(text.as_slice())
    {
        tracing::warn!(%error, "{} cannot be read", path.display());
    }
    hosts
}

/// A name that the file has is not asked for, in neither family.
fn in_hosts(hosts: &Hosts, name: &str) -> Option<Answer> {
    let name: Name = name.parse().ok()?;
    let of = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let (v4, v6) = (of(RecordType::A), of(RecordType::AAAA));
    if v4.is_none() && v6.is_none() {
        return None;
    }
    let found = |lookup: Option<Lookup>| {
        let answers = lookup.iter().flat_map(Lookup::answers).filter_map(|record| record.data.ip_addr());
        let addresses: Vec<_> = answers.map(|ip| (ip, bounded(FILE_TTL))).collect();
        match addresses.is_empty() {
            true => Found::None("not in the file of hosts".into()),
            false => Found::Addresses(addresses),
        }
    };
    Some(Answer { v4: found(v4), v6: found(v6) })
}

/// The addresses of an answer, each with the shortest TTL on the way to it.
fn found(looked_up: Result<Lookup, NetError>, v4: bool) -> Found {
    let lookup = match looked_up {
        Ok(lookup) => lookup,
        Err(error) if error.is_nx_domain() => return Found::None("the name does not exist (NXDOMAIN)".into()),
        Err(error) if error.is_no_records_found() && !is_refusal(&error) => {
            return Found::None("the name has no address".into());
        }
        Err(error) => return Found::Failed(error.to_string()),
    };
    let of_chain = |record: &&hickory_resolver::proto::rr::Record| record.data.ip_addr().is_none();
    let chain = lookup.answers().iter().filter(of_chain).map(|record| record.ttl).min().unwrap_or(u32::MAX);
    let address = |record: &hickory_resolver::proto::rr::Record| {
        let ip: IpAddr = record.data.ip_addr().filter(|ip| ip.is_ipv4() == v4)?;
        Some((ip, bounded(record.ttl.min(chain))))
    };
    let addresses: Vec<_> = lookup.answers().iter().filter_map(address).collect();
    match addresses.is_empty() {
        true => Found::None("the name has no address".into()),
        false => Found::Addresses(addresses),
    }
}

/// An answer without records whose code says that it is none.
fn is_refusal(error: &NetError) -> bool {
    use hickory_resolver::net::{DnsError, NoRecords};
    use hickory_resolver::proto::op::ResponseCode;
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))
            if !matches!(*response_code, ResponseCode::NoError | ResponseCode::NXDomain)
    )
}
