//! What `perf script` prints, read into samples: who ran, when, for how long, and the stack.
//!
//! ```text
//! worker-0  8918/8920   2469.521271982:     500250
//!         ffffffff81b6ff6d __xsk_rcv ([kernel.kallsyms])
//!                  5202ce3 dataplane::worker::Worker::poll (/usr/bin/sluice-dataplane)
//! ```

use anyhow::{Context, Result};

/// One look at one CPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    pub program: &'a str,
    /// Of the process, not of the thread.
    pub pid: u32,
    /// On CLOCK_MONOTONIC.
    pub at: f64,
    /// Seconds that it stands for.
    pub weight: f64,
    /// From the innermost outwards.
    pub stack: Vec<Frame<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kernel: bool,
    pub symbol: &'a str,
    /// The file's name, without its directory.
    pub object: &'a str,
}

/// The fields that [`parse`] knows, for perf-script(1).
pub const FIELDS: &str = "comm,pid,tid,time,period,ip,sym,dso";

pub fn parse(text: &str) -> Result<Vec<Sample<'_>>> {
    let mut samples: Vec<Sample<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_prefix(['\t', ' ']).and_then(|rest| frame(rest.trim_start())) {
            Some(frame) => samples.last_mut().context("a frame stands before any sample")?.stack.push(frame),
            None => samples.push(head(line).with_context(|| format!("perf script printed: {line}"))?),
        }
    }
    Ok(samples)
}

/// Names of programs may have blanks in them, so that it is read from its end.
fn head(line: &str) -> Option<Sample<'_>> {
    let (rest, period) = line.trim_end().rsplit_once(char::is_whitespace)?;
    let (rest, at) = rest.trim_end().rsplit_once(char::is_whitespace)?;
    let (program, ids) = rest.trim_end().rsplit_once(char::is_whitespace)?;
    Some(Sample {
        program: program.trim(),
        // The kernel's idle threads have 0, and what is just ending has -1, which is nobody's.
        pid: ids.split_once('/')?.0.parse::<i32>().ok()?.cast_unsigned(),
        at: at.strip_suffix(':')?.parse().ok()?,
        weight: period.parse::<f64>().ok()? / 1e9,
        stack: vec![],
    })
}

fn frame(line: &str) -> Option<Frame<'_>> {
    let (address, rest) = line.split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (symbol, object) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    let object = object.trim_end_matches(')');
    // The upper half of addresses is the kernel's.
    Some(Frame { kernel: address >> 63 == 1, symbol: symbol.trim(), object: object.rsplit('/').next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
tokio runtime w  8918/8920   2469.521271982:     500250 
\tffffffff81b6ff6d __xsk_rcv ([kernel.kallsyms])
\t         5202ce3 <dataplane::io::Ports as dataplane::io::PacketIo>::flush (/opt/my dir/sluice-dataplane)
\t               0 [unknown] ([unknown])

swapper     0/0      2469.521772232:     500250 
\tffffffff821f1234 pv_native_safe_halt ([kernel.kallsyms])

kworker/u8:2-wr    77/77     2469.6:     500250 

:-1    -1/-1     3708.189733833:     500250 
";

    #[test]
    fn a_sample_has_its_program_time_and_stack() {
        let samples = parse(TEXT).unwrap();
        assert_eq!(
            samples.iter().map(|s| (s.program, s.pid)).collect::<Vec<_>>(),
            [("tokio runtime w", 8918), ("swapper", 0), ("kworker/u8:2-wr", 77), (":-1", u32::MAX)]
        );
        assert_eq!((samples[0].at, samples[0].weight), (2469.521271982, 0.00050025));
        let frames: Vec<_> = samples[0].stack.iter().map(|f| (f.kernel, f.symbol, f.object)).collect();
        assert_eq!(
            frames,
            [
                (true, "__xsk_rcv", "[kernel.kallsyms]"),
                (false, "<dataplane::io::Ports as dataplane::io::PacketIo>::flush", "sluice-dataplane"),
                (false, "[unknown]", "[unknown]"),
            ]
        );
        assert!(samples[2].stack.is_empty());
    }

    #[test]
    fn what_is_no_sample_is_an_error_and_not_left_out() {
        for (name, text) in [
            ("a message", "Warning: something\n"),
            ("a frame without its sample", "\tffffffff81b6ff6d __xsk_rcv ([kernel.kallsyms])\n"),
            ("no period", "bench 1/1 5.0:\n"),
        ] {
            assert!(parse(text).is_err(), "{name}");
        }
    }
}
