/* SPDX-License-Identifier: Apache-2.0 */
/* Ethernet, IPv4 and IPv6 down to the transport header, for both programs.
 *
 * Only the linear part of the frame is read. A header that is not there cannot be parsed, and the
 * caller decides what that means: towards something captured it is a drop, never a pass.
 *
 * The verifier walks every path through a program, and paths that meet with different knowledge
 * multiply. What it knows of memory behind a pointer argument of a global function is nothing, so
 * each program parses in global functions, and `struct packet` carries everything from one step to
 * the next: stored, barrier(), loaded again, all paths are one. tests/verifier.rs holds the cost.
 */
#ifndef PARSE_H
#define PARSE_H

#define MAX_TAGS 4
#define MAX_EXTENSIONS 8
#define MAX_OFFSET 2048 /* headers further in than this are not followed */

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_DESTINATION 60
#define NEXT_MOBILITY 135
#define NEXT_HIP 139
#define NEXT_SHIM6 140

struct view {
	void *data;
	void *end;
};

/* Of a context; taken anew after a barrier, the verifier has no ranges to compare. */
#define VIEW(ctx) ((struct view){ .data = (void *)(long)(ctx)->data, .end = (void *)(long)(ctx)->data_end })

enum parsed {
	PARSED,
	UNFRAMED, /* not even a network header: cut short, or more tags than we follow */
	NOT_IP,
	TRUNCATED, /* not even addresses */
	BROKEN, /* addresses, but no transport header */
	FRAGMENT,
};

struct packet {
	struct flow_key key; /* TCP ports are filled in by tcp() */
	__u64 transport; /* offset of the transport header, or how far we are */
	__u64 end; /* offset of the first byte after the IP packet */
	__u64 length; /* of the whole frame, linear or not: no packet may end after it */
	__u32 set; /* of the caller: bind() */
	__u16 mac[3]; /* source */
	__be16 ethertype;
	__u8 next; /* type of the header at `transport` */
	__u8 protocol; /* 0 if an extension header hides it */
	__u8 fragment;
	__u8 later; /* a fragment that is not the first */
	__u8 tags;
	__u8 flags; /* of TCP */
	__u8 icmp; /* its type; 0, an echo reply or none, is nothing to us */
	__u8 zero[5];
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_ACK 0x10

static __always_inline void *at(const struct view *view, __u64 offset, __u64 length)
{
	void *start;

	if (offset > MAX_OFFSET)
		return NULL;
	start = view->data + offset;
	return start + length > view->end ? NULL : start;
}

static __always_inline void mapped(struct address *address, __be32 v4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xffff);
	address->words[3] = v4;
}

static __always_inline bool is_tag(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* Sets `transport` to the network header. False if there are more tags than we follow or no header. */
static __always_inline bool ethernet(const struct view *view, struct packet *packet)
{
	const struct ethhdr *header = at(view, 0, sizeof(*header));
	__u64 offset = sizeof(*header);
	__be16 ethertype;

	if (!header)
		return false;
	__builtin_memcpy(packet->mac, header->h_source, 6);
	ethertype = header->h_proto;
	for (int i = 0; i < MAX_TAGS && is_tag(ethertype); i++) {
		const __be16 *tag = at(view, offset, 4);

		if (!tag)
			return false;
		ethertype = tag[1];
		offset += 4;
		packet->tags++;
	}
	packet->ethertype = ethertype;
	packet->transport = offset;
	return !is_tag(ethertype);
}

static __always_inline enum parsed ipv4(const struct view *view, struct packet *packet)
{
	__u64 length, total, offset = packet->transport;
	const struct iphdr *header = at(view, offset, sizeof(*header));

	if (!header)
		return TRUNCATED;
	mapped(&packet->key.tuple.source, header->saddr);
	mapped(&packet->key.tuple.destination, header->daddr);
	packet->protocol = header->protocol;
	length = header->ihl * 4;
	total = bpf_ntohs(header->tot_len);
	packet->transport = offset + length;
	packet->end = offset + total;
	if (header->version != 4 || length < sizeof(*header) || total < length || packet->end > packet->length)
		return BROKEN;
	packet->later = (header->frag_off & bpf_htons(0x1fff)) != 0;
	return header->frag_off & bpf_htons(0x3fff) ? FRAGMENT : PARSED;
}

static __always_inline bool is_extension(__u8 next)
{
	switch (next) {
	case NEXT_HOP_BY_HOP:
	case NEXT_ROUTING:
	case NEXT_DESTINATION:
	case NEXT_MOBILITY:
	case NEXT_HIP:
	case NEXT_SHIM6:
	case NEXT_AUTHENTICATION:
	case NEXT_FRAGMENT:
		return true;
	default:
		return false;
	}
}

/* From one extension header to the next. False if it is not there. */
static __always_inline bool follow(const struct view *view, struct packet *packet)
{
	const __u8 *extension = at(view, packet->transport, 8);
	__u64 length;

	if (!extension)
		return false;
	if (packet->next == NEXT_FRAGMENT) {
		/* RFC 8200 4.5: the first fragment says what the packet is. Atomic fragments
		 * (RFC 6946) count as fragments: nobody sends TCP in them.
		 */
		packet->fragment = 1;
		packet->later = ((extension[2] << 8) | extension[3]) >> 3 != 0;
		length = 8;
	} else if (packet->next == NEXT_AUTHENTICATION) {
		length = (extension[1] + 2) * 4;
	} else {
		length = (extension[1] + 1) * 8;
	}
	packet->transport += length;
	packet->next = extension[0];
	return true;
}

static __always_inline enum parsed ipv6(const struct view *view, struct packet *packet)
{
	const struct ipv6hdr *header = at(view, packet->transport, sizeof(*header));

	if (!header)
		return TRUNCATED;
	__builtin_memcpy(&packet->key.tuple.source, &header->saddr, 16);
	__builtin_memcpy(&packet->key.tuple.destination, &header->daddr, 16);
	packet->transport += sizeof(*header);
	packet->end = packet->transport + bpf_ntohs(header->payload_len);
	if (header->version != 6 || packet->end > packet->length)
		return BROKEN;
	packet->next = header->nexthdr;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (!is_extension(packet->next)) {
			packet->protocol = packet->next;
			return packet->fragment ? FRAGMENT : PARSED;
		}
		if (!follow(view, packet))
			return BROKEN;
		barrier();
		if (packet->later) { /* what follows is payload, whatever its type */
			packet->protocol = packet->next;
			return FRAGMENT;
		}
	}
	return BROKEN;
}

