//! Frames from peers: wrong frames are refused without a panic, however the stream is cut into pieces. A message that
//! decodes means the same when it is encoded and decoded again.

use super::choice;
use bytes::{Bytes, BytesMut};
use groups::Message;
use net::frame::{self, Frame, FrameWriter, HEADER_BYTES, Purpose};
use paxoi::node::wire::{NODE, NodeMessage};

const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Runs one input. The first byte chooses the meaning of the rest (the stream itself, a frame's payload, or a message's
/// kind and body) and the size of the pieces.
pub fn run(mut data: &[u8]) {
    let chosen = choice(&mut data);
    let stream = match chosen % 4 {
        0 => data.to_vec(),
        1 => sealed(data),
        group => {
            let kind = choice(&mut data);
            let mut writer = FrameWriter::new(Purpose::Live);
            writer.message(if group == 2 { 0 } else { NODE }, kind, |_| Bytes::copy_from_slice(data));
            let mut pieces = Vec::new();
            writer.finish(&mut pieces);
            pieces.concat()
        }
    };
    let whole = receive(&stream, stream.len().max(1));
    assert_eq!(whole, receive(&stream, usize::from(chosen >> 2) + 1), "the result depends on the size of the pieces");
}

/// Returns a frame with a right checksum and this payload, whatever the payload is.
fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![frame::MAGIC, frame::VERSION, 0, 0];
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 8]);
    frame.extend_from_slice(payload);
    let crc = crc32c::crc32c(&frame);
    frame[HEADER_BYTES - 8..HEADER_BYTES - 4].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// Returns the number of messages that were understood, and the error that ended the stream.
fn receive(stream: &[u8], piece: usize) -> (usize, Option<String>) {
    let (mut buf, mut understood) = (BytesMut::new(), 0);
    for piece in stream.chunks(piece) {
        buf.extend_from_slice(piece);
        loop {
            match frame::decode(&mut buf, PAYLOAD_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => understood += understand(&frame),
                Err(error) => return (understood, Some(error.to_string())),
            }
        }
        assert!(buf.len() <= HEADER_BYTES + PAYLOAD_BYTES_MAX, "buffers more bytes than a frame may have");
    }
    (understood, None)
}

fn understand(frame: &Frame) -> usize {
    let messages = frame.messages().map_while(Result::ok);
    messages.filter(|message| again(message.group, message.kind, &message.body)).count()
}

/// Returns true if the body decodes. Then its message must survive its own encoding.
fn again(group: u32, kind: u8, body: &Bytes) -> bool {
    if group == NODE {
        let Ok(Some(message)) = NodeMessage::decode(kind, body) else { return false };
        assert_eq!(message.kind(), kind);
        assert_eq!(NodeMessage::decode(kind, &message.encode()), Ok(Some(message)));
        return true;
    }
    let Ok(message) = Message::decode(kind, body) else { return false };
    assert_eq!(message.kind(), kind);
    let mut encoded = BytesMut::new();
    message.encode(&mut encoded);
    assert_eq!(Message::decode(kind, &encoded.freeze()), Ok(message));
    true
}
