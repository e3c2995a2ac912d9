//! Content inside a connection's buffer: one reader for clients' requests and for workers' responses.

use bytes::BytesMut;
use message::{
    framing::{Body, Chunked, Piece},
    refusal::Refusal,
};

/// Takes content out of a buffer by its framing.
#[derive(Debug)]
pub(crate) enum Framed {
    /// So many bytes are left.
    Length(u64),
    /// Until the last chunk.
    Chunked(Chunked),
    /// Until the connection ends (responses alone).
    UntilClose,
}

impl Framed {
    pub(crate) fn new(framing: Body) -> Self {
        match framing {
            Body::None => Self::Length(0),
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(Chunked::new()),
            Body::UntilClose => Self::UntilClose,
        }
    }

    /// The next piece that is in the buffer.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, Refusal> {
        match self {
            Self::Length(0) => Ok(Piece::End),
            Self::Chunked(chunked) => chunked.decode(buffer),
            _ if buffer.is_empty() => Ok(Piece::NeedMore),
            Self::Length(left) => {
                let size = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                *left -= size as u64;
                Ok(Piece::Data(buffer.split_to(size).freeze()))
            }
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
        }
    }

    /// How many bytes are missing, where that is known.
    pub(crate) fn expects(&self) -> Option<usize> {
        match self {
            Self::Length(left) => Some(usize::try_from(*left).unwrap_or(usize::MAX)),
            _ => None,
        }
    }

    /// The whole length, where the framing told it.
    pub(crate) fn length(&self, taken: usize) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left + taken as u64),
            _ => None,
        }
    }
}
