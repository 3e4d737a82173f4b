/* SPDX-License-Identifier: Apache-2.0 */
/* The steering program (XDP, ingress of every port), the shield behind it (tc, ingress of every port)
 * and the guard (tc, egress of inside ports).
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
 * The shield drops what steering should have had and never saw, the guard is a second lock on the
 * workload's door: see shield() and guard() below.
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
#include "decide.h"

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

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	__u32 interface = ctx->ingress_ifindex;
	const struct port *port = bpf_map_lookup_elem(&ports, &interface);
	struct packet packet = {};
	struct match whose = {};
	int action, parsed;
	__u32 outcome;

	if (!port)
		return XDP_PASS;
	packet.key.port = port->index;
	packet.length = bpf_xdp_get_buff_len(ctx);
	parsed = parse_xdp(ctx, &packet);
	outcome = screen(&packet, parsed, port->side);
	if (outcome != GO_ON)
		return is_drop(outcome) ? drop(outcome) : pass(outcome);
	if (is_icmp_error(packet.protocol, packet.icmp) && quotes_flow(ctx, &packet))
		return to_worker(ctx, &packet, TO_WORKER_ICMP);
	if (packet.protocol != IPPROTO_TCP)
		return pass(PASS);
	if (bpf_map_lookup_elem(&flows, &packet.key))
		return to_worker(ctx, &packet, TO_WORKER_FLOW);

	outcome = opens(&packet) ? claim_syn(&packet, &whose) : claim_unknown(&packet, &whose);
	if (is_drop(outcome))
		return drop(outcome);
	if (is_for_worker(outcome)) {
		action = redirect(ctx, &packet);
		if (action == XDP_REDIRECT) {
			count(outcome);
			return action;
		}
		if (!may_pass_absent(&whose))
			return drop(DROP_ABSENT);
		outcome = PASSED_ABSENT;
	}
	let_go(&packet, &whose);
	return pass(outcome);
}

static __always_inline int refuse(__u32 outcome)
{
	count(outcome);
	return TC_ACT_SHOT;
}

/* Headers lie in the linear part from here on, as far as we follow them. */
static __always_inline void pull(struct __sk_buff *skb)
{
	__u32 linear = (void *)(long)skb->data_end - (void *)(long)skb->data;

	if (linear < 256 && linear < skb->len)
		bpf_skb_pull_data(skb, skb->len < 256 ? skb->len : 256);
}

/* Packets get past XDP. In generic mode all that tc or nft redirected into the interface
 * (skb_is_redirected() in net/core/dev.c), in native mode what the driver does not hand over itself:
 * bpf_redirect_peer() and redirects to ingress. All that steering lets by comes past here as well, and
 * what it takes or drops never does: so what it would have taken or dropped has not met it, and is
 * dropped.
 *
 * It is no wall in generic mode. A packet that an IFB device sent on is marked to skip tc once
 * (tc_skip_classify), and who may make such a device beyond the port can redirect it here. And filters
 * that stand before this one decide for themselves.
 *
 * UNSPEC, not OK, which would end the list for those behind.
 */
SEC("tc")
int shield(struct __sk_buff *skb)
{
	__u32 interface = skb->ifindex, slot, outcome;
	const struct port *port = bpf_map_lookup_elem(&ports, &interface);
	struct packet packet = { .length = skb->len };
	struct match whose = {};
	int parsed;

	if (!port)
		return TC_ACT_UNSPEC;
	packet.key.port = port->index;
	packet.tags = skb->vlan_present; /* the kernel has taken the first one out */
	pull(skb);
	parsed = parse_skb(skb, &packet);
	outcome = screen(&packet, parsed, port->side);
	if (outcome != GO_ON)
		return is_drop(outcome) ? refuse(SHIELD_DROP) : TC_ACT_UNSPEC;
	if (is_icmp_error(packet.protocol, packet.icmp) && quotes_flow_skb(skb, &packet))
		return refuse(SHIELD_DROP);
	if (packet.protocol != IPPROTO_TCP)
		return TC_ACT_UNSPEC;
	if (bpf_map_lookup_elem(&flows, &packet.key))
		return refuse(SHIELD_DROP);

	outcome = opens(&packet) ? claim_syn(&packet, &whose) : claim_unknown(&packet, &whose);
	/* Which queue it came by is the sender's choice here; where there is a worker, the first has one. */
	slot = packet.key.port * MAX_QUEUES;
	if (is_drop(outcome) ||
	    (is_for_worker(outcome) && (!may_pass_absent(&whose) || bpf_map_lookup_elem(&xsks, &slot))))
		return refuse(SHIELD_DROP);
	let_go(&packet, &whose);
	return TC_ACT_UNSPEC;
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

/* Steering is not enforcement: packets also come by a second NIC, a tunnel, a process of the node.
 * Nothing that the kernel itself sends to a workload may open a connection that MUTUAL protects:
 * no SYN, no fragment of TCP, nothing that cannot be read, but a SYN of the node's own processes from
 * an address to a port that `bypasses` has: a kubelet's probe. Our own frames leave by AF_XDP, which
 * does not come by here.
 */
SEC("tc")
int guard(struct __sk_buff *skb)
{
	struct match as_server = {}, as_client = {};
	struct packet packet = { .length = skb->len };
	__u64 *syns;
	int parsed;

	pull(skb);
	parsed = parse_skb(skb, &packet);
	if (parsed == NOT_IP)
		return TC_ACT_UNSPEC;
	if (parsed == UNFRAMED || parsed == TRUNCATED)
		return refuse(GUARD_DROP);
	if (packet.protocol != IPPROTO_TCP && (parsed != BROKEN || packet.protocol))
		return TC_ACT_UNSPEC;
	if (parsed != PARSED)
		return known_address(SCOPE_GUARDED, &packet.key.tuple.destination) ? refuse(GUARD_DROP) : TC_ACT_UNSPEC;
	if (!opens(&packet))
		return TC_ACT_UNSPEC;
	if (protects(&packet.key.tuple)) {
		/* Of the node's own processes alone: what is forwarded says who it is by an address that
		 * anybody on the way could have written.
		 */
		syns = skb->ingress_ifindex ? NULL : bypassing(&packet.key.tuple);
		if (!syns)
			return refuse(GUARD_DROP);
		__sync_fetch_and_add(syns, 1);
		count(GUARD_BYPASS);
		remember(&packet.key.tuple);
		return TC_ACT_UNSPEC;
	}
	/* A caller on the node itself never came by the steering program: note its SYN here. */
	if (ask_both(&packet.key.tuple, bound_set(&packet.key.tuple.source), &as_server, &as_client))
		remember(&packet.key.tuple);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Apache-2.0";
