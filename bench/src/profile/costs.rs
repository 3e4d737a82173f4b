//! What the samples of a timed part come to, by cost.

use std::collections::BTreeMap;

use super::rules::{Group, OTHER, Who, group};
use super::script::Sample;
use crate::ratio::rounded;
use crate::report::table;

/// Seconds of CPU, as the samples saw them.
#[derive(Debug, Default)]
pub struct Costs {
    groups: BTreeMap<&'static str, Cost>,
    pub idle: f64,
    pub strangers: f64,
}

#[derive(Debug, Default)]
struct Cost {
    seconds: f64,
    /// Of it, while a process of a gateway was the current one.
    gateways: f64,
    /// By innermost symbol.
    symbols: BTreeMap<String, f64>,
}

impl Costs {
    /// Of the samples between these two moments: what comes before is set-up, and after it the end.
    pub fn of(samples: &[Sample<'_>], (began, ended): (f64, f64), who: &dyn Fn(&Sample<'_>) -> Who) -> Self {
        let mut costs = Self::default();
        for sample in samples.iter().filter(|sample| (began..ended).contains(&sample.at)) {
            let whose = who(sample);
            match group(sample, whose) {
                Group::Idle => costs.idle += sample.weight,
                Group::Strangers => costs.strangers += sample.weight,
                Group::Cost(name) => costs.groups.entry(name).or_default().add(sample, whose),
            }
        }
        costs
    }

    pub fn busy(&self) -> f64 {
        self.groups.values().map(|cost| cost.seconds).sum()
    }

    /// The `top` largest, then what is left: the rules' and what no rule knows. `each` is how long
    /// the machine was busy for a unit of work.
    pub fn table(&self, top: usize, each: f64, unit: &str) -> String {
        let busy = self.busy();
        let mut known: Vec<(&str, &Cost)> = self.groups.iter().map(|(name, cost)| (*name, cost)).collect();
        let unknown = known.iter().position(|(name, _)| *name == OTHER).map(|at| known.remove(at));
        known.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
        let rest = known.split_off(top.min(known.len()));
        let percent = |part: f64, whole: f64| format!("{:.1} %", part / whole * 100.0);
        let line = |name: String, seconds: f64, gateways: f64, words: String| {
            vec![name, percent(seconds, busy), rounded(seconds / busy * each), percent(gateways, seconds), words]
        };
        let of = |(name, cost): &(&str, &Cost)| line((*name).into(), cost.seconds, cost.gateways, cost.mostly());
        let header = ["cost", "share", unit, "while A or B ran", "mostly"].map(str::to_owned).to_vec();
        let mut cells = vec![header];
        cells.extend(known.iter().map(of));
        if !rest.is_empty() {
            let sum = |part: fn(&Cost) -> f64| rest.iter().map(|(_, cost)| part(cost)).sum();
            let largest: Vec<_> =
                rest.iter().take(3).map(|(n, c)| format!("{n} {}", percent(c.seconds, busy))).collect();
            let name = format!("{} smaller ones", rest.len());
            cells.push(line(name, sum(|cost| cost.seconds), sum(|cost| cost.gateways), largest.join(", ")));
        }
        cells.extend(unknown.iter().map(of));
        table(&cells)
    }
}

impl Cost {
    fn add(&mut self, sample: &Sample<'_>, whose: Who) {
        self.seconds += sample.weight;
        match whose {
            Who::Gateway => self.gateways += sample.weight,
            Who::Load | Who::Kernel | Who::Stranger => {}
        }
        let symbol = sample.stack.first().map_or("no stack", |frame| frame.symbol);
        *self.symbols.entry(short(symbol)).or_default() += sample.weight;
    }

    fn mostly(&self) -> String {
        let mut all: Vec<(&String, &f64)> = self.symbols.iter().collect();
        all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let word = |(symbol, seconds): &(&String, &f64)| format!("{symbol} {:.0} %", **seconds / self.seconds * 100.0);
        all.iter().take(3).map(word).collect::<Vec<_>>().join(", ")
    }
}

