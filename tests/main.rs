//! What stack promises, one file each, tried on the real binary with a real Python, real TLS and real sockets.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "a test binary has no users; its names are its documentation"
)]

mod harness;

mod access;
mod acme;
mod acme_interrupted;
mod admin;
mod allowances;
mod browser;
mod children;
mod compression;
mod config;
mod confinement;
mod crashes;
mod deploy;
mod dev;
mod differential;
mod documentation;
mod encodings;
mod environ;
mod errors;
mod exec;
mod figures;
mod files;
mod forward;
mod frameworks;
mod grpc;
mod handed;
mod hangups;
mod http1;
mod http2;
mod http2_attacks;
mod http2_origins;
mod import;
mod init;
mod interim;
mod interpreters;
mod limits;
mod logs;
mod maintenance;
mod manager;
mod mistakes;
mod operators;
mod overload;
mod pages;
mod privileges;
mod proxies;
mod ranges;
mod raw;
mod recycling;
mod reload;
mod routes;
mod same_files;
mod serve;
mod serving;
mod shutdown;
mod slow_clients;
mod startup;
mod stuck;
mod tls;
mod tools;
mod traces;
mod traversal;
mod tunnels;
mod upgrade;
mod upstream;
mod upstream_tls;
mod wsgi;
