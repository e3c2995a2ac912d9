//! The channel between master and proxy: messages with descriptors over one stream socket.
//!
//! A frame is a length (u32, big endian) and that many bytes of JSON. Descriptors travel with the frame's first byte
//! (`SCM_RIGHTS`, unix(7)). The receiver never reads past the end of a frame, so whatever descriptors arrive while a
//! frame is read belong to it. The channel knows nothing of what the messages mean: see [`crate::control`].
//!
//! Both operations are cancel-safe: what a dropped future has read or has still to write stays in its half.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

/// Largest message. A configuration with thousands of sites and their certificates fits; a lost length does not.
const MESSAGE_MAX: usize = 16 << 20;

/// Most descriptors beside one message: `SCM_MAX_FD` of the kernel.
const DESCRIPTORS_MAX: usize = 253;

/// Bytes of a frame's length.
const HEADER: usize = size_of::<u32>();

/// One end of the pair.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    receiver: Receiver,
}

impl Channel {
    /// Takes over one end of a stream socketpair. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking or watched.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        let socket = Arc::new(UnixStream::from_std(socket.into())?);
        Ok(Self {
            sender: Sender {
                socket: Arc::clone(&socket),
                frames: VecDeque::new(),
            },
            receiver: Receiver {
                socket,
                frame: Incoming::default(),
            },
        })
    }

    /// Sends one message; see [`Sender::send`].
    ///
    /// # Errors
    /// See [`Sender::send`].
    pub async fn send<T: Serialize>(
        &mut self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.sender.send(message, descriptors).await
    }

    /// Receives one message; see [`Receiver::receive`].
    ///
    /// # Errors
    /// See [`Receiver::receive`].
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receiver.receive().await
    }

    /// The two directions, for two owners.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct Sender {
    socket: Arc<UnixStream>,
    /// Not yet written, oldest first: more than one only after a `send` was dropped half-way.
    frames: VecDeque<Outgoing>,
}

impl Sender {
    /// Sends one message and duplicates of these descriptors. When the future is dropped half-way, the next `send`
    /// writes the rest first.
    ///
    /// # Errors
    /// `InvalidInput` for a message past 16 MiB or with more than 253 descriptors, which leaves the channel usable; any
    /// other error ends it.
    pub async fn send<T: Serialize>(
        &mut self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.frames.push_back(Outgoing::new(message, descriptors)?);
        while let Some(frame) = self.frames.front_mut() {
            self.socket
                .async_io(Interest::WRITABLE, || frame.write(self.socket.as_fd()))
                .await?;
            if frame.is_written() {
                self.frames.pop_front();
            }
        }
        Ok(())
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<UnixStream>,
    frame: Incoming,
}

impl Receiver {
    /// Receives one message and the descriptors that came with it; `None` when the peer has closed its end.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer left within a message, `InvalidData` when it is not the message expected; the
    /// channel is over after either.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let read = self
                .socket
                .async_io(Interest::READABLE, || self.frame.read(self.socket.as_fd()))
                .await?;
            if read == 0 {
                return if self.frame.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            if self.frame.is_whole() {
                let frame = std::mem::take(&mut self.frame);
                let message = serde_json::from_slice(&frame.content)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                return Ok(Some((message, frame.descriptors)));
            }
        }
    }
}

/// A frame on its way out.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    descriptors: Vec<OwnedFd>,
}

impl Outgoing {
    fn new<T: Serialize>(message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let mut bytes = vec![0; HEADER];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - HEADER;
        if length > MESSAGE_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a message of {length} bytes with {} descriptors is too large",
                    descriptors.len()
                ),
            ));
        }
        let header = u32::try_from(length)
            .expect("at most MESSAGE_MAX")
            .to_be_bytes();
        bytes[..HEADER].copy_from_slice(&header);
        let descriptors = descriptors
            .iter()
            .map(BorrowedFd::try_clone_to_owned)
            .collect::<io::Result<Vec<OwnedFd>>>()?;
        Ok(Self {
            bytes,
            written: 0,
            descriptors,
        })
    }

    fn write(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        if !descriptors.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
            debug_assert!(fits, "the space is for DESCRIPTORS_MAX");
        }
        let bytes = [IoSlice::new(&self.bytes[self.written..])];
        self.written += rustix::net::sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        // The kernel attached them to the first byte that it took; sent again they would belong to no frame.
        self.descriptors.clear();
        Ok(())
    }

    fn is_written(&self) -> bool {
        self.written == self.bytes.len()
    }
}

/// A frame on its way in.
#[derive(Debug, Default)]
struct Incoming {
    header: [u8; HEADER],
    header_read: usize,
    content: Vec<u8>,
    content_read: usize,
    descriptors: Vec<OwnedFd>,
}

impl Incoming {
    /// Reads once, never past the end of this frame; returns how much came.
    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.header_read < HEADER {
            let read = receive_into(
                socket,
                &mut self.header[self.header_read..],
                &mut self.descriptors,
            )?;
            self.header_read += read;
            if self.header_read == HEADER {
                self.make_room()?;
            }
            return Ok(read);
        }
        let read = receive_into(
            socket,
            &mut self.content[self.content_read..],
            &mut self.descriptors,
        )?;
        self.content_read += read;
        Ok(read)
    }

    fn make_room(&mut self) -> io::Result<()> {
        // A u32 fits a usize on every system this runs on.
        let length = u32::from_be_bytes(self.header) as usize;
        if length == 0 || length > MESSAGE_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {length} bytes"),
            ));
        }
        self.content = vec![0; length];
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.header_read == 0
    }

    fn is_whole(&self) -> bool {
        self.header_read == HEADER && self.content_read == self.content.len()
    }
}

