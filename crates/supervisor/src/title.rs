//! What `ps` and `top` show of a process.
//!
//! `ps` shows the memory in which the kernel has put the arguments of the process (proc_pid_cmdline(5)), so that is where a
//! title is written, as PostgreSQL and nginx do; it never leaves that memory, because the environment lies behind it. `top`
//! shows the name of the first thread (PR_SET_NAME(2const)).

use std::{ffi::CString, fs, ptr};

/// Longest name of a thread, in bytes.
const NAME_MAX: usize = 15;

/// The place of this process's title.
#[derive(Clone, Copy, Debug)]
pub struct Title {
    /// Where the arguments are, and how many bytes they take with their ends; `None` where the kernel does not say.
    place: Option<(usize, usize)>,
}

impl Title {
    /// Finds it. To be asked before the process gives up its view of `/proc`, and after everybody has read the arguments who
    /// wants them: they are overwritten.
    #[must_use]
    pub fn find() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            place: place(&stat),
        }
    }

    /// Shows `name` where there is little room, and elsewhere the first of `titles` that fits. Where none does, the arguments
    /// stay. To be called on the first thread.
    pub fn set(self, name: &str, titles: &[&str]) {
        if let Ok(name) = CString::new(&name[..name.floor_char_boundary(NAME_MAX)]) {
            // A process without a name is no worse.
            let _ = rustix::thread::set_name(&name);
        }
        let Some((start, length)) = self.place else {
            return;
        };
        let fits = |title: &&&str| title.len() < length;
        if let Some(title) = titles.iter().find(fits) {
            let mut bytes = title.as_bytes().to_vec();
            bytes.resize(length, 0);
            let to = ptr::with_exposed_provenance_mut::<u8>(start);
            // SAFETY: the kernel has mapped these bytes writable, at the end of the first thread's stack, and they stay for as
            // long as the process lives. Nothing of ours refers to them any more; whoever follows `argv` again finds strings
            // that end, because the last byte stays zero.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, length) };
        }
    }
}

/// `arg_start` and `arg_end` of proc_pid_stat(5), fields 48 and 49.
fn place(stat: &str) -> Option<(usize, usize)> {
    // The name of the program, in parentheses, may have anything in it; the field behind it is the third.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3);
    let mut next = || fields.next()?.parse::<usize>().ok();
    let (start, end) = (next()?, next()?);
    let length = end.checked_sub(start)?;
    (start > 0 && length > 0).then_some((start, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_whatever_the_program_is_called() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("1 (a ) b) S {}", fields.join(" "));
        assert_eq!(place(&stat), Some((48, 1)));
        assert_eq!(place("1 (a) S 1 2"), None);
        assert_eq!(place(""), None);
    }

    /// In a process of its own: the arguments of a test are read by others.
    const ROLE: &str = "STACK_TEST_TITLE";

    #[test]
    fn process_with_a_title() {
        let Some(titles) = std::env::var_os(ROLE) else {
            return;
        };
        let titles = titles.into_string().unwrap();
        let titles: Vec<&str> = titles.split('|').collect();
        Title::find().set("a name·with too many bytes", &titles);
        let shown = fs::read("/proc/self/cmdline").unwrap();
        let shown = String::from_utf8(shown).unwrap();
        println_for_the_test(&format!("<{}>", shown.trim_end_matches('\0')));
        let args = std::env::args().count();
        assert!(args > 0, "they can still be followed");
    }

    fn println_for_the_test(text: &str) {
        use std::io::Write as _;
        std::io::stdout().write_all(text.as_bytes()).unwrap();
    }

    fn shown(titles: &str) -> String {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("title::tests::process_with_a_title")
            .env(ROLE, titles)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, rest) = text.split_once('<').unwrap();
        rest.split_once('>').unwrap().0.to_owned()
    }

    #[test]
    fn the_first_title_that_fits_is_shown_and_else_the_arguments() {
        assert_eq!(
            shown("stack: worker web·3 (draining)"),
            "stack: worker web·3 (draining)"
        );
        let long = "x".repeat(4000);
        assert_eq!(shown(&format!("{long}|short")), "short");
        assert!(shown(&long).contains("--exact"));
    }
}
