//! How results look: tables for people, JSON and YAML for programs. Colours only on a terminal.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Failure;
use crate::clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// How to show it.
    #[arg(short, long = "output", value_enum, default_value_t)]
    pub output: Format,
}

impl Output {
    /// `value` for programs, else the table that `rows` makes (given whether it may be wide).
    pub fn show<T: Serialize>(self, value: &T, rows: impl FnOnce(bool) -> String) -> Result<(), Failure> {
        match self.output {
            Format::Json => put(&serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?),
            Format::Yaml => put(serde_saphyr::to_string(value).map_err(anyhow::Error::from)?.trim_end()),
            Format::Table => put(rows(false).trim_end()),
            Format::Wide => put(rows(true).trim_end()),
        }
        Ok(())
    }
}

/// To stdout. Whoever reads may have seen enough (`| head`): then there is nothing left to do.
pub fn put(text: &str) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A header and the rows below it.
pub type Rows = (&'static [&'static str], Vec<Vec<String>>);

/// Aligned columns without lines, as wide as they need.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    Columns::default().lines(header, &rows.into_iter().collect::<Vec<_>>())
}

/// The widths of a table that goes on: columns stay where they are while rows come, and move, under
/// a new header, only for a cell that is wider than any before.
#[derive(Debug, Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    pub fn lines(&mut self, header: &[&str], rows: &[Vec<String>]) -> String {
        let before = std::mem::take(&mut self.widths);
        let fits = |column: usize, name: &str| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
            cells.fold(name.len().max(before.get(column).copied().unwrap_or(0)), usize::max)
        };
        self.widths = header.iter().enumerate().map(|(column, name)| fits(column, name)).collect();
        let header = (self.widths != before).then(|| self.line(header.iter().copied()));
        let rows = rows.iter().map(|row| self.line(row.iter().map(String::as_str)));
        header.into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>) -> String {
        let padded = cells.zip(&self.widths).map(|(cell, wide)| format!("{cell}{:1$}", "", wide - width(cell)));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// What a cell takes on a terminal: colours take nothing.
fn width(cell: &str) -> usize {
    let mut painted = false;
    let seen = |c: &char| {
        let shown = !painted && *c != '\x1b';
        painted = (painted || *c == '\x1b') && *c != 'm';
        shown
    };
    cell.chars().filter(seen).count()
}

pub fn green(text: &str) -> String {
    paint("32", text)
}

pub fn yellow(text: &str) -> String {
    paint("33", text)
}

pub fn red(text: &str) -> String {
    paint("31", text)
}

fn paint(code: &str, text: &str) -> String {
    let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

/// A moment in milliseconds since the epoch, as its distance from now: `12s`, `3m05s`, `2h10m`.
pub fn age_ms(at: u64) -> String {
    span(clock::now_ms().saturating_sub(at) / 1000)
}

/// Until a moment in seconds since the epoch; `expired` after it.
pub fn until(at: u64) -> String {
    match at.checked_sub(clock::now()) {
        Some(left) if left > 0 => span(left),
        Some(_) | None => "expired".into(),
    }
}

pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A time of day in UTC from milliseconds since the epoch.
pub fn clock_time(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "-".into(), |at| at.strftime("%H:%M:%S%.3f").to_string())
}

pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".into(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_have_two_units() {
        let cases = [(0, "0s"), (59, "59s"), (65, "1m05s"), (3599, "59m59s"), (7800, "2h10m"), (90_000, "1d01h")];
        for (seconds, want) in cases {
            assert_eq!(span(seconds), want);
        }
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let text = table(&["A", "LONGER"], [vec!["value".into(), "x".into()], vec!["v".into(), "y".into()]]);
        assert_eq!(text, "A      LONGER\nvalue  x\nv      y");
    }

    #[test]
    fn columns_stay_where_they_are_until_a_cell_is_wider_and_colours_take_no_room() {
        let mut columns = Columns::default();
        let mut lines = |a: &str| columns.lines(&["A", "B"], &[vec![a.into(), "y".into()]]);
        assert_eq!(lines("wide"), "A     B\nwide  y");
        assert_eq!(lines("w"), "w     y");
        assert_eq!(lines("\x1b[31mw\x1b[0m"), "\x1b[31mw\x1b[0m     y");
        assert_eq!(lines("wider"), "A      B\nwider  y");
        assert_eq!(lines("w"), "w      y");
    }
}
