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
static __always_inline int redirect(struct xdp_md *ctx, const struct port *port)
{
	__u32 queue = ctx->rx_queue_index;

	if (queue >= MAX_QUEUES)
		return XDP_DROP;
	return bpf_redirect_map(&xsks, port->index * MAX_QUEUES + queue, XDP_DROP);
}

static __always_inline int to_worker(struct xdp_md *ctx, const struct port *port, __u32 outcome)
{
	int action = redirect(ctx, port);

	count(action == XDP_REDIRECT ? outcome : DROP_ABSENT);
	return action;
}

static __always_inline bool may_pass_absent(const struct match *match)
{
	const struct settings *s = setting();

	return s && s->on_absent_pass && !match->guarded;
}

/* Step 4. False if the packet is spoofed. */
static __always_inline bool bind(const struct port *port, const struct packet *packet, __u32 *set)
{
	const struct source *source = binding(packet->key.tuple.source);
	const __u16 *bound, *seen;

	if (port->side == SIDE_OUTSIDE) {
		*set = NO_SET;
		return !source;
	}
	*set = 0;
	if (source) {
		if (source->port != port->index)
			return false;
	} else {
		struct source_prefix_key key = { .length = 32 + 128, .port = port->index };

		__builtin_memcpy(key.address, packet->key.tuple.source, 16);
		source = bpf_map_lookup_elem(&source_prefixes, &key);
		if (!source)
			return true;
	}
	*set = source->set;
	bound = (const __u16 *)source->mac;
	seen = (const __u16 *)packet->mac;
	return !(bound[0] | bound[1] | bound[2]) ||
	       !((bound[0] ^ seen[0]) | (bound[1] ^ seen[1]) | (bound[2] ^ seen[2]));
}

/* Is either end an address that TCP must not reach or leave without us seeing its ports? */
static __noinline bool shielded(const struct packet *packet, __u32 set)
{
	__u8 any[16] = {};

	if (!packet)
		return false;
	/* A bound address is a workload's: no packet without ports may be put into its streams. */
	if (known_address(SCOPE_INBOUND, packet->key.tuple.destination) || binding(packet->key.tuple.destination))
		return true;
	if (set == NO_SET)
		return false;
	return known_address(set, packet->key.tuple.destination) || known_address(set, any) ||
	       known_address(SCOPE_INBOUND, packet->key.tuple.source);
}

/* Step 6: the tuple that the error quotes is of a segment that we sent, so the flow's own segments
 * have it reversed. A quote of anything else is not about us.
 */
static __always_inline bool quotes_flow(const struct view *view, const struct packet *packet)
{
	struct packet quoted = {};
	struct flow_key key = { .port = packet->key.port };
	/* The quote is cut short by whoever sent it: its lengths are not held against it. */
	struct view quote = { .data = view->data, .end = view->end, .length = ~0ULL };
	bool v4 = packet->protocol == IPPROTO_ICMP;
	const __be16 *tcp_ports;

	if (network(&quote, &quoted, packet->transport + 8, bpf_htons(v4 ? ETH_P_IP : ETH_P_IPV6)) == TRUNCATED)
		return false;
	if (quoted.protocol != IPPROTO_TCP || quoted.later || !quoted.transport)
		return false;
	tcp_ports = at(view, quoted.transport, 4);
	if (!tcp_ports)
		return false;
	quoted.key.tuple.source_port = tcp_ports[0];
	quoted.key.tuple.destination_port = tcp_ports[1];
	reversed(&key.tuple, &quoted.key.tuple);
	return bpf_map_lookup_elem(&flows, &key) != NULL;
}

/* Asks both ends: `as_server` for the destination as the server, `as_client` for the source. */
static __always_inline void ask_both(const struct tuple *tuple, __u32 set, struct match *as_server,
				     struct match *as_client)
{
	__u32 back = bound_set(tuple->destination);

	ask_server(set, tuple->destination, tuple->destination_port, as_server);
	/* What comes from outside with a workload's source address did not get past step 4. */
	if (set != NO_SET)
		ask(SCOPE_INBOUND, tuple->source, tuple->source_port, as_client);
	if (back != NO_SET) {
		__u8 any[16] = {};

		if (!ask(back, tuple->source, tuple->source_port, as_client))
			ask(back, any, tuple->source_port, as_client);
	}
}

