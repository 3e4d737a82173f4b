//! Which cost a stack is counted for: a table of names that a person understands, and the symbols
//! that belong to each.
//!
//! A stack is read from its innermost frame outwards, and the first frame that a rule knows decides;
//! of rules that know the same frame, the one that stands first. So a lock or an allocation counts
//! for what took it, and each sample counts once. What no rule knows goes by whose program it was.

use super::script::{Frame, Sample};

/// Whose time a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Gateway,
    /// Client and server.
    Load,
    Kernel,
    Stranger,
}

/// What a sample counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Cost(&'static str),
    Idle,
    Strangers,
}

struct Rule {
    name: &'static str,
    /// Divided by blanks. `*` at an end stands for anything, `^` in front means only as the
    /// innermost frame.
    symbols: &'static str,
    /// Only where one of these is further out. Empty: anywhere.
    within: &'static str,
}

const fn rule(name: &'static str, symbols: &'static str) -> Rule {
    Rule { name, symbols, within: "" }
}

pub const LOAD: &str = "client and server";
pub const OWN: &str = "the gateways' own code";
pub const OTHER: &str = "other";
const IDLE: &str = "idle";

const KERNEL_COPIES: &str = "memcpy* __memcpy* __pi_memcpy memmove __pi_memmove copy_user* \
         rep_movs_alternative _copy_from_iter* \
         _copy_to_iter* copy_from_user* _copy_from_user* skb_copy_datagram* __skb_datagram_iter* \
         csum_partial_copy* simple_copy_to_iter copy_page*";

/// For the kernel's frames.
const KERNEL: &[Rule] = &[
    rule(
        IDLE,
        "default_idle* pv_native_safe_halt native_safe_halt acpi_idle* acpi_safe_halt \
         mwait_idle* cpuidle_* do_idle cpu_startup_entry intel_idle*",
    ),
    Rule {
        name: "copies into and out of rings (kernel)",
        symbols: KERNEL_COPIES,
        within: "__xsk_rcv* xsk_rcv* xsk_build_skb* __xsk_generic_xmit xsk_generic_xmit",
    },
    Rule {
        name: "copies for XDP on veth (kernel)",
        symbols: KERNEL_COPIES,
        within: "veth_xdp_rcv* veth_convert_skb* skb_pp_cow_data skb_cow_data_for_xdp",
    },
    rule("copies between kernel and programs", KERNEL_COPIES),
    rule("flows in and out of steering (bpf syscalls)", "__sys_bpf* map_update_elem map_delete_elem htab_map_update*"),
    rule("cutting up large packets (GSO)", "*gso_segment* skb_segment* skb_mac_gso*"),
    rule(
        "XDP receive on veth",
        "veth_poll veth_xdp* veth_convert* xsk_rcv* __xsk_rcv* xsk_generic_rcv xsk_flush \
         __xsk_map* xsk_map* xdp_do_* __xdp_* xdp_* bpf_prog_* bpf_dispatcher* bpf_map_* \
         *_map_lookup_elem* do_xdp_generic skb_pp_cow_data skb_cow_data_for_xdp xp_*",
    ),
    rule(
        "ring send (xsk_sendmsg)",
        "xsk_sendmsg* __xsk_sendmsg* __xsk_generic_xmit xsk_generic_xmit xsk_build_skb* \
         xsk_destruct_skb xsk_*",
    ),
    rule("packet socket send (trains)", "packet_* tpacket_* virtio_net_hdr*"),
    rule(
        "TCP and IP in the kernel",
        "tcp_* __tcp_* inet_* __inet_* inet6_* ip_* __ip_* ipv4_* ip6_* fib_* __fib_* neigh_* \
         nf_* nft_* bbr_* cubictcp_* sk_reset_timer sk_stream_* lock_sock* release_sock \
         __release_sock arp_* udp_* unix_*",
    ),
    rule(
        "cables and queues (veth_xmit, softirq)",
        "veth_* dev_hard_start_xmit __dev_queue_xmit* __dev_direct_xmit* sch_direct_xmit \
         validate_xmit_* net_rx_action process_backlog __netif_* netif_* napi_* __napi_* \
         dev_gro_* enqueue_to_backlog dev_* net_tx_action br_*",
    ),
    rule(
        "waiting: scheduler, poll, timers",
        "schedule* __schedule* try_to_wake_up* ttwu_* *wake_up* pick_next_* enqueue_task* \
         dequeue_task* do_poll* do_sys_poll* __x64_sys_poll __x64_sys_ppoll do_select* ep_* \
         do_epoll* __x64_sys_epoll* futex_* do_futex* hrtimer_* __hrtimer* do_nanosleep* sched_* \
         tick_* run_timer_softirq run_timer* update_process_times finish_task_switch* \
         *reschedule_ipi* asm_sysvec_* eventfd_* timerfd_*",
    ),
    rule(
        "page faults and mappings",
        "asm_exc_page_fault exc_page_fault do_user_addr_fault handle_mm_fault clear_page* \
         do_mmap* vm_mmap* __x64_sys_mmap __x64_sys_munmap __x64_sys_mprotect __x64_sys_madvise",
    ),
    rule(
        "opening and closing (sockets, files)",
        "__sys_socket* __sys_accept* __sys_connect* __sys_bind* __sock_release sock_close __fput \
         ____fput do_accept sock_alloc*",
    ),
    rule(
        "entering and leaving the kernel",
        "^entry_SYSCALL* ^syscall_* ^do_syscall_64 ^x64_sys_call ^__x64_sys_* ^asm_* ^restore_* \
         ^swapgs* ^srso_* ^retbleed* ^fdget ^__fget* ^__fdget*",
    ),
];

