//! How it looks. Everything that matters fits in 80×24; colours only say again what the text says.

use std::time::{Duration, Instant};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span as Words},
    widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState},
};
use telemetry::{
    metrics,
    text::{Elapsed, Size},
};

use super::model::{Input, Model, Sort, Tab};
use crate::{
    admin::AppStatus,
    view::{self, gauge, grouped, rate, share},
};

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let apps = u16::try_from(model.now.0.apps.len())
        .unwrap_or(u16::MAX)
        .min(6);
    let [head, table_of_apps, tabs, table, foot] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(apps + 1),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(model)), head);
    frame.render_widget(Paragraph::new(apps_lines(model)), table_of_apps);
    frame.render_widget(tab_line(model), tabs);
    draw_table(frame, model, table, now);
    frame.render_widget(foot_line(model), foot);
    if let Some((text, at)) = &model.page {
        draw_page(frame, text, *at);
    }
}

fn head_lines(model: &Model) -> Vec<Line<'static>> {
    let status = &model.now.0;
    let span = model.span();
    let times = span.times(&metrics::DURATION, |_| true);
    let of = |class: char| {
        span.rate(&metrics::REQUESTS, move |labels| {
            labels[2].starts_with(class)
        })
    };
    let errors = of('5');
    let memory = gauge(status, &metrics::MEMORY, |_| true);
    let cpu: f64 = std::iter::once("master")
        .chain(["proxy"])
        .chain(status.apps.iter().map(|app| app.name.as_str()))
        .map(|process| span.cpu(process))
        .sum();
    let state = match &model.lost {
        Some(why) => Words::styled(format!("no answer: {why}"), BAD),
        None if model.paused => Words::styled("paused", BOLD),
        None => Words::styled(status.phase.clone(), BOLD),
    };
    vec![
        Line::from(vec![
            Words::styled("stack ", BOLD),
            state,
            Words::raw(format!(
                "  {}  up {}",
                status.config.display(),
                Elapsed(Duration::from_secs(status.uptime))
            )),
        ]),
        Line::from(vec![
            Words::styled("requests/s ", DIM),
            Words::styled(rate(span.rate(&metrics::REQUESTS, |_| true)), BOLD),
            Words::styled("  4xx/s ", DIM),
            Words::raw(rate(of('4'))),
            Words::styled("  5xx/s ", DIM),
            Words::styled(rate(errors), if errors > 0.0 { BAD } else { Style::new() }),
            Words::styled("  p50 ", DIM),
            Words::raw(share(&times, 0.5)),
            Words::styled("  p99 ", DIM),
            Words::raw(share(&times, 0.99)),
        ]),
        Line::from(vec![
            Words::styled("connections ", DIM),
            Words::raw(grouped(gauge(status, &metrics::CONNECTIONS, |_| true))),
            Words::styled("  buffered ", DIM),
            Words::raw(Size(gauge(status, &metrics::BUFFERED, |_| true)).to_string()),
            Words::styled("  memory ", DIM),
            Words::raw(Size(memory).to_string()),
            Words::styled("  cpu ", DIM),
            Words::raw(format!("{:.0} %", cpu * 100.0)),
            Words::raw(soonest_certificate(model)),
        ]),
        Line::raw(""),
    ]
}

/// Only one that is about to end is worth a place.
fn soonest_certificate(model: &Model) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let certificates = view::certificates(&model.now.0).into_iter();
    let soonest = certificates.min_by(|one, two| one.1.total_cmp(&two.1));
    match soonest {
        Some((site, end)) if end - now < 30.0 * 86_400.0 => {
            format!("  certificate of {site}: {}", view::until(end, now))
        }
        _ => String::new(),
    }
}

