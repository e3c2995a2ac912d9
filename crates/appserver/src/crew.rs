//! Which thread answers which request: the slots of one worker, and the threads that serve them.
//!
//! There are as many threads as slots, so a request on any of the connections finds a thread that is in no other. But which
//! one takes it is not fixed. Python lets one thread run at a time, and to hand its lock (the GIL) from thread to thread for
//! each request costs more than a small request itself: a system call to wake the other, the wait until it runs, and the
//! caches of another core. With a thread for each connection that is what happens as soon as two requests meet: hello 22 µs
//! instead of 10, Flask 198 instead of 122 (CPU of the worker, one run). So here
//!
//! * a thread that has answered a request goes on with the next one that is there, whosever connection it came by, and keeps
//!   the lock meanwhile ([`Crew::next`]);
//! * of those that found a request, one waits for the lock (it *contends*) and offers what it found to whoever has the lock; it
//!   gets the lock when the app waits for something, which is when a second thread is of use;
//! * few wait for requests at the *door*, an epoll that wakes who came last, whose caches are warm; the others are *parked*.
//!
//! A thread keeps the lock from request to request only as long as no other request is under way: one that has waited for its
//! database has its turn before a new one.
//!
//! What must stay true: while a request can come and a thread is free, one is at the door or contends. [`Crew::begin`] sees to
//! it whenever a thread takes up a request.
//!
//! With a single slot there is nothing to decide: its thread waits in its connection.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{
        EventfdFlags,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        eventfd,
    },
    io::{Errno, ioctl_fionbio},
    net::{Shutdown, SocketFlags, accept_with, shutdown},
    time::Timespec,
};
use telemetry::panics;

use crate::serve::{Connection, Error, Identity, Received, Wait};

/// Who waits at the door: one that takes the next request, and one that is there when it has. A third would be woken for
/// nothing when requests come close together.
const DOOR: usize = 2;

/// What the door says of the listener, and of the end. Connections have the number of their slot, which begins with 1.
const LISTENER: u64 = 0;
const END: u64 = u64::MAX;

/// Readable, told once to one thread, and again when that is asked for.
const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

/// Readable, told to one thread each time that something comes: without a system call for each request that asks to be told of
/// the next.
const EDGE: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// What a crew asks of whom it works for.
pub trait Steward: Send + Sync {
    /// Whether whoever has connected is the proxy.
    fn admits(&self, stream: &OwnedFd) -> bool;

    /// For the log.
    fn log(&self, line: &str);

    /// For the log as well: a connection was closed for this reason.
    fn broke(&self, slot: u16, error: &Error);
}

/// The connections of a worker and the threads that serve them.
pub struct Crew<S> {
    steward: S,
    listener: OwnedFd,
    /// The build, app and worker that greetings are answered with.
    identity: Identity,
    door: OwnedFd,
    /// Readable when there is nothing more to wait for.
    end: OwnedFd,
    places: Vec<Mutex<Place>>,
    /// Each slot's descriptor, or -1.
    descriptors: Vec<AtomicI32>,
    duty: Mutex<Duty>,
    bell: Condvar,
    /// Set in the child of a fork, where the threads that hold the locks are not.
    is_copy: AtomicBool,
}

/// Where the connection of a slot waits.
#[derive(Debug, Default)]
struct Place {
    /// While no thread has it.
    connection: Option<Box<Connection>>,
    /// Whether the door told of it while a thread had it. That one looks again before it lets go: nobody is told twice.
    was_told: bool,
}

/// Where a thread waits.
enum Post {
    /// For the lock.
    Contends,
    /// For a request.
    Door,
    /// Nowhere: there is nothing more to wait for.
    None,
}

/// Who does what.
#[derive(Debug, Default)]
struct Duty {
    /// Which slots have a connection, or are in a request whose connection is gone.
    taken: Vec<bool>,
    /// Requests that were received and that no thread has.
    offered: VecDeque<Box<Connection>>,
    at_door: usize,
    parked: usize,
    contending: usize,
    running: usize,
    stopping: bool,
}

impl Duty {
    /// Nobody can ask any more.
    fn is_over(&self) -> bool {
        self.stopping && !self.taken.contains(&true)
    }
}