fn receive_into(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // The kernel drops what this process's RLIMIT_NOFILE leaves no room for.
        return Err(io::Error::other(
            "descriptors were lost: the limit of open files (RLIMIT_NOFILE) is too low",
        ));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    fn read(descriptor: OwnedFd) -> String {
        let mut text = String::new();
        File::from(descriptor).read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn descriptors_belong_to_the_message_they_were_sent_with() {
        let (mut master, mut proxy) = pair();
        let (a, b, c) = (file("a"), file("b"), file("c"));
        master.send(&"none", &[]).await.unwrap();
        master.send(&"two", &[a.as_fd(), b.as_fd()]).await.unwrap();
        master.send(&"none again", &[]).await.unwrap();
        master.send(&"one", &[c.as_fd()]).await.unwrap();
        drop(master);

        let mut seen = Vec::new();
        while let Some((message, descriptors)) = proxy.receive::<String>().await.unwrap() {
            for descriptor in &descriptors {
                let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
            seen.push((
                message,
                descriptors.into_iter().map(read).collect::<Vec<_>>(),
            ));
        }
        let expected = [
            ("none", vec![]),
            ("two", vec!["a".to_owned(), "b".to_owned()]),
            ("none again", vec![]),
            ("one", vec!["c".to_owned()]),
        ];
        assert_eq!(
            seen,
            expected.map(|(message, files)| (message.to_owned(), files))
        );
    }

    #[tokio::test]
    async fn a_message_larger_than_the_socket_buffer_and_all_its_descriptors_arrive() {
        let (mut master, mut proxy) = pair();
        let long = "x".repeat(4 << 20);
        let null = File::open("/dev/null").unwrap();
        let descriptors = vec![null.as_fd(); DESCRIPTORS_MAX];
        let (sent, received) =
            tokio::join!(master.send(&long, &descriptors), proxy.receive::<String>());
        sent.unwrap();
        let (message, files) = received.unwrap().unwrap();
        assert_eq!(message.len(), long.len());
        assert_eq!(files.len(), DESCRIPTORS_MAX);
    }

    #[tokio::test]
    async fn dropped_futures_lose_nothing() {
        let (mut master, mut proxy) = pair();
        let long = "x".repeat(4 << 20);
        let null = File::open("/dev/null").unwrap();
        let descriptors = [null.as_fd()];
        // Nobody reads, so the first send fills the socket and is dropped half-way.
        tokio::select! {
            biased;
            _ = master.send(&long, &descriptors) => panic!("4 MiB fit no socket buffer"),
            () = tokio::task::yield_now() => {}
        }
        tokio::select! {
            biased;
            _ = proxy.receive::<String>() => panic!("the rest is not sent yet"),
            () = tokio::task::yield_now() => {}
        }
        let receive_both = async {
            let first = proxy.receive::<String>().await.unwrap().unwrap();
            let second = proxy.receive::<String>().await.unwrap().unwrap();
            (first, second)
        };
        let (sent, (first, second)) = tokio::join!(master.send(&"second", &[]), receive_both);
        sent.unwrap();
        assert_eq!((first.0.len(), first.1.len()), (long.len(), 1));
        assert_eq!((second.0.as_str(), second.1.len()), ("second", 0));
    }

    #[tokio::test]
    async fn both_sides_send_at_the_same_time() {
        let (left, right) = pair();
        let long = "x".repeat(1 << 20);
        let ((mut left_out, mut left_in), (mut right_out, mut right_in)) =
            (left.split(), right.split());
        let all = tokio::join!(
            left_out.send(&long, &[]),
            right_out.send(&long, &[]),
            left_in.receive::<String>(),
            right_in.receive::<String>(),
        );
        assert!(all.0.is_ok() && all.1.is_ok());
        assert_eq!(all.2.unwrap().unwrap().0, long);
        assert_eq!(all.3.unwrap().unwrap().0, long);
    }

    #[tokio::test]
    async fn broken_streams_are_errors_and_a_closed_one_is_the_end() {
        let cases: [(&[u8], Option<io::ErrorKind>); 6] = [
            (b"", None),
            (b"\0\0", Some(io::ErrorKind::UnexpectedEof)),
            (b"\0\0\0\x09\"half", Some(io::ErrorKind::UnexpectedEof)),
            (b"\0\0\0\0", Some(io::ErrorKind::InvalidData)),
            (b"\xff\xff\xff\xff", Some(io::ErrorKind::InvalidData)),
            (b"\0\0\0\x01[", Some(io::ErrorKind::InvalidData)),
        ];
        for (bytes, expected) in cases {
            let (a, b) = socketpair(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            let mut channel = Channel::new(a).unwrap();
            rustix::io::write(&b, bytes).unwrap();
            drop(b);
            let result = channel.receive::<String>().await;
            assert_eq!(
                result.as_ref().err().map(io::Error::kind),
                expected,
                "{bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn too_many_descriptors_are_refused_and_the_channel_goes_on() {
        let (mut master, mut proxy) = pair();
        let null = File::open("/dev/null").unwrap();
        let refused = master
            .send(&"many", &vec![null.as_fd(); DESCRIPTORS_MAX + 1])
            .await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        master.send(&"few", &[null.as_fd()]).await.unwrap();
        let (message, files) = proxy.receive::<String>().await.unwrap().unwrap();
        assert_eq!((message.as_str(), files.len()), ("few", 1));
    }
}
