//! The programs on tc: the guard on egress of inside ports, the shield on ingress of all.
//!
//! A tc filter is held by the interface, not by a descriptor: it outlives this process like the
//! pinned links do. Ours have a handle and a priority of their own, so that adoption replaces them in
//! place and detaching takes these filters and nobody else's.

use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use crate::{Error, Result};

const HANDLE: u32 = 0x51;
const PRIORITY: u32 = 0x51;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    Guard,
    Shield,
}

impl Filter {
    pub const ALL: [Self; 2] = [Self::Guard, Self::Shield];

    /// Of its program in the steering object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Shield => "shield",
        }
    }

    pub fn direction(self) -> &'static str {
        match self {
            Self::Guard => "egress",
            Self::Shield => "ingress",
        }
    }

    fn hook(self, program: BorrowedFd, interface: u32) -> TcHook {
        let point = match self {
            Self::Guard => TC_EGRESS,
            Self::Shield => TC_INGRESS,
        };
        TcHookBuilder::new(program)
            .ifindex(interface as i32)
            .replace(true)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(point)
    }

    pub fn attach(self, program: BorrowedFd, name: &str, interface: u32) -> Result<()> {
        let mut hook = self.hook(program, interface);
        hook.create().map_err(Error::bpf(format!("{name}: adding a clsact qdisc")))?;
        let what = || format!("{name}: attaching the {} to tc {}", self.name(), self.direction());
        hook.attach().map_err(|error| Error::bpf(what())(error))?;
        Ok(())
    }

    /// True if there was one. The clsact qdisc stays: others may have filters there.
    pub fn detach(self, interface: u32) -> bool {
        let stdin = std::io::stdin();
        // Only attaching uses the descriptor.
        let mut hook = self.hook(stdin.as_fd(), interface);
        hook.query().is_ok() && hook.detach().is_ok()
    }
}