impl<S: Steward> Crew<S> {
    /// For as many slots, on this socket; `identity` is that of the first one.
    ///
    /// # Errors
    /// When descriptors are short.
    pub fn new(slots: u16, listener: OwnedFd, identity: Identity, steward: S) -> io::Result<Self> {
        let crew = Self {
            steward,
            identity,
            door: epoll::create(CreateFlags::CLOEXEC)?,
            end: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            places: (0..slots).map(|_| Mutex::default()).collect(),
            descriptors: (0..slots).map(|_| AtomicI32::new(-1)).collect(),
            duty: Mutex::new(Duty {
                taken: vec![false; usize::from(slots)],
                ..Duty::default()
            }),
            bell: Condvar::new(),
            is_copy: AtomicBool::new(false),
            listener,
        };
        ioctl_fionbio(&crew.listener, !crew.is_single())?;
        epoll::add(
            &crew.door,
            &crew.listener,
            EventData::new_u64(LISTENER),
            ONCE,
        )?;
        epoll::add(
            &crew.door,
            &crew.end,
            EventData::new_u64(END),
            EventFlags::IN,
        )?;
        Ok(crew)
    }

    /// Waits until there is a request, which [`Crew::claim`] gives to whoever has the application's lock first. `false`: the
    /// worker has stopped, and the last connection is gone.
    ///
    /// The caller does not have the lock.
    pub fn wait(&self) -> bool {
        if self.is_single() {
            return self.wait_single();
        }
        loop {
            match self.post() {
                Post::Contends => return true,
                Post::None => return false,
                Post::Door => {}
            }
            let seen = self.look(None);
            if seen == Some(LISTENER) {
                self.duty().at_door -= 1;
                self.accept();
                continue;
            }
            {
                let mut duty = self.duty();
                duty.at_door -= 1;
                duty.contending += 1;
            }
            let found = seen.and_then(|number| self.receive(number));
            let mut duty = self.duty();
            duty.offered.extend(found);
            if duty.contending == 1 && !duty.offered.is_empty() {
                return true;
            }
            // Nothing came, or somebody else waits for the lock and sees to what did.
            duty.contending -= 1;
        }
    }

    /// A request that was offered, once the caller has the application's lock.
    pub fn claim(&self) -> Option<Box<Connection>> {
        if self.is_copy() {
            return None;
        }
        let mut duty = self.duty();
        duty.contending -= 1;
        duty.offered.pop_front()
    }

    /// Before a request is answered: sees to it that somebody looks for the next one if this one waits for something.
    pub fn begin(&self) {
        let mut duty = self.duty();
        duty.running += 1;
        let is_watched = duty.contending > 0 || (duty.at_door > 0 && duty.offered.is_empty());
        if !is_watched && duty.parked > 0 {
            self.bell.notify_one();
        }
    }

    /// After a request: its connection goes on, or has ended.
    pub fn finish(&self, connection: Box<Connection>, goes_on: bool) {
        if self.is_copy() {
            return;
        }
        self.duty().running -= 1;
        if !goes_on {
            self.close(connection);
        } else if let Some(connection) = self.put_back(connection) {
            self.duty().offered.push_back(connection);
        }
    }

    /// Another request that is here already, for a caller that has the application's lock. `None` also while other requests are
    /// under way: they may wait for that lock.
    pub fn next(&self) -> Option<Box<Connection>> {
        if self.is_single() || self.is_copy() {
            return None;
        }
        loop {
            let mut duty = self.duty();
            if duty.running > 0 {
                return None;
            }
            if let Some(offered) = duty.offered.pop_front() {
                return Some(offered);
            }
            drop(duty);
            let number = match self.look(Some(&Timespec::default()))? {
                END => return None,
                // To accept may take long, when descriptors are short.
                LISTENER => {
                    self.listen();
                    return None;
                }
                number => number,
            };
            if let Some(found) = self.receive(number) {
                return Some(found);
            }
        }
    }

    /// Accepts no more. Threads leave when the proxy has let go of the last connection.
    pub fn stop(&self) {
        self.duty().stopping = true;
        if let Err(error) = shutdown(&self.listener, Shutdown::Both) {
            // Another holder of the socket may have done it before; who waits in accept is awake then.
            debug_assert_eq!(error, Errno::NOTCONN, "the listener is a listening socket");
        }
        self.end_if_over();
    }

