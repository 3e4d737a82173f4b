/* SPDX-License-Identifier: Apache-2.0 */
/* Ethernet, IPv4 and IPv6 down to the transport header, for both programs.
 *
 * Only the linear part of the frame is read. A header that is not there cannot be parsed, and the
 * caller decides what that means: towards something captured it is a drop, never a pass.
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
	__u64 length; /* of the whole frame, linear or not */
};

enum parsed {
	PARSED,
	NOT_IP,
	TRUNCATED, /* not even addresses */
	BROKEN, /* addresses, but no transport header */
	FRAGMENT,
};

struct packet {
	struct flow_key key; /* TCP ports are filled in by tcp() */
	__u64 transport; /* offset of the transport header */
	__u64 end; /* offset of the first byte after the IP packet */
	__u8 mac[6]; /* source */
	__u8 protocol; /* 0 if an extension header hides it */
	__u8 later; /* a fragment that is not the first */
	__u8 tags;
	__u8 flags; /* of TCP */
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

static __always_inline void mapped(__u8 *address, __be32 v4)
{
	__u32 *words = (__u32 *)address;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = v4;
}

/* Returns the offset of the network header, 0 if there are more tags than we follow or no header. */
static __always_inline __u64 ethernet(const struct view *view, struct packet *packet, __be16 *protocol)
{
	const struct ethhdr *header = at(view, 0, sizeof(*header));
	__u64 offset = sizeof(*header);

	if (!header)
		return 0;
	__builtin_memcpy(packet->mac, header->h_source, 6);
	*protocol = header->h_proto;
	for (int i = 0; i < MAX_TAGS; i++) {
		const __be16 *tag;

		if (*protocol != bpf_htons(ETH_P_8021Q) && *protocol != bpf_htons(ETH_P_8021AD))
			return offset;
		tag = at(view, offset, 4);
		if (!tag)
			return 0;
		*protocol = tag[1];
		offset += 4;
		packet->tags++;
	}
	return *protocol == bpf_htons(ETH_P_8021Q) || *protocol == bpf_htons(ETH_P_8021AD) ? 0 : offset;
}

static __always_inline enum parsed ipv4(const struct view *view, struct packet *packet, __u64 offset)
{
	const struct iphdr *header = at(view, offset, sizeof(*header));
	__u64 length, total;

	if (!header)
		return TRUNCATED;
	mapped(packet->key.tuple.source, header->saddr);
	mapped(packet->key.tuple.destination, header->daddr);
	packet->protocol = header->protocol;
	length = header->ihl * 4;
	total = bpf_ntohs(header->tot_len);
	packet->transport = offset + length;
	packet->end = offset + total;
	if (header->version != 4 || length < sizeof(*header) || total < length || packet->end > view->length)
		return BROKEN;
	packet->later = (header->frag_off & bpf_htons(0x1fff)) != 0;
	return header->frag_off & bpf_htons(0x3fff) ? FRAGMENT : PARSED;
}

static __always_inline enum parsed ipv6(const struct view *view, struct packet *packet, __u64 offset)
{
	const struct ipv6hdr *header = at(view, offset, sizeof(*header));
	enum parsed result = PARSED;
	__u64 here = offset + sizeof(*header);
	__u8 next;

	if (!header)
		return TRUNCATED;
	__builtin_memcpy(packet->key.tuple.source, &header->saddr, 16);
	__builtin_memcpy(packet->key.tuple.destination, &header->daddr, 16);
	packet->end = here + bpf_ntohs(header->payload_len);
	if (header->version != 6 || packet->end > view->length)
		return BROKEN;
	next = header->nexthdr;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		const __u8 *extension;

		switch (next) {
		case NEXT_HOP_BY_HOP:
		case NEXT_ROUTING:
		case NEXT_DESTINATION:
		case NEXT_MOBILITY:
		case NEXT_HIP:
		case NEXT_SHIM6:
		case NEXT_AUTHENTICATION:
		case NEXT_FRAGMENT:
			break;
		default:
			packet->protocol = next;
			packet->transport = here;
			return result;
		}
		extension = at(view, here, 8);
		if (!extension)
			return BROKEN;
		if (next == NEXT_FRAGMENT) {
			/* RFC 8200 4.5: the first fragment says what the packet is. Atomic
			 * fragments (RFC 6946) count as fragments: nobody sends TCP in them.
			 */
			result = FRAGMENT;
			packet->later = ((extension[2] << 8) | extension[3]) >> 3 != 0;
			here += 8;
			next = extension[0];
			if (packet->later) {
				packet->protocol = next;
				return result;
			}
			continue;
		}
		here += next == NEXT_AUTHENTICATION ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
		next = extension[0];
	}
	return BROKEN;
}

static __always_inline enum parsed network(const struct view *view, struct packet *packet, __u64 offset,
					   __be16 protocol)
{
	if (protocol == bpf_htons(ETH_P_IP))
		return ipv4(view, packet, offset);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return ipv6(view, packet, offset);
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
