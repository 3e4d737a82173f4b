//! The attestor against this machine's kernel: sockets of this process, in its own network namespace.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ctrl::attest::process::{Answer, Attestor, Netns, Overrides};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket, socket_with};
use snapshot::{Found, Party, Question, Unfound};

const PATIENCE: Duration = Duration::from_secs(10);

fn here() -> Overrides {
    assert!(rustix::process::geteuid().is_root(), "the attestor enters network namespaces: run it as root");
    BTreeMap::from([("lo".to_owned(), Netns::Pid(std::process::id()))]).into()
}

fn ask(overrides: &Overrides, interface: &str, party: Party, client: SocketAddr, server: SocketAddr) -> Found {
    let (sender, answer) = mpsc::channel();
    let question = Question { interface: interface.into(), client, server, party };
    let attestor = Attestor::start().unwrap();
    attestor.ask(question, overrides.clone(), Answer::new(move |found| sender.send(found).unwrap()));
    answer.recv_timeout(PATIENCE).unwrap()
}

/// Asks until the machine had the time for it.
fn found(party: Party, client: SocketAddr, server: SocketAddr) -> Found {
    // The tests beside this one start programs all the time, which hold all sockets for a moment.
    let slow = |found: &Found| matches!(found, Err(Unfound::Unknown(_)));
    let mut answers = (0..20).map(|_| ask(&here(), "lo", party, client, server));
    answers.find(|found| !slow(found)).expect("twenty times too slow")
}

fn owner(client: SocketAddr, server: SocketAddr) -> Found {
    found(Party::Caller, client, server)
}

fn listener(client: &str, server: SocketAddr) -> Found {
    found(Party::Listener, client.parse().unwrap(), server)
}

fn pids(found: Found) -> Vec<u32> {
    let mut pids: Vec<_> = found.unwrap().processes.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    pids
}

/// Whom it settles on: a program that another test starts holds all that this one has until it runs.
fn settled(ask: impl Fn() -> Found, want: &[u32]) -> Vec<u32> {
    (0..50).map(|_| pids(ask())).find(|found| found == want).unwrap_or_else(|| pids(ask()))
}

/// A server that takes no further call, so that who calls goes on calling.
struct Busy {
    at: SocketAddr,
    _listener: OwnedFd,
    _queued: TcpStream,
}

impl Busy {
    fn new(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let listener = socket(family, SocketType::STREAM, None).unwrap();
        bind(&listener, &address).unwrap();
        listen(&listener, 0).unwrap();
        let at = getsockname(&listener).unwrap().try_into().unwrap();
        let _queued = TcpStream::connect(at).unwrap();
        Self { at, _listener: listener, _queued }
    }

    /// A socket of `family` whose SYN is not answered, and where it calls from.
    fn call(&self, family: AddressFamily, to: SocketAddr) -> (OwnedFd, SocketAddr) {
        let caller =
            socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(connect(&caller, &to), Err(Errno::INPROGRESS));
        let from: SocketAddr = getsockname(&caller).unwrap().try_into().unwrap();
        (caller, SocketAddr::new(from.ip().to_canonical(), from.port()))
    }
}

#[test]
fn the_process_of_a_call_is_found_over_ipv4_ipv6_and_ipv4_out_of_an_ipv6_socket() {
    let (four, six) = (Busy::new("127.0.0.1:0"), Busy::new("[::1]:0"));
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), four.at.port());
    for (server, family, to) in [
        (&four, AddressFamily::INET, four.at),
        (&six, AddressFamily::INET6, six.at),
        (&four, AddressFamily::INET6, mapped),
    ] {
        let (_caller, from) = server.call(family, to);
        let found = owner(from, server.at).unwrap();
        assert_eq!(found.processes.len(), 1, "{found:?}");
        let process = &found.processes[0];
        assert_eq!((process.pid, process.uid), (std::process::id(), 0), "{to}");
        assert_eq!(process.path.as_deref(), std::env::current_exe().unwrap().to_str());
    }
}

#[test]
fn everybody_who_holds_the_socket_is_named() {
    let server = Busy::new("127.0.0.1:0");
    let (caller, from) = server.call(AddressFamily::INET, server.at);
    let shared = caller.try_clone().unwrap();
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(shared)).spawn().unwrap();
    let mut both = vec![std::process::id(), child.id()];
    both.sort_unstable();
    let found = settled(|| owner(from, server.at), &both);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, both);
}

#[test]
fn the_process_that_listens_is_found_at_its_address_at_any_address_and_over_both_families() {
    let own = vec![std::process::id()];
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (four, six) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap());
    let (any, both) = (TcpListener::bind("0.0.0.0:0").unwrap(), TcpListener::bind("[::]:0").unwrap());
    for (client, ip, port) in [
        ("198.18.9.9:1234", "127.0.0.1", port(&four)),
        ("[2001:db8::9]:1234", "::1", port(&six)),
        ("198.18.9.9:1234", "127.0.0.7", port(&any)),
        ("198.18.9.9:1234", "127.0.0.7", port(&both)),
        ("[2001:db8::9]:1234", "::1", port(&both)),
    ] {
        let at = SocketAddr::new(ip.parse().unwrap(), port);
        assert_eq!(settled(|| listener(client, at), &own), own, "{at}");
    }
    // Another address's, and nobody's.
    for at in [SocketAddr::new("127.0.0.2".parse().unwrap(), port(&four)), "127.0.0.1:1".parse().unwrap()] {
        let why = listener("198.18.9.9:1234", at).unwrap_err().to_string();
        assert!(
            why.starts_with(&format!("the workload's network namespace has no socket that listens at {at}")),
            "{why}"
        );
    }
    // Whoever else holds the socket is one of those who listen.
    let shared = Stdio::from(OwnedFd::from(four.try_clone().unwrap()));
    let mut child = Command::new("sleep").arg("60").stdin(shared).spawn().unwrap();
    let mut holders = vec![std::process::id(), child.id()];
    holders.sort_unstable();
    let found = settled(|| listener("198.18.9.9:1234", four.local_addr().unwrap()), &holders);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, holders);
}