/* Step 9. */
static __noinline int syn(struct xdp_md *ctx, const struct port *port, const struct packet *packet, __u32 set)
{
	struct prefix_key source = { .length = 128 };
	struct match as_server = {}, as_client = {};
	__u32 outcome = PASS;

	if (!port || !packet)
		return XDP_DROP;
	__builtin_memcpy(source.address, packet->key.tuple.source, 16);
	if (bpf_map_lookup_elem(&denied, &source))
		return drop(DROP_DENIED);
	ask_both(&packet->key.tuple, set, &as_server, &as_client);
	if (as_server.take) {
		int action = redirect(ctx, port);

		if (action == XDP_REDIRECT) {
			count(TO_WORKER_SYN);
			return action;
		}
		if (!may_pass_absent(&as_server))
			return drop(DROP_ABSENT);
		outcome = PASSED_ABSENT;
	} else if (set != NO_SET && set != 0) {
		outcome = PASSED_UNMATCHED;
	}
	remember(&packet->key.tuple, &as_server, &as_client);
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
static __noinline int unknown(struct xdp_md *ctx, const struct port *port, const struct packet *packet, __u32 set)
{
	struct match as_server = {}, as_client = {}, *relevant;
	const struct settings *s = setting();
	struct tuple back = {};
	const __u64 *when;
	int action;

	if (!port || !packet || !s)
		return XDP_DROP;
	ask_both(&packet->key.tuple, set, &as_server, &as_client);
	if ((!as_server.take && !as_client.take) || as_server.left || as_client.left)
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
	action = redirect(ctx, port);
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
	struct view view = { .data = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end };
	struct packet packet = {};
	__u32 interface = ctx->ingress_ifindex;
	const struct port *port = bpf_map_lookup_elem(&ports, &interface);
	const __u8 *icmp = NULL;
	bool maybe_tcp;
	enum parsed parsed;
	__be16 protocol = 0;
	__u64 offset;
	__u32 set;

	if (!port)
		return XDP_PASS;
	view.length = bpf_xdp_get_buff_len(ctx);
	packet.key.port = port->index;
	offset = ethernet(&view, &packet, &protocol);
	if (!offset)
		return drop(packet.tags ? DROP_VLAN : DROP_UNPARSABLE);
	parsed = network(&view, &packet, offset, protocol);
	if (parsed == NOT_IP)
		return pass(PASS);
	if (parsed == TRUNCATED)
		return drop(DROP_UNPARSABLE);

	if ((packet.protocol == IPPROTO_ICMP || packet.protocol == IPPROTO_ICMPV6) && !packet.later &&
	    parsed != BROKEN)
		icmp = at(&view, packet.transport, 1);
	if (packet.protocol == IPPROTO_ICMPV6 && icmp && *icmp >= 133 && *icmp <= 137)
		return pass(PASS);
	if (!bind(port, &packet, &set))
		return drop(DROP_SPOOFED);

	maybe_tcp = packet.protocol == IPPROTO_TCP || (icmp && is_icmp_error(packet.protocol, *icmp)) ||
		    (parsed == BROKEN && packet.protocol == 0);
	if (packet.protocol == IPPROTO_TCP && parsed == PARSED)
		parsed = tcp(&view, &packet);
	if (maybe_tcp && (parsed != PARSED || packet.tags > 1) && shielded(&packet, set))
		return drop(packet.tags > 1 ? DROP_VLAN : parsed == FRAGMENT ? DROP_FRAGMENT : DROP_UNPARSABLE);
	if (parsed != PARSED)
		return pass(PASS);
	if (icmp && is_icmp_error(packet.protocol, *icmp) && quotes_flow(&view, &packet))
		return to_worker(ctx, port, TO_WORKER_ICMP);
	if (packet.protocol != IPPROTO_TCP)
		return pass(PASS);

	if (bpf_map_lookup_elem(&flows, &packet.key))
		return to_worker(ctx, port, TO_WORKER_FLOW);
	return opens(&packet) ? syn(ctx, port, &packet, set) : unknown(ctx, port, &packet, set);
}

/* Does MUTUAL protect this destination? A port under DISABLE stays out of a guarded address. */
static __noinline bool protects(const struct tuple *tuple)
{
	struct guarded_key key = {};
	struct capture_key exact = { .set = SCOPE_INBOUND };
	const struct capture *capture;

	if (!tuple)
		return true;
	__builtin_memcpy(key.destination, tuple->destination, 16);
	key.destination_port = tuple->destination_port;
	if (bpf_map_lookup_elem(&guarded, &key))
		return true;
	key.destination_port = 0;
	if (!bpf_map_lookup_elem(&guarded, &key))
		return false;
	__builtin_memcpy(exact.destination, tuple->destination, 16);
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
	struct view view = { .data = (void *)(long)skb->data, .end = (void *)(long)skb->data_end, .length = skb->len };
	struct match as_server = {}, as_client = {};
	struct packet packet = {};
	enum parsed parsed;
	__be16 protocol = 0;
	__u64 offset;

	if (view.data + 256 > view.end && skb->len > view.end - view.data) {
		bpf_skb_pull_data(skb, skb->len < 256 ? skb->len : 256);
		view.data = (void *)(long)skb->data;
		view.end = (void *)(long)skb->data_end;
	}
	offset = ethernet(&view, &packet, &protocol);
	if (!offset)
		return refuse();
	parsed = network(&view, &packet, offset, protocol);
	if (parsed == NOT_IP)
		return TC_ACT_OK;
	if (parsed == TRUNCATED)
		return refuse();
	if (packet.protocol != IPPROTO_TCP && (parsed != BROKEN || packet.protocol))
		return TC_ACT_OK;
	if (parsed == PARSED)
		parsed = tcp(&view, &packet);
	if (parsed != PARSED)
		return known_address(SCOPE_GUARDED, packet.key.tuple.destination) ? refuse() : TC_ACT_OK;
	if (!opens(&packet))
		return TC_ACT_OK;
	if (protects(&packet.key.tuple))
		return refuse();
	/* A caller on the node itself never came by the steering program: note its SYN here. */
	ask_both(&packet.key.tuple, bound_set(packet.key.tuple.source), &as_server, &as_client);
	remember(&packet.key.tuple, &as_server, &as_client);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Apache-2.0";
