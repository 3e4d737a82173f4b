//! The contract between the control process and the dataplane: what is said, and nothing that acts.
//!
//! `ctrl` assembles a whole [`Snapshot`] (who runs here, whom they may call, whom they may be
//! called by, which roots are trusted) and a whole [`Network`] (routes, neighbours, links), and
//! hands each over in a sealed memfd. The dataplane checks it, compiles it, puts it in force and
//! says so. Small things (keys, acks, queries) are [`ToDataplane`] and [`ToCtrl`] messages on the
//! same socket. The two processes share this crate and no other.
//!
//! ```text
//!   ctrl ── Boot, Key, Snapshot(fd), Network(fd), Query, Attested ──▶ dataplane
//!        ◀── Hello, Ack | Nack, Resolve, Reply, Attest ───────────────
//! ```

#![forbid(unsafe_code)]

pub mod audit;
pub mod balance;
pub mod bypass;
pub mod callers;
pub mod channel;
pub mod check;
pub mod codec;
pub mod gateway;
pub mod identity;
pub mod living;
pub mod network;
pub mod policy;
pub mod process;
pub mod proxy;
pub mod reason;
pub mod replay;
pub mod report;
pub mod resumption;
pub mod revoked;
pub mod rules;
pub mod state;

pub use audit::{Audit, AuditStatus};
pub use balance::{EndpointLoad, VirtualAddress};
pub use bypass::{Admitted, Bypass, BypassHits};
pub use callers::{Called, CallerName};
pub use channel::{Query, Reply, ToCtrl, ToDataplane};
pub use gateway::{Boot, Cores, Group, Limits, OnAbsent, Port, PortRange, Side, Timeouts, Waiting, XdpMode};
pub use identity::{Bundle, KeyId, Place, Prefix, Svid, Workload, root_material};
pub use living::{Living, OnChange, OnPeerExpiry};
pub use network::{Link, LinkAddress, Neighbour, Network, Route};
pub use policy::{EgressRule, IdPattern, RuleId, RuleSource, Service, SourceAddress, TlsMode, Unmatched};
pub use process::{Cgroup, Found, Owner, Party, Process, ProcessSelector, Question, Unfound};
pub use proxy::{ProxyHeaders, ProxyProtocol};
pub use reason::{CloseReason, DropReason, RefuseReason};
pub use replay::{Flow, Outcome, Recorded, Turned};
pub use report::{ConnectionReport, CoreReport, Counters, Direction, Explanation, Status, TlsReport};
pub use resumption::Resumption;
pub use revoked::{Crl, Revoked, normal_serial};
pub use rules::{Action, Block, Enforcement, Policy, PolicyRule, RuleDirection, RuleHits};
pub use state::{SCHEMA, Snapshot, Version};
