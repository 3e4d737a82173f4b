/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a connection is captured, asked of one of its ends at a time.
 *
 * The most specific entry wins, so that a port under DISABLE stays out of a capture of the whole
 * address: (address, port), (address, any), and for outbound (any, port), (any, any).
 *
 * Global functions, as in parse.h: the verifier walks each once, not once for each caller.
 */
#ifndef CAPTURE_H
#define CAPTURE_H

#define NO_SET SCOPE_INBOUND /* the caller is not behind an inside port of ours */

struct match {
	__u64 since; /* of the oldest capture that matched */
	__u8 take;
	__u8 guarded;
	__u8 left; /* one end is a port that is declared not to be ours */
	__u8 either; /* of a SYN: one of its ends is captured */
	__u8 zero[4];
};

static __always_inline bool known_address(__u32 scope, const struct address *address)
{
	struct address_key key = { .scope = scope, .address = *address };

	return bpf_map_lookup_elem(&addresses, &key) != NULL;
}

static __always_inline const struct source *binding(const struct address *address)
{
	return bpf_map_lookup_elem(&sources, address);
}

/* True if an entry decided, whichever way. */
__noinline bool ask(__u32 set, const struct address *address, __be16 port, struct match *match)
{
	struct capture_key key = { .set = set };
	const struct capture *capture;

	if (!address || !match)
		return false;
	if (!known_address(set, address))
		return false;
	key.destination = *address;
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
static __always_inline void ask_server(__u32 set, const struct address *address, __be16 port, struct match *match)
{
	struct address any = {};

	ask(SCOPE_INBOUND, address, port, match);
	if (set != NO_SET && !ask(set, address, port, match))
		ask(set, &any, port, match);
}

/* The set of an address by its exact binding alone: where no port is known to ask a prefix with. */
static __always_inline __u32 bound_set(const struct address *address)
{
	const struct source *source = binding(address);

	return source ? source->set : NO_SET;
}

/* Asks both ends: `as_server` for the destination as the server, `as_client` for the source. True if
 * one of them is captured.
 */
__noinline bool ask_both(const struct tuple *tuple, __u32 set, struct match *as_server, struct match *as_client)
{
	struct address any = {};
	__u32 back;

	if (!tuple || !as_server || !as_client)
		return true;
	back = bound_set(&tuple->destination);
	ask_server(set, &tuple->destination, tuple->destination_port, as_server);
	/* What comes from outside with a workload's source address did not get past step 4. */
	if (set != NO_SET)
		ask(SCOPE_INBOUND, &tuple->source, tuple->source_port, as_client);
	if (back != NO_SET && !ask(back, &tuple->source, tuple->source_port, as_client))
		ask(back, &any, tuple->source_port, as_client);
	return as_server->take || as_client->take;
}

static __always_inline void reversed(struct tuple *to, const struct tuple *from)
{
	to->source = from->destination;
	to->destination = from->source;
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
}

/* The count of the entry by which `tuple`, a SYN's, may bypass MUTUAL. */
static __always_inline __u64 *bypassing(const struct tuple *tuple)
{
	struct bypass_key key = {
		.source = tuple->source,
		.destination = tuple->destination,
		.destination_port = tuple->destination_port,
	};

	return bpf_map_lookup_elem(&bypasses, &key);
}

/* A SYN goes past us. If segments of its connection would look like ones of a captured connection
 * (a reply to the ephemeral port of a workload whose every port is captured, say), it is noted that
 * we let it through, and when.
 */
static __always_inline void remember(const struct tuple *tuple)
{
	__u64 now = bpf_ktime_get_boot_ns();

	bpf_map_update_elem(&passed, tuple, &now, BPF_ANY);
}

#endif
