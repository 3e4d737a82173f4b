//! A dataplane that only speaks the channel: what ctrl says to it is there to be looked at, and it
//! answers what the test wants. Blocking, with a deadline on every receive.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::SealFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags,
    SocketType,
};
use snapshot::channel::{MAX_MESSAGE, PrivateKey};
use snapshot::{Boot, KeyId, Network, Query, Reply, SCHEMA, Snapshot, ToCtrl, ToDataplane, Version, codec};

pub struct FakeDataplane(OwnedFd);

/// A message of ctrl's, with what came beside it.
#[derive(Debug)]
pub enum Said {
    Boot(Boot),
    Key(KeyId, PrivateKey),
    Snapshot(Snapshot),
    Network(Network),
    Query(u64, Query),
    Closed,
}

impl FakeDataplane {
    /// Connects to ctrl's channel, waiting until it listens.
    pub fn connect(admin: &Path) -> Self {
        let path = snapshot::channel::socket_path(admin);
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        for _ in 0..1000 {
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                    .unwrap();
            if rustix::net::connect(&socket, &address).is_ok() {
                let patience = Some(Duration::from_secs(20));
                rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, patience)
                    .unwrap();
                return Self(socket);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        panic!("nobody listens at {}", path.display());
    }

    pub fn hello(admin: &Path, in_force: Option<Version>) -> Self {
        let dataplane = Self::connect(admin);
        dataplane.say(&ToCtrl::Hello { schema: SCHEMA, pid: 4242, build: "fake".into(), in_force });
        dataplane
    }

    pub fn say(&self, message: &ToCtrl) {
        self.say_bytes(&codec::to_message(message).unwrap());
    }

    pub fn say_bytes(&self, bytes: &[u8]) {
        let mut none = SendAncillaryBuffer::default();
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut none, SendFlags::NOSIGNAL).unwrap();
    }

    pub fn ack(&self, version: Version) {
        self.say(&ToCtrl::Ack { version });
    }

    pub fn reply(&self, id: u64, reply: Reply) {
        self.say(&ToCtrl::Reply { id, reply });
    }

    /// The next message; a memfd must be sealed against every change.
    pub fn hear(&self) -> Said {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer)];
        let came = rustix::net::recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
            .expect("ctrl says something in time");
        if came.bytes == 0 {
            return Said::Closed;
        }
        let descriptors: Vec<OwnedFd> = control
            .drain()
            .filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None })
            .flatten()
            .collect();
        let message = codec::from_message(&buffer[..came.bytes]).unwrap();
        match (message, descriptors.as_slice()) {
            (ToDataplane::Boot(boot), []) => Said::Boot(boot),
            (ToDataplane::Key { id, key }, []) => Said::Key(id, key),
            (ToDataplane::Query { id, query }, []) => Said::Query(id, query),
            (ToDataplane::Snapshot { version }, [memfd]) => {
                let snapshot: Snapshot = codec::from_state(&contents(memfd)).unwrap();
                assert_eq!(snapshot.version, version);
                Said::Snapshot(snapshot)
            }
            (ToDataplane::Network { revision }, [memfd]) => {
                let network: Network = codec::from_state(&contents(memfd)).unwrap();
                assert_eq!(network.revision, revision);
                Said::Network(network)
            }
            (other, fds) => panic!("{other:?} came with {} descriptors", fds.len()),
        }
    }

    /// What comes until `done` says so, that one included.
    pub fn hear_until(&self, done: impl Fn(&Said) -> bool) -> Vec<Said> {
        let mut all = vec![];
        loop {
            all.push(self.hear());
            let last = all.last().unwrap();
            if done(last) {
                return all;
            }
            assert!(!matches!(last, Said::Closed), "ctrl closed the connection after {all:?}");
        }
    }

    pub fn next_snapshot(&self) -> Snapshot {
        match self.hear_until(|said| matches!(said, Said::Snapshot(_))).pop() {
            Some(Said::Snapshot(snapshot)) => snapshot,
            other => panic!("{other:?}"),
        }
    }

    pub fn next_query(&self) -> (u64, Query) {
        match self.hear_until(|said| matches!(said, Said::Query(..))).pop() {
            Some(Said::Query(id, query)) => (id, query),
            other => panic!("{other:?}"),
        }
    }
}

fn contents(memfd: &OwnedFd) -> Vec<u8> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    assert_eq!(rustix::fs::fcntl_get_seals(memfd).unwrap(), all);
    let size = rustix::fs::fstat(memfd).unwrap().st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    let mut read = 0;
    while read < bytes.len() {
        read += rustix::io::pread(memfd, &mut bytes[read..], read as u64).unwrap();
    }
    bytes
}

impl FakeDataplane {
    /// Goes on in the background: acks what comes and answers queries, until ctrl closes.
    pub fn serve(self, answer: impl Fn(&Query, Version) -> Reply + Send + 'static) {
        std::thread::spawn(move || {
            let mut in_force = Version(0);
            loop {
                match self.hear() {
                    Said::Snapshot(snapshot) => {
                        in_force = snapshot.version;
                        self.ack(in_force);
                    }
                    Said::Query(id, query) => self.reply(id, answer(&query, in_force)),
                    Said::Boot(_) | Said::Key(..) | Said::Network(_) => {}
                    Said::Closed => return,
                }
            }
        });
    }
}
