/* SPDX-License-Identifier: Apache-2.0 */
/* The steering program (XDP, ingress of every port) and the guard (tc, egress of inside ports).
 *
 * Steering takes the TCP connections that Sluice answers for out of the kernel's hands and gives
 * them to the AF_XDP socket of their port and queue. It decides nothing about identity: it may
 * refuse, never admit. The first line that applies decides:
 *
 *   1. An interface that is no port of ours, or a frame that is no IP (ARP, ...): PASS.
 *   2. More VLAN tags than we follow: drop_vlan. An IP header cut short: drop_unparsable.
 *   3. Neighbour discovery: PASS.
 *   4. The source address is bound to another port or MAC: drop_spoofed. It follows the set of the
 *      caller (0 if no identity is bound).
 *   5. TCP, or what may be TCP, from or to an address of something captured, that is fragmented
 *      (drop_fragment), cannot be parsed (drop_unparsable) or has two tags (drop_vlan).
 *      TCP needs no fragments; UDP and ICMP do, and theirs pass.
 *   6. An ICMP error about a flow of ours: to_worker_icmp. It never reaches the workload.
 *   7. What is not TCP: PASS.
 *   8. A segment of a flow of ours: to_worker_flow.
 *   9. A SYN: of a denied source, drop_denied; that a capture takes, to_worker_syn; else PASS, and
 *      noted in `passed` if later segments could be mistaken for captured ones.
 *  10. Any other segment, see unknown() below: PASS, pre_existing or to_worker_unknown.
 *
 * "To the worker" with no socket in the queue's slot is drop_absent, except that a SYN or an
 * unknown segment of what MUTUAL does not protect passes if the node is set to onAbsent: pass.
 *
 * The guard is the second lock on the same door: see guard() below.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"
#include "maps.h"
#include "parse.h"
#include "capture.h"

static __always_inline int pass(__u32 outcome)
{
	count(outcome);
	return XDP_PASS;
}

static __always_inline int drop(__u32 outcome)
{
	count(outcome);
	return XDP_DROP;
}

static __always_inline const struct settings *setting(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* XDP_REDIRECT, or XDP_DROP if the slot of this port and queue is empty. */
static __always_inline int redirect(struct xdp_md *ctx, const struct packet *packet)
{
	__u32 queue = ctx->rx_queue_index;

	if (queue >= MAX_QUEUES)
		return XDP_DROP;
	return bpf_redirect_map(&xsks, packet->key.port * MAX_QUEUES + queue, XDP_DROP);
}