fn header(names: &[&'static str]) -> Row<'static> {
    Row::new(names.iter().map(|name| Cell::from(*name))).style(DIM)
}

/// Lines and not a table: why an app cannot start needs the whole width.
fn apps_lines(model: &Model) -> Vec<Line<'static>> {
    let head = format!(
        "{:<10}{:<9}{:<9}{:<9}{:<8}{:<10}{:<10}{:<7}MEMORY",
        "APP", "WORKERS", "BUSY", "WAITING", "REQ/S", "P50", "P99", "CPU"
    );
    let apps = model.now.0.apps.iter();
    let lines = apps.map(|app| app_line(model, app));
    std::iter::once(Line::styled(head, DIM))
        .chain(lines)
        .collect()
}

fn app_line(model: &Model, app: &AppStatus) -> Line<'static> {
    let (status, span) = (&model.now.0, model.span());
    let name = app.name.as_str();
    let serves = app.workers.iter().any(|worker| worker.state == "ready");
    if let (Some(why), false) = (&app.failed, serves) {
        return Line::styled(format!("{name:<10}cannot start: {why}"), BAD);
    }
    let here = |labels: &[String]| labels[0] == name;
    let (busy, slots) = view::slots(status, name);
    let times = span.times(&metrics::APP_DURATION, here);
    let full = slots > 0 && busy == slots;
    Line::from(vec![
        Words::raw(format!("{name:<10}{:<9}", app.workers.len())),
        Words::styled(
            format!("{:<9}", format!("{busy}/{slots}")),
            if full { BAD } else { Style::new() },
        ),
        Words::raw(format!(
            "{:<9}{:<8}{:<10}{:<10}{:<7}{}",
            grouped(gauge(status, &metrics::QUEUE, here)),
            rate(view::per_second(&times, &span)),
            share(&times, 0.5),
            share(&times, 0.99),
            format!("{:.0} %", span.cpu(name) * 100.0),
            view::memory(app),
        )),
    ])
}

fn tab_line(model: &Model) -> Line<'static> {
    let mut words = Vec::new();
    for (at, tab) in Tab::ALL.into_iter().enumerate() {
        let style = if tab == model.tab {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            DIM
        };
        words.push(Words::styled(format!(" {} {} ", at + 1, tab.name()), style));
        words.push(Words::raw(" "));
    }
    words.push(Words::styled(
        match model.sort {
            Sort::Most => " by most",
            Sort::Name => " by name",
        },
        DIM,
    ));
    if !model.filter.is_empty() || model.input == Input::Filter {
        words.push(Words::styled(format!("  /{}", model.filter), BOLD));
    }
    Line::from(words)
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, area: Rect, now: Instant) {
    let table = match model.tab {
        Tab::Running => running_table(model, now),
        Tab::Workers => workers_table(model),
        Tab::Routes => routes_table(model),
        Tab::Failures => failures_table(model),
    };
    let marked = Style::new().add_modifier(Modifier::REVERSED);
    let last = model.rows().checked_sub(1);
    let mut state = TableState::default().with_selected(last.map(|last| model.row.min(last)));
    frame.render_stateful_widget(table.row_highlight_style(marked), area, &mut state);
}

fn running_table(model: &Model, now: Instant) -> Table<'static> {
    let age = model.age(now);
    let rows: Vec<Row<'static>> = model
        .running()
        .into_iter()
        .map(|running| {
            let request = running.request;
            let since = Duration::from_millis(request.since) + age;
            Row::new([
                running.slot,
                Elapsed(since).to_string(),
                request.id.clone(),
                format!("{} {}", request.method, request.target),
            ])
        })
        .collect();
    let widths = [
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(17),
        Constraint::Min(20),
    ];
    Table::new(rows, widths)
        .header(header(&["SLOT", "SINCE", "ID", "REQUEST"]))
        .column_spacing(1)
}

fn workers_table(model: &Model) -> Table<'static> {
    let rows: Vec<Row<'static>> = model
        .workers()
        .into_iter()
        .map(|worker| {
            let busy = worker
                .slots
                .iter()
                .filter(|slot| slot.request.is_some())
                .count();
            let row = Row::new([
                worker.name.clone(),
                worker.pid.to_string(),
                worker.state.clone(),
                view::age(worker.age),
                grouped(worker.requests),
                Size(worker.rss).to_string(),
                format!("{busy}/{}", worker.slots.len()),
            ]);
            if worker.state == "ready" {
                row
            } else {
                row.style(DIM)
            }
        })
        .collect();
    let widths = [14, 9, 11, 13, 11, 10, 7].map(Constraint::Length);
    Table::new(rows, widths)
        .header(header(&[
            "WORKER", "PID", "STATE", "AGE", "REQUESTS", "MEMORY", "BUSY",
        ]))
        .column_spacing(0)
}

