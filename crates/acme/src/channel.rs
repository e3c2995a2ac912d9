//! Lines of JSON over a stream socket, each at most [`LINE_MAX`] long.

use std::{io, os::fd::OwnedFd};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::message::LINE_MAX;

/// The end that speaks.
#[derive(Debug)]
pub struct Sender(OwnedWriteHalf);

/// The end that hears.
#[derive(Debug)]
pub struct Receiver {
    stream: OwnedReadHalf,
    heard: Vec<u8>,
    /// How much of that is known to have no end of a line.
    searched: usize,
}

/// Takes over a socket. Must be called inside a runtime.
///
/// # Errors
/// When it is none, or the runtime cannot watch it.
pub fn new(socket: OwnedFd) -> io::Result<(Sender, Receiver)> {
    resumed(socket, Vec::new())
}

/// The same where another runtime has read a part already: what is left of it.
pub(crate) fn resumed(socket: OwnedFd, heard: Vec<u8>) -> io::Result<(Sender, Receiver)> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    let (stream, sender) = UnixStream::from_std(socket.into())?.into_split();
    let receiver = Receiver {
        stream,
        heard,
        searched: 0,
    };
    Ok((Sender(sender), receiver))
}

impl Sender {
    /// Leaves the socket as it is: one that is dropped ends what is said over it.
    pub(crate) fn leave(self) {
        self.0.forget();
    }

    /// Says something.
    ///
    /// # Errors
    /// When nobody hears it any more, or it is longer than anything that is said.
    pub async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        if line.len() > LINE_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.write_all(&line).await
    }
}

impl Receiver {
    /// What has been read past the last message.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.heard
    }

    /// What is said next; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// When it is no such message, or longer than any is.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            let rest = &self.heard[self.searched..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=self.searched + end).collect();
                self.searched = 0;
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            self.searched = self.heard.len();
            if self.heard.len() >= LINE_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line without an end",
                ));
            }
            if self.stream.read_buf(&mut self.heard).await? == 0 {
                return match self.heard.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[tokio::test]
    async fn what_is_said_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut sender, _keep) = new(ours.into()).unwrap();
        let (_keep, mut receiver) = new(theirs.into()).unwrap();
        let long = "x".repeat(1 << 20);
        let sent = async {
            sender.send(&"one").await.unwrap();
            sender.send(&long).await.unwrap();
            let huge = "x".repeat(LINE_MAX);
            let refused = sender.send(&huge).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            drop((sender, _keep));
        };
        let heard = async {
            let mut all: Vec<String> = Vec::new();
            while let Some(message) = receiver.receive().await.unwrap() {
                all.push(message);
            }
            all
        };
        let ((), heard) = tokio::join!(sent, heard);
        assert_eq!(heard, ["one".to_owned(), long.clone()]);
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        for nonsense in [&b"nonsense\n"[..], b"\"half"] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let (_keep, mut receiver) = new(theirs.into()).unwrap();
            ours.write_all(nonsense).unwrap();
            drop(ours);
            assert!(receiver.receive::<String>().await.is_err());
        }
    }
}
