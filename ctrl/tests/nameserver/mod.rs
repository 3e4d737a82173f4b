//! A DNS server that says what a test wants it to, well-formed or not. It shares no code with the resolver.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

/// What is said about a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// With the TTL of each.
    Addresses(Vec<IpAddr>, u32),
    /// First that it is called otherwise, then the addresses of that.
    Alias(&'static str, u32, Vec<IpAddr>, u32),
    /// Over UDP only that there is more than fits.
    Truncated(Vec<IpAddr>, u32),
    /// Before the answer, another one to a question that nobody asked.
    WrongIdFirst(IpAddr, Vec<IpAddr>, u32),
    NxDomain,
    ServFail,
    Nothing,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub address: SocketAddr,
    zone: Arc<Mutex<HashMap<String, Says>>>,
    /// Questions that were asked, by name.
    asked: Arc<Mutex<HashMap<String, u32>>>,
}

const A: u16 = 1;
const AAAA: u16 = 28;
const CNAME: u16 = 5;

impl Server {
    pub fn start() -> Self {
        // One port for both, which somebody may just have taken.
        let (udp, tcp) = (0..50)
            .find_map(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a port of both");
        let address = udp.local_addr().expect("it is bound");
        let server = Self { address, zone: Arc::default(), asked: Arc::default() };
        let (over_udp, over_tcp) = (server.clone(), server.clone());
        std::thread::spawn(move || {
            let mut question = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut question) {
                for answer in over_udp.answers(&question[..length], true) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let server = over_tcp.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    fn serve(&self, mut stream: std::net::TcpStream) {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                return;
            }
            for answer in self.answers(&question, false) {
                let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
                if stream.write_all(&framed).is_err() {
                    return;
                }
            }
        }
    }

    pub fn says(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().insert(name.into(), says);
    }

    /// Questions about a name, of any type and over any transport.
    pub fn asked(&self, name: &str) -> u32 {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn answers(&self, question: &[u8], udp: bool) -> Vec<Vec<u8>> {
        let Some((name, kind, end)) = parse(question) else { return vec![] };
        *self.asked.lock().unwrap().entry(name.clone()).or_default() += 1;
        let says = self.zone.lock().unwrap().get(&name).cloned().unwrap_or(Says::NxDomain);
        let head = &question[..end];
        match says {
            Says::Nothing => vec![],
            Says::NxDomain => vec![reply(head, 3, false, &[])],
            Says::ServFail => vec![reply(head, 2, false, &[])],
            Says::Addresses(list, ttl) => vec![reply(head, 0, false, &records(&list, kind, ttl, 12))],
            Says::Truncated(..) if udp => vec![reply(head, 0, true, &[])],
            Says::Truncated(list, ttl) => vec![reply(head, 0, false, &records(&list, kind, ttl, 12))],
            Says::Alias(other, ttl, list, its) => {
                let target = labels(other);
                // Its name stands behind the question, the header of its record and nothing else.
                let at = end as u16 + 12;
                let alias = record(&12u16.to_be_bytes(), CNAME, ttl, &target);
                let all = [vec![alias], records(&list, kind, its, at)].concat();
                vec![reply(head, 0, false, &all)]
            }
            Says::WrongIdFirst(evil, list, ttl) => {
                let mut forged = reply(head, 0, false, &records(&[evil], kind, 3_600, 12));
                forged[0] ^= 0x5a;
                vec![forged, reply(head, 0, false, &records(&list, kind, ttl, 12))]
            }
        }
    }
}

/// Name, type, and where the question ends.
fn parse(message: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut name) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(message.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    Some((name.join("."), kind, at + 4))
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = name.split('.').flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

/// `owner`: where in the message the name stands that they are of.
fn records(list: &[IpAddr], kind: u16, ttl: u32, owner: u16) -> Vec<Vec<u8>> {
    let owner = (owner & 0x3fff).to_be_bytes();
    let of = |ip: &IpAddr| match (ip, kind) {
        (IpAddr::V4(v4), A) => Some(record(&owner, A, ttl, &v4.octets())),
        (IpAddr::V6(v6), AAAA) => Some(record(&owner, AAAA, ttl, &v6.octets())),
        _ => None,
    };
    list.iter().filter_map(of).collect()
}

fn record(owner: &[u8; 2], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let owner = [owner[0] | 0xc0, owner[1]];
    let length = (data.len() as u16).to_be_bytes();
    [&owner[..], &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length, data].concat()
}

/// `head`: the question as it came, without what follows it.
fn reply(head: &[u8], code: u8, truncated: bool, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = head.to_vec();
    message[2] = 0x81 | if truncated { 0x02 } else { 0 };
    message[3] = 0x80 | code;
    message[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    records.iter().for_each(|record| message.extend_from_slice(record));
    message
}