#[test]
fn an_earlier_call_of_the_same_ports_does_not_hide_who_listens() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let (client, (accepted, from)) = (TcpStream::connect(at).unwrap(), server.accept().unwrap());
    let (own, again) = ([std::process::id()], || listener(&from.to_string(), at));
    assert_eq!(settled(again, &own), own, "it stands");
    // The server's end closes first, and rests in TIME-WAIT.
    drop(accepted);
    drop(client);
    assert_eq!(settled(again, &own), own, "it is over");
    drop(server);
    assert!(listener(&from.to_string(), at).is_err());
}

/// A socket with SO_REUSEPORT, before it is bound.
fn sharing() -> OwnedFd {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    socket
}

#[test]
fn all_that_share_the_port_at_the_address_are_one_answer_and_none_of_another_address() {
    let (first, second, wide) = (sharing(), sharing(), sharing());
    bind(&first, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let at: SocketAddr = getsockname(&first).unwrap().try_into().unwrap();
    bind(&second, &at).unwrap();
    bind(&wide, &SocketAddr::new("0.0.0.0".parse().unwrap(), at.port())).unwrap();
    [&first, &second, &wide].into_iter().for_each(|socket| listen(socket, 4).unwrap());
    let holder = |socket: &OwnedFd| {
        let shared = Stdio::from(socket.try_clone().unwrap());
        Command::new("sleep").arg("60").stdin(shared).spawn().unwrap()
    };
    let (mut of_second, mut of_wide) = (holder(&second), holder(&wide));
    let found = listener("198.18.9.9:1234", at);
    for child in [&mut of_second, &mut of_wide] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let found = pids(found);
    assert!(found.contains(&of_second.id()), "whichever socket a hash says: {found:?}");
    assert!(!found.contains(&of_wide.id()), "the more exact address has it: {found:?}");
}

#[test]
fn those_that_are_alike_are_named_once_and_one_that_has_ended_is_nobody() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let child = || {
        let shared = Stdio::from(OwnedFd::from(server.try_clone().unwrap()));
        Command::new("sleep").arg("60").stdin(shared).spawn().unwrap()
    };
    let mut children: Vec<_> = (0..40).map(|_| child()).collect();
    let kinds = || listener("198.18.9.9:1234", at).unwrap().processes.len();
    let found = (0..50).map(|_| kinds()).find(|&kinds| kinds == 2);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(found, Some(2), "forty workers and their parent");
}

#[test]
fn who_calls_back_on_the_very_ports_is_in_the_way_and_would_be_given_the_call() {
    let there = Busy::new("127.0.0.1:0");
    let listening = sharing();
    bind(&listening, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let at: SocketAddr = getsockname(&listening).unwrap().try_into().unwrap();
    let calling = sharing();
    bind(&calling, &at).unwrap();
    listen(&listening, 4).unwrap();
    assert!(listener(&there.at.to_string(), at).is_ok());
    rustix::fs::fcntl_setfl(&calling, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert_eq!(connect(&calling, &there.at), Err(Errno::INPROGRESS));
    let why = listener(&there.at.to_string(), at).unwrap_err().to_string();
    assert!(why.contains("is calling"), "{why}");
}

#[test]
fn what_does_not_call_has_no_owner() {
    let none = "the workload's network namespace has no socket that makes this call";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    // Somebody listens on the port that the SYN names as its own.
    assert_eq!(owner(at, "127.0.0.1:1".parse().unwrap()).unwrap_err().to_string(), none);
    // The connection stands, so the SYN is not its own; then it is over.
    let (client, server) = (TcpStream::connect(at).unwrap(), listener.accept().unwrap());
    let from = client.local_addr().unwrap();
    assert_eq!(owner(from, at).unwrap_err().to_string(), none);
    drop((client, server));
    assert!(owner(from, at).is_err());
}

#[test]
fn a_port_whose_namespace_cannot_be_found_says_what_would_help() {
    let (client, server) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let nothing = Overrides::default();
    let why = ask(&nothing, "lo", Party::Caller, client, server).unwrap_err().to_string();
    assert_eq!(why, "lo does not say where its other end is: give its port a netns");
    let why = ask(&nothing, "eth77", Party::Listener, client, server).unwrap_err().to_string();
    assert!(why.starts_with("eth77 cannot be looked at: "), "{why}");
    let gone = BTreeMap::from([("lo".to_owned(), Netns::Path("/run/netns/no-such".into()))]).into();
    let why = ask(&gone, "lo", Party::Caller, client, server).unwrap_err().to_string();
    assert!(why.starts_with("/run/netns/no-such: "), "{why}");
    let other = BTreeMap::from([("lo".to_owned(), Netns::Path("/proc/self/ns/uts".into()))]).into();
    let why = ask(&other, "lo", Party::Caller, client, server).unwrap_err().to_string();
    assert!(why.starts_with("/proc/self/ns/uts cannot be entered: "), "{why}");
}
