/* SPDX-License-Identifier: Apache-2.0 */
/* Steps 2 to 10 of a packet: what becomes of it, for the steering program and for the shield.
 *
 * Nothing in here acts or counts. An outcome of the worker's is a claim: whether there is a worker
 * is for the caller to see.
 */
#ifndef DECIDE_H
#define DECIDE_H

static __always_inline const struct settings *setting(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline bool may_pass_absent(const struct match *match)
{
	const struct settings *s = setting();

	return s && s->on_absent_pass && !match->guarded;
}

/* Step 4: finds `set`. False if the packet is spoofed. */
static __always_inline bool bind(__u8 side, struct packet *packet)
{
	const struct source *source = binding(&packet->key.tuple.source);

	if (side == SIDE_OUTSIDE) {
		packet->set = NO_SET;
		return !source;
	}
	packet->set = 0;
	if (source) {
		if (source->port != packet->key.port)
			return false;
	} else {
		struct source_prefix_key key = {
			.length = 32 + 128,
			.port = packet->key.port,
			.address = packet->key.tuple.source,
		};

		source = bpf_map_lookup_elem(&source_prefixes, &key);
		if (!source)
			return true;
	}
	packet->set = source->set;
	return !(source->mac[0] | source->mac[1] | source->mac[2]) ||
	       !((source->mac[0] ^ packet->mac[0]) | (source->mac[1] ^ packet->mac[1]) |
		 (source->mac[2] ^ packet->mac[2]));
}

/* Is either end an address that TCP must not reach or leave without us seeing its ports? */
__noinline bool shielded(const struct packet *packet)
{
	struct address any = {};

	if (!packet)
		return true;
	/* A bound address is a workload's: no packet without ports may be put into its streams. */
	if (known_address(SCOPE_INBOUND, &packet->key.tuple.destination) || binding(&packet->key.tuple.destination))
		return true;
	if (packet->set == NO_SET)
		return false;
	return known_address(packet->set, &packet->key.tuple.destination) || known_address(packet->set, &any) ||
	       known_address(SCOPE_INBOUND, &packet->key.tuple.source);
}

#define GO_ON OUTCOMES /* nothing is decided yet */

/* Steps 2 to 5, and what is none of ours. */
__noinline int screen(struct packet *packet, int parsed, int side)
{
	bool maybe_tcp;

	if (!packet)
		return DROP_UNPARSABLE;
	if (parsed == UNFRAMED)
		return packet->tags ? DROP_VLAN : DROP_UNPARSABLE;
	if (parsed == NOT_IP)
		return PASS;
	if (parsed == TRUNCATED)
		return DROP_UNPARSABLE;
	if (packet->protocol == IPPROTO_ICMPV6 && packet->icmp >= 133 && packet->icmp <= 137)
		return PASS;
	if (!bind(side, packet))
		return DROP_SPOOFED;
	maybe_tcp = packet->protocol == IPPROTO_TCP || is_icmp_error(packet->protocol, packet->icmp) ||
		    (parsed == BROKEN && packet->protocol == 0);
	if (maybe_tcp && (parsed != PARSED || packet->tags > 1) && shielded(packet))
		return packet->tags > 1 ? DROP_VLAN : parsed == FRAGMENT ? DROP_FRAGMENT : DROP_UNPARSABLE;
	return parsed == PARSED ? GO_ON : PASS;
}

/* Step 6: the tuple that the error quotes is of a segment that we sent, so the flow's own segments
 * have it reversed. A quote of anything else is not about us.
 */
static __always_inline struct packet quoted_by(const struct packet *packet)
{
	/* The quote is cut short by whoever sent it: its lengths are not held against it. */
	struct packet quoted = { .length = ~0ULL };

	quoted.ethertype = packet->protocol == IPPROTO_ICMP ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	quoted.transport = packet->transport + 8;
	return quoted;
}

static __always_inline bool is_of_flow(const struct packet *packet, const struct packet *quoted)
{
	struct flow_key key = {};

	key.port = packet->key.port;
	reversed(&key.tuple, &quoted->key.tuple);
	return bpf_map_lookup_elem(&flows, &key) != NULL;
}

__noinline bool quotes_flow(struct xdp_md *ctx, const struct packet *packet)
{
	struct packet quoted;

	if (!packet)
		return false;
	quoted = quoted_by(packet);
	return quote_xdp(ctx, &quoted) && is_of_flow(packet, &quoted);
}

__noinline bool quotes_flow_skb(struct __sk_buff *ctx, const struct packet *packet)
{
	struct packet quoted;

	if (!packet)
		return false;
	quoted = quoted_by(packet);
	return quote_skb(ctx, &quoted) && is_of_flow(packet, &quoted);
}

/* Step 9: TO_WORKER_SYN, DROP_DENIED, or an outcome that passes. */
__noinline int claim_syn(const struct packet *packet, struct match *whose)
{
	struct match as_client = {};
	struct prefix_key source = { .length = 128 };

	if (!packet || !whose)
		return DROP_ABSENT;
	source.address = packet->key.tuple.source;
	if (bpf_map_lookup_elem(&denied, &source))
		return DROP_DENIED;
	whose->either = ask_both(&packet->key.tuple, packet->set, whose, &as_client);
	if (whose->take)
		return TO_WORKER_SYN;
	return packet->set != NO_SET && packet->set != 0 ? PASSED_UNMATCHED : PASS;
}

/* Step 10: a segment of a connection that we do not know. Whose is it?
 *
 *  a. Neither end is captured, or one end is a port under DISABLE: the kernel's. PASS.
 *  b. `passed` knows the connection's SYN, and so which end is the server. If the server is not
 *     captured, or its capture let that very SYN through (no worker, or a caller on the node
 *     itself) and MUTUAL does not protect it: the kernel's. PASS.
 *  c. It is the answer to a SYN of the node itself that the guard has let by and noted, and the entry
 *     of the bypass still stands: PASSED_BYPASS.
 *  d. Else it began before its capture did, or is what is left of a flow. In the grace it passes;
 *     after it, the worker resets it. What is known to have begun later has no grace: its permission
 *     is gone.
 *
 * b never opens what MUTUAL protects: an entry is only made for a SYN that was not taken, no
 * segment without SYN can open a connection in a kernel, known flows were sent to the worker
 * before, and an entry older than the capture, or of a protected one, does not count.
 */
__noinline int claim_unknown(const struct packet *packet, struct match *whose)
{
	struct match as_server = {}, as_client = {}, *relevant;
	const struct settings *s = setting();
	struct tuple back = {};
	const __u64 *when;
	bool later;

	if (!packet || !whose || !s)
		return DROP_ABSENT;
	if (!ask_both(&packet->key.tuple, packet->set, &as_server, &as_client) || as_server.left || as_client.left)
		return PASS;
	relevant = &as_server;
	when = bpf_map_lookup_elem(&passed, &packet->key.tuple);
	if (!when) {
		relevant = &as_client;
		reversed(&back, &packet->key.tuple);
		when = bpf_map_lookup_elem(&passed, &back);
	}
	if (when && (!relevant->take || (*when >= relevant->since && !relevant->guarded)))
		return PASS;
	/* The workload's own packets alone: `screen` has held its address, port and MAC together. */
	if (when && relevant == &as_client && packet->set != NO_SET && packet->set != 0 && bypassing(&back))
		return PASSED_BYPASS;
	later = when && *when >= relevant->since;
	if (!when) {
		/* Either end may be the server: the stricter answer. */
		if (!as_client.take || (as_server.take && as_server.since < as_client.since))
			as_client.since = as_server.since;
		as_client.guarded |= as_server.guarded;
	}
	*whose = *relevant;
	return !later && bpf_ktime_get_boot_ns() < relevant->since + s->grace ? PRE_EXISTING : TO_WORKER_UNKNOWN;
}

static __always_inline bool is_drop(__u32 outcome)
{
	return outcome >= DROP_FRAGMENT;
}

static __always_inline bool is_for_worker(__u32 outcome)
{
	return outcome >= TO_WORKER_FLOW && outcome <= TO_WORKER_ICMP;
}

/* The kernel gets it. What is noted of a SYN: see remember(). */
static __always_inline void let_go(const struct packet *packet, const struct match *whose)
{
	if (opens(packet) && whose->either)
		remember(&packet->key.tuple);
}

#endif
