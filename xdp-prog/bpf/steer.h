/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of the maps, shared by the programs and by src/maps.rs, which writes the same bytes.
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; addresses and TCP ports are in network byte
 * order, everything else in the host's. No structure has padding that is not named, since a map's
 * key is compared byte by byte. Raise LAYOUT with every change here.
 */
#ifndef STEER_H
#define STEER_H

#define LAYOUT 3

#define MAX_PORTS 256
#define MAX_QUEUES 64 /* of one port; `xsks` is indexed by port index * MAX_QUEUES + rx queue */
#define MAX_CAPTURES 65536
#define MAX_SOURCES 65536
#define MAX_DENIED 16384
#define MAX_PASSED 65536
#define MAX_BYPASSES 65536

/* Stand where an outbound workload set would: who is asked about. */
#define SCOPE_INBOUND 0xffffffffU
#define SCOPE_GUARDED 0xfffffffeU

#define SIDE_INSIDE 0
#define SIDE_OUTSIDE 1

#define ACTION_TAKE 0
#define ACTION_LEAVE 1

struct settings {
	__u32 layout;
	__u32 on_absent_pass;
	__u64 grace; /* nanoseconds */
};

struct port { /* by interface index */
	__u16 index;
	__u8 side;
	__u8 zero;
};

struct address { /* words, so that it is not copied byte by byte */
	__be32 words[4];
};

struct tuple { /* as in the packet, not normalised */
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
};

struct flow_key {
	struct tuple tuple;
	__u16 port;
	__u16 zero;
};

struct source { /* by address */
	__u32 set;
	__u16 port;
	__u16 mac[3]; /* all zero: any */
};

struct source_prefix_key {
	__u32 length; /* 32 for `port` and 96 for ::ffff: count */
	__u32 port;
	struct address address;
};

struct prefix_key {
	__u32 length;
	struct address address;
};

struct capture_key {
	__u32 set; /* of the caller, or SCOPE_INBOUND */
	struct address destination; /* outbound only: all zero is any */
	__be16 destination_port; /* 0: any */
	__u16 zero;
};

struct capture {
	__u64 since; /* CLOCK_BOOTTIME, nanoseconds */
	__u8 action;
	__u8 guarded; /* MUTUAL: never let through by on_absent_pass */
	__u8 zero[6];
};

struct address_key {
	__u32 scope; /* a set, SCOPE_INBOUND or SCOPE_GUARDED */
	struct address address;
};

struct guarded_key {
	struct address destination;
	__be16 destination_port; /* 0: any */
	__u16 zero;
};

struct bypass_key { /* exact: who may open a plain connection to what is guarded */
	struct address source;
	struct address destination;
	__be16 destination_port;
	__u16 zero;
};

/* One counter an outcome; names in src/maps.rs, in this order (a test compares them). */
enum outcome {
	PASS, /* not ours: other protocols, destinations that nothing captures */
	PASSED_UNMATCHED, /* SYN of a workload with an identity that no capture matched */
	PASSED_ABSENT, /* captured, no worker, on_absent_pass and not protected */
	PRE_EXISTING, /* older than its capture, still in the grace */
	PASSED_BYPASS, /* a protected port's answer to a call of the node itself that bypasses it */
	TO_WORKER_FLOW,
	TO_WORKER_SYN,
	TO_WORKER_UNKNOWN,
	TO_WORKER_ICMP,
	DROP_FRAGMENT,
	DROP_UNPARSABLE,
	DROP_SPOOFED,
	DROP_DENIED,
	DROP_ABSENT, /* the queue has no socket */
	DROP_VLAN, /* more than one tag */
	GUARD_DROP,
	SHIELD_DROP, /* steering would have had it, and has not seen it */
	GUARD_BYPASS, /* a SYN of the node itself to a protected port that it may bypass */
	OUTCOMES,
};

#endif
