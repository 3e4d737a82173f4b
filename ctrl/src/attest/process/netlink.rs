//! One question to the kernel over netlink, and its answer.

use std::io;

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// The kernel answers while it takes the request, so nothing is waited for.
pub fn ask<M: NetlinkSerializable + NetlinkDeserializable>(socket: &Socket, request: M) -> io::Result<M> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (bytes, from) = socket.recv_from_full()?;
    // Any process may send to a netlink socket whose port it guesses.
    if from.port_number() != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is not the kernel's"));
    }
    let broken =
        |error: netlink_packet_core::DecodeError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    match NetlinkMessage::<M>::deserialize(&bytes).map_err(broken)?.payload {
        NetlinkPayload::InnerMessage(answer) => Ok(answer),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "neither an answer nor an error")),
    }
}
