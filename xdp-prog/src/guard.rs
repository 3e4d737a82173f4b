//! The guard on tc egress of inside ports.
//!
//! A tc filter is held by the interface, not by a descriptor: it outlives this process like the
//! pinned links do. It has a handle and a priority of its own, so that adoption replaces it in
//! place and detaching takes this filter and nobody else's.

use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::{TC_EGRESS, TcHook, TcHookBuilder};

use crate::{Error, Result};

const HANDLE: u32 = 0x51;
const PRIORITY: u32 = 0x51;

fn hook(program: BorrowedFd, interface: u32) -> TcHook {
    TcHookBuilder::new(program)
        .ifindex(interface as i32)
        .replace(true)
        .handle(HANDLE)
        .priority(PRIORITY)
        .hook(TC_EGRESS)
}

pub fn attach(program: BorrowedFd, name: &str, interface: u32) -> Result<()> {
    let mut hook = hook(program, interface);
    hook.create().map_err(Error::bpf(format!("{name}: adding a clsact qdisc")))?;
    hook.attach().map_err(Error::bpf(format!("{name}: attaching the guard to tc egress")))?;
    Ok(())
}

/// True if there was one. The clsact qdisc stays: others may have filters there.
pub fn detach(interface: u32) -> bool {
    let stdin = std::io::stdin();
    // Only attaching uses the descriptor.
    let mut hook = hook(stdin.as_fd(), interface);
    hook.query().is_ok() && hook.detach().is_ok()
}
