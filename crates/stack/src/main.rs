//! `stack`: nginx and gunicorn as one binary. This file picks the command and turns its end into an exit code.

mod acme;
mod admin;
mod args;
mod check;
mod develop;
mod exec;
mod failure;
mod identity;
mod import;
mod init;
mod install;
mod load;
mod log;
mod maintenance;
mod module;
mod pages;
mod passwd;
mod proxy;
mod reload;
mod role;
mod serve;
mod status;
mod summary;
mod top;
mod trace;
mod up;
mod upgrade;
mod version;
mod view;

use std::process::ExitCode;

use crate::args::Command;

fn main() -> ExitCode {
    let result = match args::parse().command {
        Command::Up(up) => up::from_arguments(up),
        Command::Serve(serve) => serve::run(*serve),
        Command::Check(asked) => check::run(&asked),
        Command::Exec(asked) => exec::run(&asked),
        Command::Init(asked) => init::run(&asked),
        Command::Import(asked) => import::run(&asked),
        Command::Install(asked) => install::install(&asked),
        Command::Uninstall(asked) => install::uninstall(&asked),
        Command::Reload(asked) => reload::run(&asked),
        Command::Upgrade(file) => upgrade::run(&file),
        Command::Status(asked) => status::run(&asked),
        Command::Top(asked) => top::run(&asked),
        Command::Log(asked) => log::run(&asked),
        Command::Maintenance(asked) => maintenance::run(&asked),
        Command::Trace(asked) => trace::run(&asked),
        Command::Reference => pages::reference(),
        Command::Passwd(asked) => passwd::run(&asked),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { of, dir } => pages::man(of.as_deref(), dir.as_deref()),
        Command::Proxy => proxy::run(),
        Command::Acme => acme::run(),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    };
    telemetry::log::flush();
    code
}