static __always_inline int to_worker(struct xdp_md *ctx, const struct packet *packet, __u32 outcome)
{
	int action = redirect(ctx, packet);

	count(action == XDP_REDIRECT ? outcome : DROP_ABSENT);
	return action;
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

/* Step 6: the tuple that the error quotes is of a segment that we sent, so the flow's own segments
 * have it reversed. A quote of anything else is not about us.
 */
__noinline bool quotes_flow(struct xdp_md *ctx, const struct packet *packet)
{
	/* The quote is cut short by whoever sent it: its lengths are not held against it. */
	struct packet quoted = { .length = ~0ULL };
	struct flow_key key = {};

	if (!packet)
		return false;
	quoted.ethertype = packet->protocol == IPPROTO_ICMP ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	quoted.transport = packet->transport + 8;
	if (!parse_quote(ctx, &quoted))
		return false;
	key.port = packet->key.port;
	reversed(&key.tuple, &quoted.key.tuple);
	return bpf_map_lookup_elem(&flows, &key) != NULL;
}

/* Step 9. */
__noinline int syn(struct xdp_md *ctx, const struct packet *packet)
{
	struct match as_server = {}, as_client = {};
	struct prefix_key source = { .length = 128 };
	__u32 outcome = PASS;
	bool captured;

	if (!packet)
		return XDP_DROP;
	source.address = packet->key.tuple.source;
	if (bpf_map_lookup_elem(&denied, &source))
		return drop(DROP_DENIED);
	captured = ask_both(&packet->key.tuple, packet->set, &as_server, &as_client);
	if (as_server.take) {
		int action = redirect(ctx, packet);

		if (action == XDP_REDIRECT) {
			count(TO_WORKER_SYN);
			return action;
		}
		if (!may_pass_absent(&as_server))
			return drop(DROP_ABSENT);
		outcome = PASSED_ABSENT;
	} else if (packet->set != NO_SET && packet->set != 0) {
		outcome = PASSED_UNMATCHED;
	}
	if (captured)
		remember(&packet->key.tuple);
	return pass(outcome);
}

/* Step 10: a segment of a connection that we do not know. Whose is it?
 *
 *  a. Neither end is captured, or one end is a port under DISABLE: the kernel's. PASS.
 *  b. `passed` knows the connection's SYN, and so which end is the server. If the server is not
 *     captured, or its capture let that very SYN through (no worker, or a caller on the node
 *     itself) and MUTUAL does not protect it: the kernel's. PASS.
 *  c. Else it began before its capture did, or is what is left of a flow. In the grace it passes;
 *     after it, the worker resets it.
 *
 * b never opens what MUTUAL protects: an entry is only made for a SYN that was not taken, no
 * segment without SYN can open a connection in a kernel, known flows were sent to the worker
 * before, and an entry older than the capture, or of a protected one, does not count.
 */
__noinline int unknown(struct xdp_md *ctx, const struct packet *packet)
{
	struct match as_server = {}, as_client = {}, *relevant;
	const struct settings *s = setting();
	struct tuple back = {};
	const __u64 *when;
	int action;

	if (!packet || !s)
		return XDP_DROP;
	if (!ask_both(&packet->key.tuple, packet->set, &as_server, &as_client) || as_server.left || as_client.left)
		return pass(PASS);
	relevant = &as_server;
	when = bpf_map_lookup_elem(&passed, &packet->key.tuple);
	if (!when) {
		relevant = &as_client;
		reversed(&back, &packet->key.tuple);
		when = bpf_map_lookup_elem(&passed, &back);
	}
	if (when && (!relevant->take || (*when >= relevant->since && !relevant->guarded)))
		return pass(PASS);
	if (!when) {
		/* Either end may be the server: the stricter answer. */
		if (!as_client.take || (as_server.take && as_server.since < as_client.since))
			as_client.since = as_server.since;
		as_client.guarded |= as_server.guarded;
	}
	if (bpf_ktime_get_boot_ns() < relevant->since + s->grace)
		return pass(PRE_EXISTING);
	action = redirect(ctx, packet);
	if (action == XDP_REDIRECT)
		count(TO_WORKER_UNKNOWN);
	else if (may_pass_absent(relevant))
		return pass(PASSED_ABSENT);
	else
		count(DROP_ABSENT);
	return action;
}

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	__u32 interface = ctx->ingress_ifindex;
	const struct port *port = bpf_map_lookup_elem(&ports, &interface);
	struct packet packet = {};
	bool icmp_error, maybe_tcp;
	int parsed;

	if (!port)
		return XDP_PASS;
	packet.key.port = port->index;
	packet.length = bpf_xdp_get_buff_len(ctx);
	parsed = parse_xdp(ctx, &packet);
	if (parsed == UNFRAMED)
		return drop(packet.tags ? DROP_VLAN : DROP_UNPARSABLE);
	if (parsed == NOT_IP)
		return pass(PASS);
	if (parsed == TRUNCATED)
		return drop(DROP_UNPARSABLE);

	if (packet.protocol == IPPROTO_ICMPV6 && packet.icmp >= 133 && packet.icmp <= 137)
		return pass(PASS);
	if (!bind(port->side, &packet))
		return drop(DROP_SPOOFED);

	icmp_error = is_icmp_error(packet.protocol, packet.icmp);
	maybe_tcp = packet.protocol == IPPROTO_TCP || icmp_error || (parsed == BROKEN && packet.protocol == 0);
	if (maybe_tcp && (parsed != PARSED || packet.tags > 1) && shielded(&packet))
		return drop(packet.tags > 1 ? DROP_VLAN : parsed == FRAGMENT ? DROP_FRAGMENT : DROP_UNPARSABLE);
	if (parsed != PARSED)
		return pass(PASS);
	if (icmp_error && quotes_flow(ctx, &packet))
		return to_worker(ctx, &packet, TO_WORKER_ICMP);
	if (packet.protocol != IPPROTO_TCP)
		return pass(PASS);

	if (bpf_map_lookup_elem(&flows, &packet.key))
		return to_worker(ctx, &packet, TO_WORKER_FLOW);
	return opens(&packet) ? syn(ctx, &packet) : unknown(ctx, &packet);
}

/* Does MUTUAL protect this destination? A port under DISABLE stays out of a guarded address. */
__noinline bool protects(const struct tuple *tuple)
{
	struct guarded_key key = {};
	struct capture_key exact = { .set = SCOPE_INBOUND };
	const struct capture *capture;

	if (!tuple)
		return true;
	key.destination = tuple->destination;
	key.destination_port = tuple->destination_port;
	if (bpf_map_lookup_elem(&guarded, &key))
		return true;
	key.destination_port = 0;
	if (!bpf_map_lookup_elem(&guarded, &key))
		return false;
	exact.destination = tuple->destination;
	exact.destination_port = tuple->destination_port;
	capture = bpf_map_lookup_elem(&captures, &exact);
	return !capture || capture->action != ACTION_LEAVE;
}

static __always_inline int refuse(void)
{
	count(GUARD_DROP);
	return TC_ACT_SHOT;
}

/* Steering is not enforcement: packets also come by a second NIC, a tunnel, a process of the node.
 * Nothing that the kernel itself sends to a workload may open a connection that MUTUAL protects:
 * no SYN, no fragment of TCP, nothing that cannot be read. Our own frames leave by AF_XDP, which
 * does not come by here.
 */
SEC("tc")
int guard(struct __sk_buff *skb)
{
	struct match as_server = {}, as_client = {};
	struct packet packet = { .length = skb->len };
	__u32 linear = (void *)(long)skb->data_end - (void *)(long)skb->data;
	int parsed;

	if (linear < 256 && linear < skb->len)
		bpf_skb_pull_data(skb, skb->len < 256 ? skb->len : 256);
	parsed = parse_skb(skb, &packet);
	if (parsed == NOT_IP)
		return TC_ACT_OK;
	if (parsed == UNFRAMED || parsed == TRUNCATED)
		return refuse();
	if (packet.protocol != IPPROTO_TCP && (parsed != BROKEN || packet.protocol))
		return TC_ACT_OK;
	if (parsed != PARSED)
		return known_address(SCOPE_GUARDED, &packet.key.tuple.destination) ? refuse() : TC_ACT_OK;
	if (!opens(&packet))
		return TC_ACT_OK;
	if (protects(&packet.key.tuple))
		return refuse();
	/* A caller on the node itself never came by the steering program: note its SYN here. */
	if (ask_both(&packet.key.tuple, bound_set(&packet.key.tuple.source), &as_server, &as_client))
		remember(&packet.key.tuple);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Apache-2.0";