/// For the gateways' own frames. The names are those of AWS-LC, OpenSSL and BoringSSL.
const USER: &[Rule] = &[
    rule("TLS records: AES-GCM", "*aes_gcm* *aesni_gcm* *gcm_* *ghash* *aes_hw* *aesni_* *vaes* *AES_* *aead*"),
    rule(
        "handshakes: cryptography",
        "*p256* *P256* *x25519* *X25519* *curve25519* *nistz256* *ecdsa* *ECDSA* *ecdh* *sha256* \
         *SHA256* *sha512* *SHA512* *HMAC* *hmac* *hkdf* *HKDF* *mlkem* EC_* ec_* bn_* BN_* \
         RAND_* CRYPTO_* CBB_* CBS_* EVP_* *aws_lc*",
    ),
    rule(
        "handshakes: certificates and rustls",
        "*webpki* *rustls::client::* *rustls::server::* *rustls::crypto* *rustls::tls13* \
         *rustls::hash_hs* *x509* *X509* *ASN1* *dataplane::tls::verify*",
    ),
    rule("TLS records: rustls around them", "*rustls::*"),
    rule(
        "user copies: memmove, memset",
        "__memmove* __memcpy* __memset* memmove* memcpy* memset* *compiler_builtins::mem*",
    ),
    rule("TCP engine: smoltcp, tcp_stack", "*smoltcp::* *tcp_stack::*"),
    rule("rings: dataplane::io", "*dataplane::io::* *xsk_rs::* xsk_* _xsk_*"),
    rule("parsing and flow table", "*dataplane::parse::* *dataplane::flow::*"),
    rule("sessions and relay", "*dataplane::session::* *dataplane::tls::* *dataplane::policy::*"),
    rule("worker's own loop, spinning", "*dataplane::* *std::time::* *clock_gettime* *__rust_begin_short_backtrace*"),
    rule(
        "memory allocation",
        "malloc* _int_* cfree* free __libc_free __libc_malloc unlink_chunk* \
         realloc calloc *__rdl_* *__rust_*alloc* tc_*",
    ),
];

/// Programs that nobody has symbols of, by the file that they are in.
const OBJECTS: [(&str, &str); 2] =
    [("libcrypto.so", "OpenSSL, without symbols"), ("libssl.so", "OpenSSL, without symbols")];

/// Every sample belongs to exactly one.
pub fn group(sample: &Sample<'_>, who: Who) -> Group {
    let stack = &sample.stack;
    // What the kernel does for a program is no function of the program's.
    let side = stack.iter().take_while(|frame| frame.kernel == stack[0].kernel).count();
    let found = (0..side).find_map(|at| known(stack, at, who));
    match (who, found) {
        // What a softirq does of the bench's network, it does on the time of whoever runs.
        (Who::Stranger, Some(name)) if has(stack, "net_rx_action") && name != IDLE => Group::Cost(name),
        (Who::Stranger, _) => Group::Strangers,
        (Who::Kernel, Some(IDLE)) => Group::Idle,
        (_, Some(name)) => Group::Cost(name),
        (_, None) if stack.first().is_some_and(|frame| frame.kernel) => Group::Cost(OTHER),
        (Who::Load, None) => Group::Cost(LOAD),
        (Who::Gateway, None) => Group::Cost(OWN),
        (Who::Kernel, None) => Group::Cost(OTHER),
    }
}

fn known(stack: &[Frame<'_>], at: usize, who: Who) -> Option<&'static str> {
    let frame = stack[at];
    let rules = match (frame.kernel, who) {
        (true, _) => KERNEL,
        (false, Who::Gateway) => USER,
        // How the load does its part is nobody's cost but its own.
        (false, Who::Load | Who::Kernel | Who::Stranger) => return None,
    };
    let fits = |rule: &&Rule| {
        let named = rule.symbols.split_whitespace().any(|pattern| match pattern.strip_prefix('^') {
            Some(pattern) => at == 0 && matches(pattern, frame.symbol),
            None => matches(pattern, frame.symbol),
        });
        let inside =
            || stack[at..].iter().any(|outer| rule.within.split_whitespace().any(|p| matches(p, outer.symbol)));
        named && (rule.within.is_empty() || inside())
    };
    let by_object = || OBJECTS.iter().find(|(object, _)| frame.object.starts_with(object)).map(|(_, name)| *name);
    rules.iter().find(fits).map(|rule| rule.name).or_else(|| (!frame.kernel).then(by_object).flatten())
}

fn has(stack: &[Frame<'_>], symbol: &str) -> bool {
    stack.iter().any(|frame| frame.kernel && frame.symbol == symbol)
}

fn matches(pattern: &str, symbol: &str) -> bool {
    let (open_front, rest) = pattern.strip_prefix('*').map_or((false, pattern), |rest| (true, rest));
    let (open_end, word) = rest.strip_suffix('*').map_or((false, rest), |rest| (true, rest));
    match (open_front, open_end) {
        (false, false) => symbol == word,
        (false, true) => symbol.starts_with(word),
        (true, false) => symbol.ends_with(word),
        (true, true) => match word.split_once('*') {
            Some((first, then)) => symbol.find(first).is_some_and(|at| symbol[at + first.len()..].contains(then)),
            None => symbol.contains(word),
        },
    }
}
