//! Children of every kind.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsRawFd,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
};

use super::*;
use crate::fds;

fn shell(script: &str) -> Command {
    Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
}

async fn output(command: Command) -> (String, Exit) {
    let mut child = command.spawn().unwrap();
    let exit = child.wait().await.unwrap();
    let mut text = String::new();
    File::from(child.stdout.take().unwrap())
        .read_to_string(&mut text)
        .unwrap();
    (text, exit)
}

fn lines(child: &mut Child) -> Lines<BufReader<pipe::Receiver>> {
    let stdout = child.stdout.take().unwrap();
    BufReader::new(pipe::Receiver::from_owned_fd(stdout).unwrap()).lines()
}

async fn number(lines: &mut Lines<BufReader<pipe::Receiver>>) -> Pid {
    let line = lines.next_line().await.unwrap().expect("a process id");
    Pid::from_raw(line.trim().parse().unwrap()).unwrap()
}

/// Waits until a process that is not our child has ended; a zombie has.
async fn ended(pid: Pid) {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let gone = async {
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("it lives on");
}

#[tokio::test]
async fn ends_are_told_as_they_were() {
    let cases = [
        ("exit 0", Exit::Code(0), "exit code 0"),
        ("exit 3", Exit::Code(3), "exit code 3"),
        (
            "ulimit -c 0; kill -SEGV $$",
            Exit::Signal {
                number: 11,
                core: false,
            },
            "killed by SIGSEGV",
        ),
        (
            "kill -KILL $$",
            Exit::Signal {
                number: 9,
                core: false,
            },
            "killed by SIGKILL",
        ),
        (
            "kill -40 $$",
            Exit::Signal {
                number: 40,
                core: false,
            },
            "killed by signal 40",
        ),
    ];
    for (script, expected, words) in cases {
        let (_, exit) = output(shell(script)).await;
        assert_eq!(exit, expected, "{script}");
        assert_eq!(exit.to_string(), words);
    }
    let core = Exit::Signal {
        number: libc::SIGABRT,
        core: true,
    };
    assert_eq!(core.to_string(), "killed by SIGABRT (core dumped)");
}

#[tokio::test]
async fn the_end_can_be_asked_again_and_signals_after_it_are_nothing() {
    let mut child = shell("exit 5").spawn().unwrap();
    assert_eq!(child.wait().await.unwrap(), Exit::Code(5));
    assert_eq!(child.wait().await.unwrap(), Exit::Code(5));
    child.signal(Signal::TERM).unwrap();
}

#[tokio::test]
async fn a_missing_program_or_folder_is_an_error_with_its_name() {
    let missing = Command::new("/no/such/python").spawn().unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cannot run /no/such/python: No such file or directory (os error 2)"
    );
    let folder = shell("true")
        .directory("/no/such/folder")
        .spawn()
        .unwrap_err();
    assert_eq!(folder.source.kind(), io::ErrorKind::NotFound);
}

fn memory(text: &str) -> OwnedFd {
    fds::sealed_memory("test", text.as_bytes()).unwrap()
}

/// Descriptors that lie on each other's targets, next to one that leaks into every child.
#[tokio::test]
async fn descriptors_have_their_numbers_and_nothing_else_is_open() {
    let leaking = memory("leak");
    rustix::io::fcntl_setfd(&leaking, rustix::io::FdFlags::empty()).unwrap();
    let mut given: Vec<OwnedFd> = ["a", "b", "c", "d", "e"].map(memory).into();
    given.sort_by_key(AsRawFd::as_raw_fd);
    // Each gets the number that its neighbour has now; the last one gets 3.
    let mut targets: Vec<RawFd> = given.iter().skip(1).map(AsRawFd::as_raw_fd).collect();
    targets.push(3);
    let mut expected: Vec<(RawFd, String)> = Vec::new();
    let script = "import os\n\
                  for n in sorted(int(n) for n in os.listdir('/proc/self/fd')):\n\
                  \x20   try: print(n, os.pread(n, 9, 0).decode() if n > 2 else '-')\n\
                  \x20   except OSError: pass\n";
    let mut command = Command::new("python3")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe);
    for (descriptor, number) in given.into_iter().zip(targets) {
        let mut text = String::new();
        File::from(descriptor.try_clone().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        expected.push((number, text));
        command = command.descriptor(descriptor, number);
    }
    let (text, exit) = output(command).await;
    assert_eq!(exit, Exit::Code(0));
    expected.sort();
    let expected: Vec<String> = expected
        .iter()
        .map(|(n, text)| format!("{n} {text}"))
        .collect();
    let seen: Vec<&str> = text.lines().filter(|line| !line.ends_with('-')).collect();
    assert_eq!(seen, expected);
}

