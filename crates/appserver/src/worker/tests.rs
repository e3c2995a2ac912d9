//! The life of a worker, with a shell script in the place of Python.

use std::collections::BTreeMap;

use config::site::{Interpreter, Strategy, Workers};

use super::*;

/// A folder with an interpreter that is this shell script.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn with(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python");
        fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn template(&self) -> Template {
        let path = self.folder.path();
        Template {
            app: app(path),
            interpreter: path.join("python"),
            run_directory: path.to_owned(),
            module: Arc::new(Module {
                file: File::open("/dev/null").unwrap().into(),
            }),
            proxy_uid: rustix::process::geteuid().as_raw(),
            user: None,
            allowance: Allowance::default(),
            grace: Duration::from_secs(30),
            dev: false,
        }
    }
}

fn app(root: &Path) -> App {
    let entry = Entry {
        module: "app".to_owned(),
        attribute: "app".to_owned(),
        factory: false,
    };
    App {
        name: "web".to_owned(),
        wsgi: Located {
            value: entry,
            span: None,
        },
        on_start: None,
        on_stop: None,
        account: None,
        umask: None,
        root: Located {
            value: root.to_owned(),
            span: None,
        },
        interpreter: Located {
            value: Interpreter::Search,
            span: None,
        },
        workers: Workers::fixed(2),
        threads: 4,
        streams: None,
        env: BTreeMap::from([("GIVEN".to_owned(), "yes".to_owned())]),
        sendfile: Vec::new(),
        timeout: Duration::from_secs(30),
        boot_timeout: Duration::from_secs(60),
        max_requests: None,
        max_rss: None,
        max_age: None,
        memory_max: None,
        nofile: None,
        private_tmp: false,
        reload: Strategy::SideBySide,
        before_reload: None,
        before_reload_timeout: Duration::from_secs(600),
    }
}

async fn life(worker: Worker, orders: &[Order]) -> Vec<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for order in orders {
        sender.send(*order).unwrap();
    }
    let (report_to, mut reports) = mpsc::unbounded_channel();
    tokio::time::timeout(Duration::from_secs(20), worker.run(receiver, report_to))
        .await
        .unwrap();
    let mut events = Vec::new();
    while let Ok(said) = reports.try_recv() {
        match said {
            Said::Event(event) => events.push(event),
            other => panic!("not asked for: {other:?}"),
        }
    }
    events
}

#[tokio::test]
async fn a_worker_finds_what_it_is_given_and_is_told_to_leave() {
    let place = Place::with(
        r#"[ "$1 $3" = "-c web·3" ] && [ "$GIVEN" = yes ] && [ "$PWD" -ef "$(dirname "$0")" ] || exit 10
        grep -q "import sys" <&3 || exit 11
        grep -q '"number":3.*"listener":6,"control":7,"proxy_uid":'$(id -u) <&4 || exit 12
        [ "$(readlink /proc/$$/fd/5)" = /dev/null ] || exit 13
        case "$(readlink /proc/$$/fd/6)" in socket:*) ;; *) exit 14 ;; esac
        case "$(readlink /proc/$$/fd/8)" in */memfd:stack-scoreboard*) ;; *) exit 17 ;; esac
        case "$(readlink /proc/$$/fd/9)" in pipe:*) ;; *) exit 18 ;; esac
        # 10 is where dash has this script.
        [ -e /proc/$$/fd/11 ] && exit 15
        echo '"Ready"' >&7
        read -r order <&7 && [ "$order" = '"Drain"' ] || exit 16"#,
    );
    let template = place.template();
    let worker = Worker::start(&template, 3).unwrap();
    let socket = template.socket(3);
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let events = life(worker, &[Order::Drain]).await;
    let exited = Event::Exited {
        number: 3,
        exit: Exit::Code(0),
    };
    assert_eq!(events, [Event::Ready { number: 3 }, exited]);
    assert!(!socket.exists(), "the socket goes with its worker");
}

/// What it says right before its end must not be overtaken by the news of its end.
#[tokio::test]
async fn last_words_come_before_the_end() {
    let place = Place::with(r#"echo '{"Failed":{"why":"no","traceback":"tb"}}' >&7; exit 1"#);
    for number in 1..20 {
        let worker = Worker::start(&place.template(), number).unwrap();
        let failed = Event::Failed {
            number,
            why: "no".to_owned(),
            traceback: "tb".to_owned(),
        };
        let exited = Event::Exited {
            number,
            exit: Exit::Code(1),
        };
        assert_eq!(life(worker, &[]).await, [failed, exited]);
    }
}

#[tokio::test]
async fn nonsense_is_the_end_of_the_conversation_only() {
    let place = Place::with(r#"echo 'hello?' >&7; echo '"Ready"' >&7; exit 0"#);
    let worker = Worker::start(&place.template(), 1).unwrap();
    let events = life(worker, &[]).await;
    assert_eq!(
        events,
        [Event::Exited {
            number: 1,
            exit: Exit::Code(0)
        }]
    );
}

#[tokio::test]
async fn a_worker_is_killed_with_all_that_it_started() {
    let place = Place::with("sleep 600 & echo $! > child; wait");
    let worker = Worker::start(&place.template(), 1).unwrap();
    let child = place.folder.path().join("child");
    let pid = loop {
        match fs::read_to_string(&child) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    let events = life(worker, &[Order::Kill]).await;
    let exit = Exit::Signal {
        number: 9,
        core: false,
    };
    assert_eq!(events, [Event::Exited { number: 1, exit }]);
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    while fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_named_and_leaves_nothing_behind() {
    let place = Place::with("exit 0");
    let mut template = place.template();
    template.interpreter = "/no/such/python".into();
    let error = Worker::start(&template, 1).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot run /no/such/python: No such file or directory (os error 2); \
         install it, or name another with `venv` or `python` in [app.web]"
    );
    assert!(!template.socket(1).exists());
    template.app.root.value = "/no/such/root".into();
    let error = Worker::start(&template, 1).unwrap_err().to_string();
    assert_eq!(error, "the app's folder /no/such/root is gone");
}

#[test]
fn the_module_is_looked_for_where_cargo_leaves_it_first() {
    let folder = tempfile::tempdir().unwrap();
    let executable = folder.path().join("stack");
    let error = Module::beside(&executable).unwrap_err().to_string();
    assert!(
        error.contains("deps/lib_stack.so") && error.contains("cargo build"),
        "{error}"
    );
    fs::write(folder.path().join("lib_stack.so"), "").unwrap();
    Module::beside(&executable).unwrap();
}
