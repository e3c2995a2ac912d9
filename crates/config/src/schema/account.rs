//! `user` and `group`, of the proxy in `[server]` and of the workers in `[app.NAME]`. Whether this machine has them is
//! found out by whoever starts processes.

use crate::{
    error::{Mistake, Problem},
    site::Account,
    walk::{Table, Value},
};

/// What useradd(8) allows.
const LONGEST_NAME: usize = 256;

pub(super) fn read(table: &Table<'_>) -> Option<Account> {
    let user = table.get("user");
    let group = table.get("group");
    if let (None, Some(group)) = (&user, &group) {
        let problem = Problem::new(group.key, "`group` without `user`");
        group
            .notes
            .wrong(problem.hint("add `user`: it says whose group this is"));
    }
    let group = group.and_then(|value| name(&value, "a group such as `\"www-data\"`"));
    let user = name(&user?, "a user such as `\"www-data\"`")?;
    Some(Account { user, group })
}

fn name(value: &Value<'_>, wanted: &str) -> Option<crate::site::Located<String>> {
    value.parsed(wanted, |text| {
        let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, ':' | '/');
        if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(fits) {
            return Err(Mistake::new(format!("{text:?} is not a name")));
        }
        if text.chars().all(|c| c.is_ascii_digit()) {
            let mistake = Mistake::new(format!("{text:?} is a number, not a name"));
            return Err(mistake.hint(format!("`getent passwd {text}` tells whose it is")));
        }
        Ok(text.to_owned())
    })
}

/// `umask = "027"`.
pub(super) fn umask(table: &Table<'_>) -> Option<u32> {
    let value = table.get("umask")?;
    if value.is_integer() {
        let mistake = value.type_mistake("octal digits in quotes such as `\"027\"`");
        value.wrong(mistake.hint("write it in quotes: TOML would read the digits as decimal"));
        return None;
    }
    let wanted = "octal digits in quotes such as `\"027\"`";
    let mask = value.parsed(wanted, |text| {
        let digits = (1..=4).contains(&text.len()) && text.chars().all(|c| c.is_digit(8));
        let mask = u32::from_str_radix(text, 8).ok();
        mask.filter(|mask| digits && *mask <= 0o777)
            .ok_or_else(|| Mistake::new(format!("expected {wanted}, found {text:?}")))
    });
    Some(mask?.value)
}