fn routes_table(model: &Model) -> Table<'static> {
    let span = model.span();
    let rows: Vec<Row<'static>> = model
        .routes()
        .into_iter()
        .map(|(site, route)| {
            let here = |labels: &[String]| labels[0] == site && labels[1] == route;
            let errors = |labels: &[String]| here(labels) && labels[2].starts_with('5');
            let times = span.times(&metrics::DURATION, here);
            let failing = span.rate(&metrics::REQUESTS, errors);
            let row = [
                rate(span.rate(&metrics::REQUESTS, here)),
                rate(failing),
                share(&times, 0.5),
                share(&times, 0.99),
            ];
            let mut cells: Vec<Cell<'static>> = row.into_iter().map(Cell::from).collect();
            if failing > 0.0 {
                cells[1] = Cell::from(rate(failing)).style(BAD);
            }
            cells.push(Cell::from(format!("{site} {route}")));
            Row::new(cells)
        })
        .collect();
    let widths = [
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Min(20),
    ];
    Table::new(rows, widths)
        .header(header(&["REQ/S", "5XX/S", "P50", "P99", "SITE, ROUTE"]))
        .column_spacing(1)
}

fn failures_table(model: &Model) -> Table<'static> {
    let seconds = model.span().seconds();
    let rows: Vec<Row<'static>> = model
        .failures()
        .into_iter()
        .map(|(name, all, recent)| {
            let meaning =
                telemetry::causes::index(&name).map_or("", |at| telemetry::causes::ALL[at].meaning);
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let lately = recent as f64 / seconds;
            Row::new([rate(lately), grouped(all), name, meaning.to_owned()])
        })
        .collect();
    let widths = [
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(22),
        Constraint::Min(20),
    ];
    Table::new(rows, widths)
        .header(header(&["EACH S", "ALL", "CAUSE", "WHAT HAPPENED"]))
        .column_spacing(1)
}

fn foot_line(model: &Model) -> Line<'static> {
    match (&model.input, &model.note) {
        (Input::Filter, _) => Line::styled("type to filter, Enter keeps it, Esc shows all", BOLD),
        (Input::Confirm(super::Ask::Reload), _) => {
            Line::styled("take new configuration and code? y n", BOLD)
        }
        (Input::Confirm(super::Ask::Recycle { worker }), _) => Line::styled(
            format!("replace {worker}? y does it, any other key does not"),
            BOLD,
        ),
        (_, Some(note)) => Line::styled(note.clone(), BOLD),
        _ => Line::styled(
            "q quit  1-4 Tab tables  s sort  / filter  t trace  k recycle  r reload  ? help",
            DIM,
        ),
    }
}

fn draw_page(frame: &mut Frame<'_>, text: &str, at: u16) {
    let area = frame.area();
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" up, down; any other key closes ");
    let page = Paragraph::new(text.to_owned()).scroll((at, 0)).block(block);
    frame.render_widget(page, area);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::view::tests::example;

    fn drawn(model: &Model) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal
            .draw(|frame| draw(frame, model, model.now.1))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        for (at, cell) in buffer.content().iter().enumerate() {
            text.push_str(cell.symbol());
            if at % 80 == 79 {
                text.push('\n');
            }
        }
        text
    }

    #[test]
    fn all_that_matters_fits_in_80_by_24() {
        let start = Instant::now();
        let mut model = Model::new(example(1000), start);
        model.status(example(3000), start + Duration::from_secs(2));
        let screen = drawn(&model);
        for part in [
            "stack serving  /srv/site.toml  up 2 h 1 min",
            "requests/s 1 100  4xx/s 0  5xx/s 100  p50 1.7 ms  p99 2.4 ms",
            "connections 12  buffered 0 B",
            "web       2        1/2      5        1 000",
            "api       cannot start: ImportError: no",
            "web·1/1      1.2 s        7e5a37dde8abe18c  GET /slow",
            "q quit",
        ] {
            assert!(screen.contains(part), "{part:?} is not in:\n{screen}");
        }
        for (tab, part) in [
            (Tab::Workers, "web·1         9        ready      2 h 0 min"),
            (Tab::Routes, "* /"),
            (
                Tab::Failures,
                "100      300       queue-timeout          No slot became free",
            ),
        ] {
            model.tab = tab;
            let screen = drawn(&model);
            assert!(screen.contains(part), "{part:?} is not in:\n{screen}");
        }
    }

    #[test]
    fn what_is_lost_or_asked_is_said() {
        let mut model = Model::new(example(10), Instant::now());
        model.unreachable("it is gone".to_owned());
        assert!(drawn(&model).contains("no answer: it is gone"));
        model.answer(Ok("web·1/1 runs\n  File \"app.py\"\n".to_owned()));
        assert!(drawn(&model).contains("File \"app.py\""));
    }
}
