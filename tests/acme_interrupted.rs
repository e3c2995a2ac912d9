//! Certificates by ACME where something ends in the middle: the disk's room, or the master.

use std::{fs, net::TcpListener};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    acme::{BOTH, is_pebbles, kept, shown, status, until_shown},
    harness::{
        disk::Disk,
        kill,
        pebble::{Pebble, free_port},
    },
};

/// What the kernel gives a file at least, and takes of a disk for it.
const PAGE: u32 = 4096;

const NO_ROOM: &str = "No space left on device";

#[test]
fn without_room_nothing_is_ordered_until_there_is_some() {
    let Some(pebble) = Pebble::new() else { return };
    let site = pebble.site(&["a.example.com"], BOTH);
    let state = site.path().join("state");
    let Some(disk) = Disk::mount(&state, PAGE) else {
        return;
    };
    fs::write(state.join("another's"), [0; PAGE as usize]).expect("it has this much");
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = site.start();
    let text = stack.until_logged(NO_ROOM);
    assert!(
        text.contains("no certificate for a.example.com: "),
        "{text}"
    );
    let pause = text.split_once("; next try in ").expect("it is told").1;
    let pause = pause.split_once(" s\n").expect("in seconds").0;
    let pause: f64 = pause.parse().expect("a number");
    // Ten seconds and a share, from a moment that is kept in whole seconds.
    assert!((9.0..20.0).contains(&pause), "{text}");
    assert!(!is_pebbles(&shown(&stack, "a.example.com")));
    stack.until("the failure is told", || {
        status(&stack.site())["standing"]["failures"] == 1
    });
    assert!(!text.contains(": order at "), "nothing was ordered: {text}");
    let left = fs::read_dir(&state).expect("it is there").flatten();
    let left = left.filter(|file| file.file_name().to_string_lossy().starts_with(".new-"));
    assert_eq!(left.count(), 0, "half a file is left");
    disk.grow(64 * PAGE);
    // By itself: nobody reloads.
    until_shown(&stack, "a.example.com");
    stack.until("it is kept", || kept(&stack, ".pem").is_some());
    let standing = status(&stack.site())["standing"].clone();
    assert_eq!(
        (&standing["failures"], &standing["error"]),
        (&0.into(), &Value::Null)
    );
}

#[test]
fn without_room_for_a_certificate_it_is_used_and_kept_when_there_is_some() {
    let Some(pebble) = Pebble::new() else { return };
    let site = pebble.site(&["a.example.com"], BOTH);
    let state = site.path().join("state");
    // The attempt is written down, the account is kept, and then it is full.
    let Some(disk) = Disk::mount(&state, 2 * PAGE) else {
        return;
    };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = site.start();
    let text = stack.until_logged("is used, but cannot be kept");
    assert!(text.contains(NO_ROOM), "{text}");
    let certificate = until_shown(&stack, "a.example.com");
    assert!(kept(&stack, ".pem").is_none(), "half a certificate is kept");
    disk.grow(64 * PAGE);
    stack.until("it is kept", || kept(&stack, ".pem").is_some());
    stack.until("and that it was got", || {
        let noted = kept(&stack, ".json").and_then(|path| fs::read_to_string(path).ok());
        noted.is_some_and(|text| text.contains("\"failures\":0"))
    });
    assert_eq!(stack.logged().matches(": order at ").count(), 1);
    let site = stack.site();
    drop(stack);
    let stack = site.start();
    assert_eq!(shown(&stack, "a.example.com"), certificate);
    assert!(!stack.logged().contains(": order at "));
}

#[test]
fn a_master_that_dies_in_the_middle_of_an_order_is_followed_by_one_that_goes_on() {
    let Some(mut pebble) = Pebble::new() else {
        return;
    };
    let site = pebble.site(&["a.example.com"], BOTH);
    // The authority looks for the challenge where nobody answers it, and so is kept in the middle of the order.
    pebble.http = free_port();
    let there = TcpListener::bind(("127.0.0.1", pebble.http)).expect("it is free");
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = site.start();
    let asked = there.accept().expect("the authority comes");
    kill(stack.pid(), Signal::KILL);
    stack.wait();
    // An attempt is counted before it begins: one that has no end has failed.
    let noted = kept(&stack, ".json").expect("the attempt was written down");
    let noted: Value =
        serde_json::from_str(&fs::read_to_string(noted).expect("it is whole")).expect("JSON");
    assert_eq!(noted["failures"], 1, "{noted}");
    assert_eq!(noted["kind"], "here", "{noted}");
    assert!(kept(&stack, ".pem").is_none());
    // Nobody is there now, so the authority comes by TLS.
    drop((asked, there));
    let site = stack.site();
    drop(stack);
    let stack = site.start();
    let site = stack.site();
    let standing = status(&site)["standing"].clone();
    // It waits as after any failure of this machine, be it started again and again.
    assert_eq!(standing["failures"], 1, "{standing}");
    let (last, next) = (noted["last"].as_u64(), standing["at"].as_u64());
    let pause = next.expect("a moment") - last.expect("a moment");
    assert!((10..=13).contains(&pause), "{noted} {standing}");
    assert!(!is_pebbles(&shown(&stack, "a.example.com")));
    until_shown(&stack, "a.example.com");
    assert_eq!(
        stack.logged().matches(": order at ").count(),
        1,
        "and orders once"
    );
    stack.until("it is kept", || kept(&stack, ".pem").is_some());
    stack.until("all is well", || status(&site)["standing"]["failures"] == 0);
}
