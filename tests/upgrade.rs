//! Another master takes over from a running one without losing a request; one that cannot changes nothing.

use std::fs;

use rustix::process::Signal;

use crate::harness::{
    Site, Stack, is_alive, kill,
    load::{APP, Load},
};

/// The master that serves now, which is no child of the test: it is ended with this.
pub struct Heir(pub u32);

impl Heir {
    pub fn of(stack: &Stack) -> Self {
        let told = stack.told("MAINPID=").expect("told at the start");
        Self(told.parse().expect("a process id"))
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if is_alive(self.0) {
            kill(self.0, Signal::KILL);
        }
    }
}

#[test]
fn an_upgrade_under_load_is_noticed_by_nobody() {
    let stack = Site::with_app(APP).start();
    let first = stack.pid();
    let load = Load::start(stack.http(), 3);
    let (code, said) = stack.site().run("upgrade");
    assert_eq!(code, Some(0), "{said}\n{}", stack.logged());
    stack.until_ended();
    let second = Heir::of(&stack);
    assert_ne!(second.0, first);
    assert!(said.contains(&second.0.to_string()), "{said}");
    // systemd believes only the process that it knows (`NotifyAccess=main`).
    let names = format!("MAINPID={}", second.0);
    assert!(stack.told_by(&names).contains(&first), "by the first one");
    // And once more, by signal, from the one that took over.
    kill(second.0, Signal::USR2);
    stack.until_output("the second heir", || Heir::named(&stack) != second.0);
    let third = Heir::of(&stack);
    stack.until_output("the second one has left", || !is_alive(second.0));
    let (code, said) = stack.site().run("status");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("(pid {})", third.0)), "{said}");
    load.finish(stack.path()).is_perfect();
    kill(third.0, Signal::TERM);
    stack.until_output("it stops as any other", || !is_alive(third.0));
}

impl Heir {
    fn named(stack: &Stack) -> u32 {
        let told = stack.told("MAINPID=").unwrap_or_default();
        told.parse().unwrap_or_default()
    }
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let stack = Site::with_app(APP).start();
    let (first, workers) = (stack.pid(), stack.workers());
    let load = Load::start(stack.http(), 2);
    fs::write(stack.path().join("app.py"), "import nonsense\n").expect("the folder is ours");
    let (code, said) = stack.site().run("upgrade");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("No module named 'nonsense'"), "{said}");
    fs::write(stack.path().join("app.py"), APP).expect("the folder is ours");
    stack.site().edit("threads = 2", "threads = two");
    let (code, said) = stack.site().run("upgrade");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("threads = two"), "{said}");
    load.finish(stack.path()).is_perfect();
    assert_eq!((stack.pid(), stack.workers()), (first, workers));
    assert_eq!(
        stack.site().run("status").0,
        Some(0),
        "it can still be asked"
    );
}
