//! Servers that Sluice asks and no registry ships, as far as a client can tell. Here and not beside the tests
//! of them: each of those would compile its web server again.

pub mod kube_api;
