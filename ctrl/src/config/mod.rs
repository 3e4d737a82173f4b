//! The configuration as people write it: YAML files, read whole, checked whole.
//!
//! ```text
//!   bytes ─ tree ─▶ nodes with positions ─ decode ─▶ resources ─ load ─▶ Loaded
//!                                            │ every fault becomes a Diagnostic │
//! ```
//! A load reports all its faults, not the first: each has a file, a line, a column, the path of the
//! field (`spec.egress[0].connection.tls.mode`), the value and what is allowed. Nothing is half
//! taken: either the whole directory is right, or the caller keeps what it had.

pub mod audit;
pub mod broker;
pub mod bypass;
pub mod crl;
pub mod crls;
pub mod decode;
pub mod diagnostic;
pub mod endpoint;
pub mod faults;
pub mod fetched;
pub mod gateway;
pub mod identity;
pub mod kubernetes;
pub mod lint;
pub mod lint_claims;
pub mod lint_policy;
pub mod lint_service;
pub mod living;
pub mod load;
pub mod objects;
pub mod policy;
pub mod process;
pub mod proxy;
pub mod resource;
pub mod roots;
pub mod schema;
pub mod service;
pub mod spiffe;
pub mod spire;
pub mod suggest;
pub mod tree;
pub mod trust;
pub mod vault;
pub mod workload;

pub use decode::Chosen;
pub use diagnostic::{Diagnostic, Place, Severity};
pub use gateway::{Admin, Gateway};
pub use identity::{IdentitySource, NamedSource};
pub use kubernetes::Kubernetes;
pub use living::Lifetimes;
pub use load::{
    HOLDS_NOTHING, Known, Loaded, Resources, gateway_of, load_dir, load_files, load_good, load_texts, parse_dir,
    parse_files, reload_dir,
};
pub use policy::{Naming, Policy};
pub use service::{Address, InCluster, Service, Target, VirtualAddress};
pub use spiffe::{SpiffeId, TrustDomain};
pub use trust::TrustBundle;
pub use workload::{AllowList, Egress, Selector, WorkloadIdentity};