static __always_inline enum parsed network(const struct view *view, struct packet *packet)
{
	if (packet->ethertype == bpf_htons(ETH_P_IP))
		return ipv4(view, packet);
	if (packet->ethertype == bpf_htons(ETH_P_IPV6))
		return ipv6(view, packet);
	return NOT_IP;
}

static __always_inline enum parsed tcp(const struct view *view, struct packet *packet)
{
	const struct tcphdr *header = at(view, packet->transport, sizeof(*header));

	if (!header || header->doff < 5 || packet->transport + header->doff * 4 > packet->end)
		return BROKEN;
	packet->key.tuple.source_port = header->source;
	packet->key.tuple.destination_port = header->dest;
	packet->flags = ((const __u8 *)header)[13];
	return PARSED;
}

/* What is behind the network header, as far as we care. */
static __always_inline enum parsed transport(const struct view *view, struct packet *packet, enum parsed parsed)
{
	if (packet->protocol == IPPROTO_TCP && parsed == PARSED)
		return tcp(view, packet);
	if ((packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6) && !packet->later &&
	    parsed != BROKEN) {
		const __u8 *type = at(view, packet->transport, 1);

		if (type)
			packet->icmp = *type;
	}
	return parsed;
}

/* A frame from its first byte, for the steering program and for those on tc. */
__noinline int parse_xdp(struct xdp_md *ctx, struct packet *packet)
{
	struct view view = VIEW(ctx);

	if (!packet || !ethernet(&view, packet))
		return UNFRAMED;
	barrier();
	view = VIEW(ctx);
	return transport(&view, packet, network(&view, packet));
}

__noinline int parse_skb(struct __sk_buff *ctx, struct packet *packet)
{
	struct view view = VIEW(ctx);

	if (!packet || !ethernet(&view, packet))
		return UNFRAMED;
	barrier();
	view = VIEW(ctx);
	return transport(&view, packet, network(&view, packet));
}

/* The packet that an ICMP error quotes: `ethertype` and `transport` say where it is. Of its transport
 * header only TCP's ports need be there. False if it has none.
 */
static __always_inline bool quote(const struct view *view, struct packet *packet)
{
	const __be16 *tcp_ports;

	if (network(view, packet) == TRUNCATED || packet->protocol != IPPROTO_TCP || packet->later)
		return false;
	tcp_ports = at(view, packet->transport, 4);
	if (!tcp_ports)
		return false;
	packet->key.tuple.source_port = tcp_ports[0];
	packet->key.tuple.destination_port = tcp_ports[1];
	return true;
}

__noinline bool quote_xdp(struct xdp_md *ctx, struct packet *packet)
{
	struct view view = VIEW(ctx);

	return packet && quote(&view, packet);
}

__noinline bool quote_skb(struct __sk_buff *ctx, struct packet *packet)
{
	struct view view = VIEW(ctx);

	return packet && quote(&view, packet);
}

/* A SYN that opens a connection; the kernel's listeners see it the same way. */
static __always_inline bool opens(const struct packet *packet)
{
	return (packet->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* ICMP errors that TCP would act on: RFC 792 and RFC 4443. */
static __always_inline bool is_icmp_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == 3 || type == 11 || type == 12;
	return protocol == IPPROTO_ICMPV6 && type >= 1 && type <= 4;
}

#endif
