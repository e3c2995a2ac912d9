//! `stack trace`: where the Python of every busy slot is, of workers that go on meanwhile.

use std::io::{self, Write};

use crate::{
    admin::{AskTrace, Client, Trace},
    args,
    failure::Failure,
};

/// Asks and says.
pub(crate) fn run(asked: &args::Trace) -> Result<(), Failure> {
    let question = AskTrace {
        app: asked.app.clone(),
    };
    let trace: Trace = Client::find(&asked.file)?.post("/trace", &question)?;
    let mut out = anstream::stdout();
    if asked.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&trace)?)?;
        return Ok(());
    }
    Ok(write(&trace, &mut out)?)
}

/// Says where everybody is.
pub(crate) fn write(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    let mut idle = 0;
    for worker in &trace.workers {
        let who = format!("{} (pid {})", worker.name, worker.pid);
        if let Some(dump) = &worker.dump {
            writeln!(
                out,
                "{who} does not answer, because it starts or because C code holds the GIL; \
                 its threads are at (innermost first)\n{dump}"
            )?;
        } else if worker.slots.is_empty() {
            idle += 1;
        }
        for slot in &worker.slots {
            let what = match &slot.request {
                Some(request) => format!("runs {request}"),
                None => "has just ended what it ran".to_owned(),
            };
            writeln!(
                out,
                "{}/{} (pid {}) {what}",
                worker.name, slot.slot, worker.pid
            )?;
            writeln!(out, "{}", slot.stack)?;
        }
    }
    if idle > 0 {
        let workers = crate::check::plural(idle, "worker");
        writeln!(out, "{workers} with nothing to do")?;
    }
    Ok(())
}
