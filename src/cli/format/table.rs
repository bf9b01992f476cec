//! Tables for people: boxes, numbers to the right, NULL apart from the text `NULL` by colour, wide
//! tables cut in the middle to the terminal's width, long ones after a number of rows.
//!
//! Off a terminal nothing is cut; column widths then follow from the first rows, so that a result
//! of any size needs the memory of those rows only. Control characters are shown escaped: what
//! stands in a table must not steer the terminal.

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;

use super::{Format, Sink, Written, text_options};
use crate::cli::terminal::{character_columns, columns};
use crate::error::Result;

/// How a table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableStyle {
    /// Characters a line may have; `None` for no limit.
    pub width_max: Option<usize>,
    /// Rows shown; `None` for all.
    pub rows_max: Option<usize>,
    /// Whether NULL and the frame are dimmed.
    pub colours: bool,
}

/// Rows that decide the widths of the columns.
const SAMPLE_ROWS: usize = 1000;

/// No column is cut below this.
const WIDTH_MIN: usize = 6;

/// A cell of one row: its text, or NULL.
type Cell = Option<String>;

/// Writes tables.
pub(super) struct TableSink<W> {
    writer: W,
    style: TableStyle,
    names: Vec<String>,
    right: Vec<bool>,
    sample: Vec<Vec<Cell>>,
    layout: Option<Layout>,
    rows: u64,
    cut: bool,
}

/// Which columns are shown and how wide.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Widths of the shown columns.
    widths: Vec<usize>,
    /// Index of each shown column; `None` stands for the columns left out in the middle.
    shown: Vec<Option<usize>>,
}

impl<W: Write> TableSink<W> {
    /// A table of `schema`; nothing is written before the first rows are known.
    pub(super) fn new(schema: SchemaRef, writer: W, style: TableStyle) -> Self {
        let names = schema.fields().iter().map(|field| printable(field.name())).collect();
        let right = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        Self { writer, style, names, right, sample: Vec::new(), layout: None, rows: 0, cut: false }
    }

    /// Decides the widths, and writes the head and the rows held so far.
    fn begin(&mut self) -> Result<()> {
        let mut widths: Vec<usize> = self.names.iter().map(|name| columns(name)).collect();
        for row in &self.sample {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(cell.as_deref().unwrap_or("NULL")));
            }
        }
        let layout = fit(widths, self.style.width_max);
        let head: Vec<Cell> = self.names.iter().cloned().map(Some).collect();
        let centre = vec![false; self.right.len()];
        let mut text = frame(&layout, ['┌', '┬', '┐'], self.style.colours);
        text.push_str(&line(&layout, &head, &centre, self.style.colours));
        text.push_str(&frame(&layout, ['├', '┼', '┤'], self.style.colours));
        for row in std::mem::take(&mut self.sample) {
            text.push_str(&line(&layout, &row, &self.right, self.style.colours));
        }
        self.writer.write_all(text.as_bytes())?;
        self.layout = Some(layout);
        Ok(())
    }
}

impl<W: Write> Sink for TableSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        let options = text_options("NULL");
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Format::Table.error(error))?;
        for row in 0..batch.num_rows() {
            if self.style.rows_max.is_some_and(|limit| self.rows >= limit as u64) {
                self.cut = true;
                return Ok(false);
            }
            let mut cells = Vec::with_capacity(formatters.len());
            for (column, formatter) in batch.columns().iter().zip(&formatters) {
                let text = formatter.value(row).try_to_string();
                let text = text.map_err(|error| Format::Table.error(error))?;
                cells.push((!column.is_null(row)).then(|| printable(&text)));
            }
            self.rows += 1;
            match &self.layout {
                Some(layout) => {
                    let text = line(layout, &cells, &self.right, self.style.colours);
                    self.writer.write_all(text.as_bytes())?;
                }
                None => {
                    self.sample.push(cells);
                    if self.sample.len() >= SAMPLE_ROWS {
                        self.begin()?;
                    }
                }
            }
        }
        Ok(true)
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        if self.layout.is_none() {
            self.begin()?;
        }
        if let Some(layout) = &self.layout {
            let text = frame(layout, ['└', '┴', '┘'], self.style.colours);
            self.writer.write_all(text.as_bytes())?;
        }
        self.writer.flush()?;
        Ok(Written { rows: self.rows, cut: self.cut })
    }
}