/// The pipe on which a failed exec is reported must survive whatever numbers are given.
#[tokio::test]
async fn a_failed_exec_is_reported_even_when_every_low_number_is_given() {
    let mut command = Command::new("/no/such/program");
    for number in 3..40 {
        command = command.descriptor(memory("x"), number);
    }
    assert_eq!(
        command.spawn().unwrap_err().source.kind(),
        io::ErrorKind::NotFound
    );
}

#[tokio::test]
async fn signals_environment_folder_umask_and_group_are_set() {
    let script = "import os, signal\n\
                  print(signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL, signal.pthread_sigmask(0, []))\n\
                  print(os.getcwd(), os.environ.get('GIVEN'), os.environ.get('CARGO_PKG_NAME'))\n\
                  print(oct(os.umask(0)), os.getpgid(0) == os.getpid())\n";
    let command = Command::new("python3")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
        .env("GIVEN", "yes")
        .env_remove("CARGO_PKG_NAME")
        .directory("/proc")
        .umask(0o027)
        .own_group();
    // SAFETY: no handler is set; the children of this test must see the default again.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    let (text, exit) = output(command).await;
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(text, "True set()\n/proc yes None\n0o27 True\n");
}

/// `None` where this test may not become another user.
fn nobody() -> Option<User> {
    if !crate::user::may_switch() {
        let _ = writeln!(
            io::stderr(),
            "NOT TESTED: only root can become another user"
        );
        return None;
    }
    Some(
        User::find("nobody")
            .unwrap()
            .expect("every Linux has this user"),
    )
}

#[tokio::test]
async fn another_user_has_nothing_of_ours() {
    let Some(nobody) = nobody() else { return };
    let (uid, gid) = (nobody.uid(), nobody.gid());
    let theirs = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(theirs.path(), Some(uid), None).unwrap();
    let script = "import os\n\
                  print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER'], os.environ['HOME'])\n\
                  status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n\
                  print([int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')])\n\
                  print(status['NoNewPrivs'].strip(), os.stat('.').st_uid)\n\
                  print(open('/etc/shadow').read())\n";
    let home = nobody.home.display().to_string();
    let command = Command::new("python3")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Null)
        .user(nobody)
        .no_new_privileges()
        .directory(theirs.path());
    let (text, exit) = output(command).await;
    assert_eq!(exit, Exit::Code(1), "it read /etc/shadow:\n{text}");
    let expected = format!(
        "({uid}, {uid}, {uid}) ({gid}, {gid}, {gid}) [{gid}] nobody {home}\n[0, 0, 0, 0]\n1 {uid}\n"
    );
    assert_eq!(text, expected);
}