    /// What the child of a fork must not keep.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let own = [&self.listener, &self.door, &self.end].map(AsRawFd::as_raw_fd);
        let connections = self.descriptors.iter();
        let connections = connections.map(|place| place.load(Ordering::Acquire));
        own.into_iter()
            .chain(connections.filter(|&descriptor| descriptor >= 0))
    }

    /// In the child of a fork: its thread, if it comes back from the application, has nothing more to do here.
    pub fn is_copied(&self) {
        self.is_copy.store(true, Ordering::Release);
    }

    fn is_copy(&self) -> bool {
        self.is_copy.load(Ordering::Acquire)
    }

    fn is_single(&self) -> bool {
        self.places.len() == 1
    }

    fn duty(&self) -> MutexGuard<'_, Duty> {
        // Each change is whole.
        panics::lock(&self.duty)
    }

    /// Waits until the caller is wanted.
    fn post(&self) -> Post {
        if self.is_copy() {
            return Post::None;
        }
        let mut duty = self.duty();
        loop {
            if duty.is_over() {
                return Post::None;
            }
            // As long as somebody contends: that one has the lock as soon as it is of use, and then calls another.
            if duty.contending == 0 {
                if !duty.offered.is_empty() {
                    duty.contending += 1;
                    return Post::Contends;
                }
                if duty.at_door < DOOR {
                    duty.at_door += 1;
                    return Post::Door;
                }
            }
            duty.parked += 1;
            duty = self.bell.wait(duty).unwrap_or_else(PoisonError::into_inner);
            duty.parked -= 1;
        }
    }

    fn wait_single(&self) -> bool {
        while !self.is_copy() && !self.duty().is_over() {
            let Some(mut connection) = self.place(1).connection.take() else {
                self.accept();
                continue;
            };
            let received = connection.receive(Wait::Yes);
            if let Some(connection) = self.judge(connection, received) {
                let mut duty = self.duty();
                duty.offered.push_back(connection);
                duty.contending += 1;
                return true;
            }
        }
        false
    }

    /// What the door tells next: the slot of a connection, or one of the other numbers.
    fn look(&self, most: Option<&Timespec>) -> Option<u64> {
        let mut space = [MaybeUninit::<Event>::uninit()];
        match epoll::wait(&self.door, &mut space, most) {
            Ok((seen, _)) => seen.first().map(|event| event.data.u64()),
            Err(Errno::INTR) => None,
            Err(error) => lost(error),
        }
    }

    /// Receives a request by a connection that the door has told of, which is the caller's until it is put back. `None` also where
    /// another thread has it, which then looks itself.
    fn receive(&self, number: u64) -> Option<Box<Connection>> {
        let slot = u16::try_from(number).ok().filter(|&slot| slot != 0)?;
        let mut connection = {
            let mut place = self.place(slot);
            let found = place.connection.take();
            place.was_told = found.is_none();
            found?
        };
        let received = connection.receive(Wait::No);
        self.judge(connection, received)
    }

    fn judge(
        &self,
        connection: Box<Connection>,
        received: Result<Received, Error>,
    ) -> Option<Box<Connection>> {
        match received {
            Ok(Received::Request) => return Some(connection),
            Ok(Received::Nothing) => return self.put_back(connection),
            Ok(Received::End) => self.close(connection),
            Err(error) => {
                self.steward.broke(connection.slot(), &error);
                self.close(connection);
            }
        }
        None
    }

    fn place(&self, slot: u16) -> MutexGuard<'_, Place> {
        panics::lock(&self.places[usize::from(slot) - 1])
    }

    /// Lets go of a connection until something comes by it. Where something has come meanwhile, it is looked at, and a request is
    /// the caller's.
    fn put_back(&self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        loop {
            {
                let mut place = self.place(connection.slot());
                if !std::mem::take(&mut place.was_told) {
                    place.connection = Some(connection);
                    return None;
                }
            }
            match connection.receive(Wait::No) {
                Ok(Received::Nothing) => {}
                received => return self.judge(connection, received),
            }
        }
    }

    fn close(&self, connection: Box<Connection>) {
        let slot = connection.slot();
        self.descriptors[usize::from(slot) - 1].store(-1, Ordering::Release);
        // The app may have kept a handle on it, which must not keep it open, nor have the door tell of it.
        let _ = shutdown(&*connection, Shutdown::Both);
        if !self.is_single() {
            let _ = epoll::delete(&self.door, &*connection);
        }
        drop(connection);
        self.free_slot(slot);
    }

    /// Takes the proxy's next connection, for a free slot.
    fn accept(&self) {
        let Some(slot) = self.take_slot() else {
            return;
        };
        match accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(stream) if self.steward.admits(&stream) => {
                self.open(slot, UnixStream::from(stream));
                return self.listen();
            }
            Ok(_) => self
                .steward
                .log("a connection was refused: it is not the proxy's user"),
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                self.steward.log(&format!(
                    "no connection can be accepted: {}; trying again",
                    io::Error::from(error)
                ));
                // Only the app can give descriptors back, and nothing tells us when it does. Another goes to the door meanwhile.
                self.bell.notify_one();
                thread::sleep(Duration::from_secs(1));
            }
            Err(error) => {
                let was_stopping = std::mem::replace(&mut self.duty().stopping, true);
                if !was_stopping {
                    let error = io::Error::from(error);
                    self.steward.log(&format!("the listener failed: {error}"));
                }
            }
        }
        self.free_slot(slot);
    }

    fn take_slot(&self) -> Option<u16> {
        let mut duty = self.duty();
        let (slot, taken) = (1..).zip(&mut duty.taken).find(|(_, taken)| !**taken)?;
        *taken = true;
        Some(slot)
    }

    fn free_slot(&self, slot: u16) {
        self.duty().taken[usize::from(slot) - 1] = false;
        self.listen();
        self.end_if_over();
    }

    fn open(&self, slot: u16, stream: UnixStream) {
        self.descriptors[usize::from(slot) - 1].store(stream.as_raw_fd(), Ordering::Release);
        let identity = Identity {
            slot,
            ..self.identity.clone()
        };
        let mut place = self.place(slot);
        place.was_told = false;
        let connection = Box::new(Connection::new(stream, identity));
        let connection = place.connection.insert(connection);
        if self.is_single() {
            return;
        }
        // Under the lock of the place: who is told of it at once finds it there.
        let data = EventData::new_u64(slot.into());
        if let Err(error) = epoll::add(&self.door, &**connection, data, EDGE) {
            let connection = place.connection.take();
            drop(place);
            let error = Error::Connection(error.into());
            self.steward.broke(slot, &error);
            connection.into_iter().for_each(|lost| self.close(lost));
        }
    }

    /// Has the door tell of the listener if a slot is free.
    fn listen(&self) {
        let duty = self.duty();
        if duty.stopping || self.is_single() || !duty.taken.contains(&false) {
            return;
        }
        // It was added at the start.
        let listener = EventData::new_u64(LISTENER);
        epoll::modify(&self.door, &self.listener, listener, ONCE)
            .unwrap_or_else(|error| lost(error));
    }

    fn end_if_over(&self) {
        if self.duty().is_over() {
            // Readable from now on, so it wakes one at the door after the other.
            let _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
            self.bell.notify_all();
        }
    }
}