/// Narrows the widest columns until the table fits; when even the narrowest do not, leaves out
/// columns in the middle.
fn fit(mut widths: Vec<usize>, width_max: Option<usize>) -> Layout {
    let count = widths.len();
    let all = |widths: &[usize]| widths.iter().map(|width| width + 3).sum::<usize>() + 1;
    let Some(limit) = width_max else {
        return Layout { widths, shown: (0..count).map(Some).collect() };
    };
    while all(&widths) > limit {
        let excess = all(&widths) - limit;
        let widest = widths.iter().copied().max().unwrap_or(0);
        if widest <= WIDTH_MIN {
            break;
        }
        // Down to the next widest at once, or just as far as needed.
        let next = widths.iter().copied().filter(|width| *width < widest).max().unwrap_or(0);
        let tied = widths.iter().filter(|width| **width == widest).count();
        let target = next.max(widest.saturating_sub(excess.div_ceil(tied))).max(WIDTH_MIN);
        for width in widths.iter_mut().filter(|width| **width == widest) {
            *width = target;
        }
    }
    let mut shown: Vec<Option<usize>> = (0..count).map(Some).collect();
    if all(&widths) <= limit || count < 3 {
        return Layout { widths, shown };
    }
    let middle = count / 2;
    shown[middle] = None;
    widths[middle] = 1;
    while all(&widths) > limit && shown.len() > 3 {
        let gap = shown.iter().position(Option::is_none).unwrap_or(0);
        let removed = if gap > shown.len() - 1 - gap { gap - 1 } else { gap + 1 };
        shown.remove(removed);
        widths.remove(removed);
    }
    Layout { widths, shown }
}

fn frame(layout: &Layout, corners: [char; 3], colours: bool) -> String {
    let [left, middle, right] = corners;
    let mut text = String::from(left);
    for (index, width) in layout.widths.iter().enumerate() {
        if index > 0 {
            text.push(middle);
        }
        text.push_str(&"─".repeat(width + 2));
    }
    text.push(right);
    let text = dim(&text, colours);
    format!("{text}\n")
}

fn line(layout: &Layout, cells: &[Cell], right: &[bool], colours: bool) -> String {
    let bar = dim("│", colours);
    let mut text = bar.clone();
    for (width, shown) in layout.widths.iter().zip(&layout.shown) {
        let cell = shown.and_then(|index| cells.get(index));
        let to_right = shown.and_then(|index| right.get(index)).copied().unwrap_or(false);
        let content = match cell {
            None => "…".to_owned(),
            Some(None) => "NULL".to_owned(),
            Some(Some(text)) => shorten(text, *width),
        };
        let padding = " ".repeat(width.saturating_sub(columns(&content)));
        let content = if matches!(cell, Some(None)) { dim(&content, colours) } else { content };
        let (before, after) = if to_right { (padding.as_str(), "") } else { ("", &*padding) };
        text.push_str(&format!(" {before}{content}{after} {bar}"));
    }
    text.push('\n');
    text
}

fn dim(text: &str, colours: bool) -> String {
    if colours { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}

/// The text, or its beginning and an ellipsis when it takes more than `width` columns.
fn shorten(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += character_columns(c);
        if used > width {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// The text with control characters escaped, so that it takes one line and steers nothing.
fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_are_narrowed_first() {
        let layout = fit(vec![4, 40, 10], Some(40));
        assert_eq!(layout.widths, [4, 16, 10]);
        assert_eq!(layout.shown, [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn columns_in_the_middle_are_left_out_when_nothing_else_helps() {
        let layout = fit(vec![6; 20], Some(50));
        assert!(layout.shown.contains(&None));
        assert_eq!(layout.shown.first(), Some(&Some(0)));
        assert_eq!(layout.shown.last(), Some(&Some(19)));
        assert!(layout.widths.iter().map(|width| width + 3).sum::<usize>() < 50);
    }

    #[test]
    fn any_number_of_columns_fits_or_is_three() {
        for count in 0..40 {
            for limit in [1, 20, 80] {
                let layout = fit(vec![12; count], Some(limit));
                let width = layout.widths.iter().map(|width| width + 3).sum::<usize>() + 1;
                assert!(width <= limit || layout.shown.len() <= 3, "{count} {limit} {layout:?}");
                assert_eq!(layout.widths.len(), layout.shown.len());
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shorten("日本語日本語", 6), "日本…");
        assert_eq!(shorten("abc", 3), "abc");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
