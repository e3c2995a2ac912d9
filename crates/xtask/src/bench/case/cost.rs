//! What becomes of the cost of a request when there is more of something: cores, connections, sites, routes.

use super::{Bound, Case, Figure, Growth, MANY_SITES, Promise, Size, site};
use crate::bench::{
    load::{
        Request,
        visitors::Crowd,
        wrk::{Each, Hosts, Wrk},
    },
    report::CPU,
    servers,
};

const ONE_CORE: Growth = Growth {
    from: "stack, one core",
    to: "stack",
};

/// To each of the larger crowds.
const CROWDS: [Growth; 3] = [
    crowd("stack, 100 connections"),
    crowd("stack, 1,000 connections"),
    crowd("stack, 10,000 connections"),
];

const fn crowd(to: &'static str) -> Growth {
    Growth { from: "stack", to }
}

const NGINX_CROWD: Growth = Growth {
    from: "nginx",
    to: "nginx, 10,000 connections",
};

/// Flat, but for what no table can help: the names of a thousand, asked for in turn, are not in the nearest cache.
const FLAT: f64 = 1.1;

pub(super) const CASES: &[Case] = &[
    Case {
        size: site::SIZE,
        ..Case::front(
            "cost-cores-hello",
            "the smallest app on two cores and on one, which the load does not have to itself",
            &[servers::CORES],
            &Wrk(Request::get("/")),
            &[Promise::growth(ONE_CORE, 1.15)],
        )
    },
    Case::front(
        "cost-cores-file",
        "a small file on two cores and on one",
        &[servers::FILE_CORES],
        &Wrk(Request::get("/static/1k")),
        &[Promise::growth(ONE_CORE, 1.15)],
    ),
    Case {
        size: Size {
            connections: 10,
            ..Size::FRONT
        },
        ..Case::front(
            "cost-connections",
            "a small file for 10 connections that all ask at once, and for more; how they connect does not count",
            &[servers::CROWDS],
            &Crowd(Request::get("/static/1k")),
            &[
                Promise::growth(CROWDS[0], 1.5),
                Promise::growth(CROWDS[1], 1.5),
                Promise::growth(CROWDS[2], 1.5),
                Promise::new(
                    CPU,
                    Figure::Steeper(CROWDS[2], NGINX_CROWD),
                    Bound::AtMost(1.0),
                ),
            ],
        )
    },
    Case::front(
        "cost-sites",
        "a word from each of a thousand hosts in turn, which are one site or a thousand",
        &[servers::MANY_SITES],
        &Hosts { count: MANY_SITES },
        &[Promise::growth(
            Growth {
                from: "stack",
                to: "stack, 1,000 sites",
            },
            FLAT,
        )],
    ),
    Case::front(
        "cost-routes",
        "a word from each of a thousand paths in turn, which are one route or a thousand",
        &[servers::MANY_ROUTES],
        &Each {
            folder: "/r/",
            count: MANY_SITES,
        },
        &[Promise::growth(
            Growth {
                from: "stack",
                to: "stack, 1,000 routes",
            },
            FLAT,
        )],
    ),
];
