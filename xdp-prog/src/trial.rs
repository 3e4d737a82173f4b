//! Asking the programs about a frame without a wire: BPF_PROG_TEST_RUN.
//!
//! The real programs run on the real maps, so this is also how tests know what they do. And asking
//! the kernel what it cost to load them.

use std::os::fd::AsFd;

use libbpf_rs::{ProgramInput, ProgramMut, libbpf_sys};

use crate::{Error, Result, Steering, sys};

/// What a program would do to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    ToWorker,
}

impl Steering {
    /// What the steering program says about a frame received on a port; it counts and remembers as
    /// for a real one.
    pub fn try_frame(&self, port: u16, queue: u32, frame: &[u8]) -> Result<Verdict> {
        let interface = self.attached(port)?.interface;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context: Vec<u8> =
            [0, frame.len() as u32, 0, interface, queue, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let input = ProgramInput { context_in: Some(&mut context), data_in: Some(frame), ..ProgramInput::default() };
        match run(self.program("steer")?, input)? {
            libbpf_sys::XDP_PASS => Ok(Verdict::Pass),
            libbpf_sys::XDP_REDIRECT => Ok(Verdict::ToWorker),
            _ => Ok(Verdict::Drop),
        }
    }

    /// What the guard says about a frame that the kernel sends to an inside port.
    pub fn try_guard(&self, frame: &[u8]) -> Result<Verdict> {
        self.try_guard_from(0, frame)
    }

    /// The same, of one that it forwards from this interface; 0: of the node's own.
    pub fn try_guard_from(&self, ingress: u32, frame: &[u8]) -> Result<Verdict> {
        // struct __sk_buff, as far as its tenth word, ingress_ifindex.
        let mut context: Vec<u8> = [0; 9].into_iter().chain([ingress]).flat_map(u32::to_ne_bytes).collect();
        let input = ProgramInput { context_in: Some(&mut context), data_in: Some(frame), ..ProgramInput::default() };
        filtered(run(self.program("guard")?, input)?)
    }

    /// What the shield says about a frame that comes out of a port's interface.
    pub fn try_shield(&self, port: u16, frame: &[u8]) -> Result<Verdict> {
        let interface = self.attached(port)?.interface;
        // struct __sk_buff, as far as its eleventh word, ifindex.
        let mut context: Vec<u8> = [0; 10].into_iter().chain([interface]).flat_map(u32::to_ne_bytes).collect();
        let input = ProgramInput { context_in: Some(&mut context), data_in: Some(frame), ..ProgramInput::default() };
        filtered(run(self.program("shield")?, input)?)
    }

    /// How many instructions the kernel's verifier walked through each program when it was loaded.
    /// A gateway that was killed steers nothing new until that is done.
    pub fn verified_instructions(&self) -> Result<[(&'static str, u32); 3]> {
        let count = |name| {
            sys::verified_instructions(self.program(name)?.as_fd())
                .map_err(Error::system(format!("asking about the program {name}")))
                .map(|count| (name, count))
        };
        Ok([count("steer")?, count("guard")?, count("shield")?])
    }
}

/// What a filter said (<linux/pkt_cls.h>).
fn filtered(action: u32) -> Result<Verdict> {
    const UNSPEC: u32 = -1i32 as u32;
    const SHOT: u32 = 2;
    match action {
        UNSPEC => Ok(Verdict::Pass),
        SHOT => Ok(Verdict::Drop),
        other => Err(Error::Invalid { what: format!("a program on tc said {other}") }),
    }
}

fn run(program: ProgramMut, input: ProgramInput) -> Result<u32> {
    let output = program.test_run(input).map_err(Error::bpf("running a program on a test frame"))?;
    Ok(output.return_value)
}