/// Without the types that a symbol of Rust's carries along, and never so long that a table breaks.
fn short(symbol: &str) -> String {
    let mut depth = 0;
    let mut plain = String::new();
    for (at, letter) in symbol.char_indices() {
        match letter {
            // A path may begin with one: `<Worker as Poll>::poll`.
            '<' if at > 0 => depth += 1,
            '>' if depth > 0 && !symbol[..at].ends_with('-') => depth -= 1,
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let plain = plain.replace("::{{closure}}", "").replace("::::", "::").replace('|', "/");
    let words: Vec<&str> = plain.rsplitn(3, "::").collect();
    let tail = if words.len() == 3 { format!("{}::{}", words[1], words[0]) } else { plain.clone() };
    tail.chars().take(48).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::script::parse;

    /// One second each.
    fn stack(program: &str, pid: u32, at: f64, frames: &[&str]) -> String {
        let address = |symbol: &&str| {
            if symbol.contains("::") || symbol.starts_with("__memmove") { "55" } else { "ffffffff81000000" }
        };
        let frame = |symbol: &&str| format!("\t{} {symbol} (object)\n", address(symbol));
        format!("{program} {pid}/{pid} {at}: 1000000000\n{}\n", frames.iter().map(frame).collect::<String>())
    }

    /// 7 is a gateway, 8 the load, 0 the kernel; all else are strangers.
    fn who(sample: &Sample<'_>) -> Who {
        match sample.pid {
            7 => Who::Gateway,
            8 => Who::Load,
            0 => Who::Kernel,
            _ => Who::Stranger,
        }
    }

    fn costs(text: &str) -> Costs {
        Costs::of(&parse(text).unwrap(), (10.0, 20.0), &who)
    }

    fn only(program: &str, pid: u32, frames: &[&str]) -> String {
        let costs = costs(&stack(program, pid, 15.0, frames));
        let mut names: Vec<_> = costs.groups.keys().map(|name| (*name).to_owned()).collect();
        names.extend((costs.idle > 0.0).then(|| "idle".to_owned()));
        names.extend((costs.strangers > 0.0).then(|| "strangers".to_owned()));
        assert_eq!(names.len(), 1, "each sample counts once: {names:?}");
        names.remove(0)
    }

    #[test]
    fn the_innermost_frame_that_a_rule_knows_decides() {
        let worker = "dataplane::worker::Worker::poll";
        for (want, pid, frames) in [
            (
                "XDP receive on veth",
                8,
                &["_raw_spin_lock", "__xsk_rcv", "veth_poll", "net_rx_action", "tcp_sendmsg"][..],
            ),
            ("copies into and out of rings (kernel)", 8, &["memcpy", "__xsk_rcv", "veth_poll"]),
            ("copies between kernel and programs", 8, &["memcpy", "tcp_sendmsg", "entry_SYSCALL_64"]),
            ("TCP and IP in the kernel", 8, &["kfree", "tcp_ack", "net_rx_action", "veth_xmit", "xsk_sendmsg", worker]),
            ("ring send (xsk_sendmsg)", 7, &["kmem_cache_alloc", "xsk_build_skb", "xsk_sendmsg", worker]),
            ("packet socket send (trains)", 7, &["__alloc_skb", "packet_snd", "do_syscall_64", worker]),
            ("cutting up large packets (GSO)", 7, &["skb_segment", "__skb_gso_segment", "packet_snd", worker]),
            ("entering and leaving the kernel", 7, &["entry_SYSCALL_64", worker]),
            ("other", 7, &["a_new_function", "entry_SYSCALL_64", worker]),
            (
                "TLS records: AES-GCM",
                7,
                &["aws_lc::aes_gcm_enc_update_vaes_avx512", "rustls::record_layer::seal", worker],
            ),
            ("user copies: memmove, memset", 7, &["__memmove_avx_unaligned_erms", "smoltcp::storage::ring", worker]),
            ("client and server", 8, &["__memmove_avx_unaligned_erms", "bench::load::wire::send_blocks"]),
            ("TCP engine: smoltcp, tcp_stack", 7, &["core::slice::get", "<smoltcp::Socket>::process", worker]),
            ("worker's own loop, spinning", 7, &[worker]),
            ("worker's own loop, spinning", 7, &["std::time::Instant::now", worker]),
            ("the gateways' own code", 7, &["envoy::run"]),
            ("idle", 0, &["pv_native_safe_halt", "default_idle", "do_idle"]),
            ("XDP receive on veth", 0, &["veth_poll", "net_rx_action", "do_idle"]),
            ("strangers", 99, &["rustc::main"]),
            ("strangers", 99, &["tcp_sendmsg", "do_syscall_64", "curl::main"]),
            ("XDP receive on veth", 99, &["veth_poll", "net_rx_action", "asm_sysvec_apic", "rustc::main"]),
        ] {
            assert_eq!(only("x", pid, frames), want, "{frames:?}");
        }
    }

    #[test]
    fn only_the_timed_part_counts() {
        let text: String = [9.9, 10.0, 19.9, 20.0].map(|at| stack("x", 7, at, &["veth_poll"])).concat();
        assert_eq!(costs(&text).busy(), 2.0);
    }

    #[test]
    fn shares_are_of_the_busy_time_and_what_no_rule_knows_is_shown() {
        let stacks = [
            (6, "veth_poll", 8),
            (2, "xsk_sendmsg", 7),
            (1, "tcp_ack", 8),
            (1, "a_new_function", 8),
            (50, "default_idle", 0),
            (9, "rustc::main", 99),
        ];
        let text: String =
            stacks.iter().map(|(count, symbol, pid)| stack("x", *pid, 15.0, &[symbol]).repeat(*count)).collect();
        let costs = costs(&text);
        assert_eq!((costs.busy(), costs.idle, costs.strangers), (10.0, 50.0, 9.0));
        let lines: Vec<String> = costs
            .table(2, 5.0, "s/GiB")
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[2..],
            [
                "| XDP receive on veth | 60.0 % | 3.00 | 0.0 % | veth_poll 100 % |",
                "| ring send (xsk_sendmsg) | 20.0 % | 1.00 | 100.0 % | xsk_sendmsg 100 % |",
                "| 1 smaller ones | 10.0 % | 0.50 | 0.0 % | TCP and IP in the kernel 10.0 % |",
                "| other | 10.0 % | 0.50 | 0.0 % | a_new_function 100 % |",
            ]
        );
    }

    #[test]
    fn names_of_symbols_stay_short() {
        for (symbol, want) in [
            ("__xsk_rcv", "__xsk_rcv"),
            ("dataplane::worker::Worker<P, C>::poll", "Worker::poll"),
            ("dataplane::session::<impl Session<C>>::judge", "session::judge"),
            ("<dataplane::io::Ports as PacketIo>::flush::{{closure}}", "Ports as PacketIo>::flush"),
        ] {
            assert_eq!(short(symbol), want);
        }
    }
}