/// The master is root; a folder that only root may enter is no place for an app.
#[tokio::test]
async fn a_folder_is_entered_with_the_rights_of_the_child() {
    use std::os::unix::fs::PermissionsExt as _;

    let Some(nobody) = nobody() else { return };
    let private = std::fs::Permissions::from_mode(0o700);
    let ours = tempfile::Builder::new()
        .permissions(private)
        .tempdir()
        .unwrap();
    let refused = shell("true").user(nobody).directory(ours.path()).spawn();
    assert_eq!(
        refused.unwrap_err().source.kind(),
        io::ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn a_group_ends_with_its_leader() {
    let mut child = shell("sleep 600 & echo $!; exec sleep 600")
        .own_group()
        .spawn()
        .unwrap();
    let mut lines = lines(&mut child);
    let grandchild = number(&mut lines).await;
    child.signal(Signal::TERM).unwrap();
    assert_eq!(
        child.wait().await.unwrap(),
        Exit::Signal {
            number: libc::SIGTERM,
            core: false
        }
    );
    ended(grandchild).await;
}

#[tokio::test]
async fn a_dropped_child_is_killed() {
    let mut child = shell("echo $$; exec sleep 600").spawn().unwrap();
    let mut lines = lines(&mut child);
    let pid = number(&mut lines).await;
    drop(child);
    ended(pid).await;
}

/// The end of a stream is not the end of a child, and an open stream is not life.
#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_does_not_delay_the_news() {
    let mut child = shell("sleep 600 & echo $!; exit 4").spawn().unwrap();
    let mut lines = lines(&mut child);
    let grandchild = number(&mut lines).await;
    let exit = tokio::time::timeout(Duration::from_secs(10), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(exit, Exit::Code(4));
    rustix::process::kill_process(grandchild, Signal::KILL).unwrap();
}

/// Plays the master in a process of its own when the variable is set: starts a child and is killed.
const ROLE: &str = "STACK_TEST_MASTER";

#[test]
fn master_that_is_killed() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let sleep = Command::new("sleep");
        // The change of user would clear the death signal.
        let sleep = nobody().into_iter().fold(sleep, Command::user);
        let child = sleep.arg("600").own_group().spawn().unwrap();
        let mut stderr = io::stderr();
        writeln!(stderr, "{}", child.pid()).unwrap();
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn children_do_not_outlive_a_master_that_is_killed() {
    let mut master = Command::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg("--nocapture")
        .arg("child::tests::master_that_is_killed")
        .env(ROLE, "1")
        .stdout(Stdio::Null)
        .stderr(Stdio::Pipe)
        .spawn()
        .unwrap();
    master.stdout = master.stderr.take();
    let mut lines = lines(&mut master);
    let grandchild = number(&mut lines).await;
    master.signal(Signal::KILL).unwrap();
    master.wait().await.unwrap();
    ended(grandchild).await;
}

#[tokio::test]
async fn limits_are_the_childs() {
    let command = shell("ulimit -n; ulimit -Hn; ulimit -d")
        .open_files(77)
        .data(512 << 20);
    let (text, exit) = output(command).await;
    assert_eq!(text, "77\n77\n524288\n");
    assert_eq!(exit, Exit::Code(0));
}

/// What a child finds as `/tmp` is its own where we may mount, and `TMPDIR` leads to it everywhere.
#[tokio::test]
async fn temporary_files_are_the_childs_alone() {
    // Not below /tmp, where it would be hidden from the child.
    let parent = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let tmp = PrivateTmp::make(parent.path(), "web", None, &[]).unwrap();
    let marker = format!("stack-test-{}", process::id());
    let script =
        format!("echo here > \"$TMPDIR/{marker}\" && ls \"$TMPDIR\"; ls /tmp | grep -c {marker}");
    let (text, _) = output(shell(&script).private_tmp(&tmp)).await;
    let seen = if tmp.is_mounted() { 1 } else { 0 };
    assert_eq!(text, format!("{marker}\n{seen}\n"));
    assert!(!std::path::Path::new("/tmp").join(&marker).exists());
    if !tmp.is_mounted() {
        println!("!!! SKIPPED: without CAP_SYS_ADMIN nothing can be mounted for a child");
    }
}

#[tokio::test]
async fn who_wakes_politely_has_the_batch_policy_and_hands_it_on() {
    // What `sh` starts has it from `sh`. The 41st field of proc_pid_stat(5), counted from behind the name in parentheses.
    let policy = || shell("sed 's/.*) //' /proc/self/stat | cut -d' ' -f39");
    let (ours, exit) = output(policy()).await;
    assert_eq!(exit, Exit::Code(0));
    let (theirs, exit) = output(policy().wakes_politely()).await;
    assert_eq!(exit, Exit::Code(0));
    let expected = match ours.trim() {
        "0" => "3",
        other => other,
    };
    assert_eq!(theirs.trim(), expected);
}
