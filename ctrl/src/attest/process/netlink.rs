//! One question to the kernel over netlink, and its answer or answers.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// The kernel answers while it takes the request, so nothing is waited for.
pub fn ask<M: NetlinkSerializable + NetlinkDeserializable>(socket: &Socket, request: M) -> io::Result<M> {
    send(socket, request, NLM_F_REQUEST)?;
    match messages(socket)?.into_iter().next().ok_or_else(|| broken("an empty answer"))? {
        NetlinkPayload::InnerMessage(answer) => Ok(answer),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(broken("neither an answer nor an error")),
    }
}

/// All that there is, unless it is more than `most`.
pub fn dump<M: NetlinkSerializable + NetlinkDeserializable>(
    socket: &Socket,
    request: M,
    most: usize,
) -> io::Result<Vec<M>> {
    send(socket, request, NLM_F_REQUEST | NLM_F_DUMP)?;
    let (mut found, mut over) = (Vec::new(), false);
    // To its end in any case: what is left would be taken for the answer to the next question.
    loop {
        for message in messages(socket)? {
            match message {
                NetlinkPayload::InnerMessage(answer) if found.len() < most => found.push(answer),
                NetlinkPayload::InnerMessage(_) => over = true,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) if over => return Err(broken(&format!("there are more than {most}"))),
                NetlinkPayload::Done(_) => return Ok(found),
                _ => return Err(broken("neither an answer nor an error")),
            }
        }
    }
}

fn send<M: NetlinkSerializable>(socket: &Socket, request: M, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
}

/// What one datagram holds.
fn messages<M: NetlinkDeserializable>(socket: &Socket) -> io::Result<Vec<NetlinkPayload<M>>> {
    let (bytes, from) = socket.recv_from_full()?;
    // Any process may send to a netlink socket whose port it guesses.
    if from.port_number() != 0 {
        return Err(broken("an answer that is not the kernel's"));
    }
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let message = NetlinkMessage::<M>::deserialize(rest).map_err(|error| broken(&error.to_string()))?;
        // RFC 3549 §2.2: each begins at a multiple of four.
        let length = (message.header.length as usize).next_multiple_of(4);
        found.push(message.payload);
        rest = rest.get(length.max(4)..).unwrap_or_default();
    }
    Ok(found)
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
