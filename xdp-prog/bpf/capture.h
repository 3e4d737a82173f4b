/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a connection is captured, asked of one of its ends at a time.
 *
 * The most specific entry wins, so that a port under DISABLE stays out of a capture of the whole
 * address: (address, port), (address, any), and for outbound (any, port), (any, any).
 */
#ifndef CAPTURE_H
#define CAPTURE_H

#define NO_SET SCOPE_INBOUND /* the caller is not behind an inside port of ours */

struct match {
	__u64 since; /* of the oldest capture that matched */
	__u8 take;
	__u8 guarded;
	__u8 left; /* one end is a port that is declared not to be ours */
};

static __always_inline bool known_address(__u32 scope, const __u8 *address)
{
	struct address_key key = { .scope = scope };

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&addresses, &key) != NULL;
}

static __always_inline const struct source *binding(const __u8 *address)
{
	return bpf_map_lookup_elem(&sources, address);
}

/* True if an entry decided, whichever way. */
static __noinline bool ask(__u32 set, const __u8 *address, __be16 port, struct match *match)
{
	struct capture_key key = { .set = set };
	const struct capture *capture;

	if (!address || !match)
		return false;
	if (!known_address(set, address))
		return false;
	__builtin_memcpy(key.destination, address, 16);
	key.destination_port = port;
	capture = bpf_map_lookup_elem(&captures, &key);
	if (capture && capture->action == ACTION_LEAVE && set == SCOPE_INBOUND)
		match->left = 1;
	if (!capture) {
		key.destination_port = 0;
		capture = bpf_map_lookup_elem(&captures, &key);
	}
	if (!capture)
		return false;
	if (capture->action != ACTION_TAKE)
		return true;
	if (!match->take || capture->since < match->since)
		match->since = capture->since;
	match->take = 1;
	match->guarded |= capture->guarded;
	return true;
}

/* Would a SYN of a caller in `set` to this destination be taken? */
static __noinline void ask_server(__u32 set, const __u8 *address, __be16 port, struct match *match)
{
	__u8 any[16] = {};

	if (!address || !match)
		return;
	ask(SCOPE_INBOUND, address, port, match);
	if (set != NO_SET && !ask(set, address, port, match))
		ask(set, any, port, match);
}

/* The set of an address by its exact binding alone: where no port is known to ask a prefix with. */
static __always_inline __u32 bound_set(const __u8 *address)
{
	const struct source *source = binding(address);

	return source ? source->set : NO_SET;
}

static __always_inline void reversed(struct tuple *to, const struct tuple *from)
{
	__builtin_memcpy(to->source, from->destination, 16);
	__builtin_memcpy(to->destination, from->source, 16);
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
}

/* A SYN goes past us. If segments of its connection would look like ones of a captured connection
 * (a reply to the ephemeral port of a workload whose every port is captured, say), it is noted that
 * we let it through, and when.
 */
static __always_inline void remember(const struct tuple *tuple, const struct match *as_server,
				     const struct match *as_client)
{
	__u64 now;

	if (!as_server->take && !as_client->take)
		return;
	now = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&passed, tuple, &now, BPF_ANY);
}

#endif