/// What is ours fails only where somebody else has closed it. A worker that goes on so may read and write what belongs to others.
fn lost(error: Errno) -> ! {
    panic!(
        "the descriptors of this worker are not its own any more ({error}): did the app close all that it found, as by os.closerange?"
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        path::Path,
        sync::{Arc, mpsc},
    };

    use super::*;
    use crate::{
        application::Application,
        request::Request,
        response::{Head, Response},
    };

    /// Says what it logs.
    struct Open(mpsc::Sender<String>);

    impl Steward for Open {
        fn admits(&self, _: &OwnedFd) -> bool {
            true
        }

        fn log(&self, line: &str) {
            self.0.send(line.to_owned()).expect("the test listens");
        }

        fn broke(&self, slot: u16, error: &Error) {
            self.log(&format!("{slot}: {error}"));
        }
    }

    /// What an app does with the lock: `/wait` gives it up until the test says so.
    struct App<'a> {
        lock: &'a Mutex<()>,
        held: Option<MutexGuard<'a, ()>>,
        go: Arc<Mutex<mpsc::Receiver<()>>>,
        began: mpsc::Sender<String>,
    }

    impl Application for App<'_> {
        fn respond(&mut self, request: &Request<'_>, response: &mut Response) {
            assert!(self.held.is_some(), "the app runs with the lock");
            let path = String::from_utf8_lossy(request.path()).into_owned();
            self.began.send(path.clone()).expect("the test listens");
            if path == "/wait" {
                self.held = None;
                let go = self.go.lock().expect("nobody panics").recv();
                go.expect("the test says so");
                self.held = Some(self.lock.lock().expect("nobody panics"));
            }
            let mut head = Head::default();
            head.start(b"200 OK").expect("a status");
            response.begin(&head, Some(path.len() as u64));
            response.push(path.as_bytes());
            response.end().expect("the whole content");
        }
    }

    /// A crew at work, and the test's ends of everything.
    struct Worker {
        socket: tempfile::TempDir,
        crew: Arc<Crew<Open>>,
        threads: Vec<thread::JoinHandle<()>>,
        go: mpsc::Sender<()>,
        began: mpsc::Receiver<String>,
        logged: mpsc::Receiver<String>,
    }

    impl Worker {
        fn start(slots: u16) -> Self {
            let socket = tempfile::tempdir().expect("a folder");
            let listener = UnixListener::bind(socket.path().join("s")).expect("a socket");
            let (log, logged) = mpsc::channel();
            let identity = Identity {
                build: String::new(),
                app: "web".to_owned(),
                worker: 1,
                slot: 1,
            };
            let crew = Crew::new(slots, listener.into(), identity, Open(log));
            let crew = Arc::new(crew.expect("descriptors"));
            let (go, wait) = mpsc::channel();
            let wait = Arc::new(Mutex::new(wait));
            let (begin, began) = mpsc::channel();
            let lock = &*Box::leak(Box::new(Mutex::new(())));
            let threads = (0..slots)
                .map(|_| {
                    let (go, began) = (Arc::clone(&wait), begin.clone());
                    let crew = Arc::clone(&crew);
                    thread::spawn(move || {
                        let held = None;
                        work(
                            &crew,
                            App {
                                lock,
                                held,
                                go,
                                began,
                            },
                        );
                    })
                })
                .collect();
            Self {
                socket,
                crew,
                threads,
                go,
                began,
                logged,
            }
        }

        fn connect(&self) -> Client {
            connect(self.socket.path())
        }

        fn stop(self) {
            self.crew.stop();
            for thread in self.threads {
                thread.join().expect("no thread panics");
            }
        }
    }

    fn work(crew: &Crew<Open>, mut app: App<'_>) {
        while crew.wait() {
            app.held = Some(app.lock.lock().expect("nobody panics"));
            let mut job = crew.claim();
            while let Some(mut connection) = job {
                crew.begin();
                let goes_on = connection.answer(&mut app).unwrap_or(false);
                crew.finish(connection, goes_on);
                job = crew.next();
            }
            app.held = None;
        }
    }

    struct Client(UnixStream);

    fn connect(folder: &Path) -> Client {
        Client(UnixStream::connect(folder.join("s")).expect("it listens"))
    }

    impl Client {
        fn ask(&mut self, path: &str) {
            let head = format!("GET {path} HTTP/1.1\r\n_stack: - 0 http - 80 id\r\n\r\n");
            self.0.write_all(head.as_bytes()).expect("it reads");
        }

        fn is_answered(&mut self, path: &str) {
            let length = path.len();
            let expected = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}");
            let mut answer = vec![0; expected.len()];
            self.0.read_exact(&mut answer).expect("an answer");
            assert_eq!(String::from_utf8_lossy(&answer), expected);
        }
    }

    #[test]
    fn all_slots_wait_at_once_and_a_further_request_finds_the_next() {
        for slots in [1, 2, 3, 5] {
            let worker = Worker::start(slots);
            let mut clients: Vec<_> = (0..slots).map(|_| worker.connect()).collect();
            for client in &mut clients {
                client.ask("/wait");
                assert_eq!(worker.began.recv().expect("it begins"), "/wait");
            }
            // Nobody is left for it.
            let mut late = worker.connect();
            late.ask("/late");
            for _ in &clients {
                worker.go.send(()).expect("they wait");
            }
            for client in &mut clients {
                client.is_answered("/wait");
            }
            assert!(worker.began.try_recv().is_err(), "{slots}");
            drop(clients);
            late.is_answered("/late");
            drop(late);
            worker.stop();
        }
    }

    #[test]
    fn requests_that_meet_are_all_answered_once() {
        for slots in [1, 2, 4] {
            let worker = Worker::start(slots);
            let clients: Vec<_> = (0..slots)
                .map(|number| {
                    let folder = worker.socket.path().to_owned();
                    thread::spawn(move || {
                        let mut client = connect(&folder);
                        for round in 0..500 {
                            let path = format!("/{number}/{round}");
                            client.ask(&path);
                            client.is_answered(&path);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().expect("all are answered");
            }
            let mut began: Vec<_> = worker.began.try_iter().collect();
            assert_eq!(began.len(), 500 * usize::from(slots));
            began.sort_unstable();
            began.dedup();
            assert_eq!(began.len(), 500 * usize::from(slots), "none ran twice");
            worker.stop();
        }
    }

    #[test]
    fn a_request_goes_on_while_another_waits_in_the_app() {
        let worker = Worker::start(2);
        let (mut slow, mut quick) = (worker.connect(), worker.connect());
        slow.ask("/wait");
        assert_eq!(worker.began.recv().expect("it begins"), "/wait");
        for _ in 0..10 {
            quick.ask("/quick");
            quick.is_answered("/quick");
        }
        worker.go.send(()).expect("it waits");
        slow.is_answered("/wait");
        drop((slow, quick));
        worker.stop();
    }

    #[test]
    fn a_connection_that_ends_or_breaks_makes_room() {
        for slots in [1, 3] {
            let worker = Worker::start(slots);
            for _ in 0..3 * slots {
                let mut client = worker.connect();
                client.ask("/a");
                client.is_answered("/a");
            }
            for _ in 0..slots {
                let mut client = worker.connect();
                client.0.write_all(b"garbage\r\n\r\n").expect("it reads");
                assert_eq!(client.0.read(&mut [0]).expect("closed"), 0);
            }
            for _ in 0..3 * slots {
                // The request and the end of the stream may be told as one.
                worker.connect().ask("/gone");
            }
            let mut half = worker.connect();
            half.0.write_all(b"GET / HT").expect("it reads");
            drop(half);
            assert!(worker.logged.recv().expect("a line").contains("broke"));
            let mut client = worker.connect();
            client.ask("/b");
            client.is_answered("/b");
            drop(client);
            worker.stop();
        }
    }

    #[test]
    fn it_stops_when_the_last_connection_is_gone() {
        for slots in [1, 4] {
            let worker = Worker::start(slots);
            let mut client = worker.connect();
            client.ask("/wait");
            assert_eq!(worker.began.recv().expect("it begins"), "/wait");
            worker.crew.stop();
            worker.go.send(()).expect("it waits");
            client.is_answered("/wait");
            // It was connected before, so it is served until it goes.
            client.ask("/more");
            client.is_answered("/more");
            assert!(UnixStream::connect(worker.socket.path().join("s")).is_err());
            drop(client);
            worker.stop();
            Worker::start(slots).stop();
        }
    }

    #[test]
    fn in_the_child_of_a_fork_a_thread_leaves_whoever_held_the_lock() {
        for slots in [1, 3] {
            let worker = Worker::start(slots);
            let mut client = worker.connect();
            client.ask("/wait");
            assert_eq!(worker.began.recv().expect("it begins"), "/wait");
            // As a thread that is not in the child would have left it.
            let held = worker.crew.duty();
            worker.crew.is_copied();
            worker.go.send(()).expect("it waits");
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while !worker.threads.iter().any(thread::JoinHandle::is_finished) {
                assert!(std::time::Instant::now() < deadline, "{slots}: it waits");
                thread::yield_now();
            }
            drop(held);
        }
    }
}
