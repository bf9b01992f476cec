//! Mondrian: local recoding by cutting the rows in two, again and again (LeFevre et al. 2006).
//!
//! Strict and multidimensional: a part is cut at the median of the column that spreads most there,
//! as a share of its spread in all rows; where a side would not be what it must be, at the next
//! column's. What cannot be cut is a class. Rows of one value of a column never lie on both sides.
//! A class shows the interval or the set of the values in it, or where the column has a hierarchy
//! the lowest label that all have.

use std::sync::Arc;

use datafusion_common::Result;

use super::super::hierarchy::SUPPRESSED;
use super::Input;
use super::column::{CodedColumn, Kind};
use super::criteria::Checker;
use super::domain::Domains;
use crate::fuzzy::stop::Stop;

/// More values than these are shown as the first and the last.
const VALUES_SHOWN: usize = 8;

/// The rows of each class; `None` where not even all rows together are what a class must be.
///
/// # Errors
/// When nobody waits any more.
pub(super) fn partition(
    input: &Input,
    checker: &Checker,
    stop: &Stop,
) -> Result<Option<Vec<Vec<u32>>>> {
    let all: Vec<u32> = (0..input.rows() as u32).collect();
    if !holds(input, checker, &all) {
        return Ok(None);
    }
    let (mut parts, mut classes) = (vec![all], vec![]);
    while let Some(part) = parts.pop() {
        stop.check()?;
        match cut(input, checker, &part, stop)? {
            Some([low, high]) => {
                parts.push(high);
                parts.push(low);
            }
            None => classes.push(part),
        }
    }
    Ok(Some(classes))
}

/// Whether rows are what a class must be.
pub(super) fn holds(input: &Input, checker: &Checker, rows: &[u32]) -> bool {
    let size = released(input, rows).count() as u32;
    if size == 0 || !checker.size_holds(size, rows.len() as u32) {
        return false;
    }
    if !checker.reads_values() {
        return true;
    }
    input.sensitive.iter().enumerate().all(|(sensitive, known)| {
        let mut values: Vec<u32> =
            released(input, rows).map(|row| known.column.codes[row]).collect();
        values.sort_unstable();
        let counts: Vec<(usize, u64)> = values
            .chunk_by(|left, right| left == right)
            .map(|same| (same[0] as usize, same.len() as u64))
            .collect();
        checker.values_hold(sensitive, &counts)
    })
}

fn released<'a>(input: &'a Input, rows: &'a [u32]) -> impl Iterator<Item = usize> + 'a {
    rows.iter().map(|row| *row as usize).filter(move |row| input.is_released(*row))
}

fn cut(
    input: &Input,
    checker: &Checker,
    part: &[u32],
    stop: &Stop,
) -> Result<Option<[Vec<u32>; 2]>> {
    // Two sides of too few rows need not be tried.
    let rows_min = checker.rows_min().max(1) as usize;
    if part.len() < rows_min.saturating_mul(2) {
        return Ok(None);
    }
    let mut columns: Vec<(f64, &CodedColumn)> = input
        .quasi
        .iter()
        .map(|quasi| (width(&quasi.column, released(input, part)), &quasi.column))
        .collect();
    // Stable: of equally wide ones the first.
    columns.sort_by(|left, right| right.0.total_cmp(&left.0));
    for (width, column) in columns {
        if width <= 0.0 {
            break;
        }
        stop.check()?;
        let mut values: Vec<u32> = released(input, part).map(|row| column.codes[row]).collect();
        let middle = values.len().saturating_sub(1) / 2;
        let (_, median, _) = values.select_nth_unstable(middle);
        let median = *median;
        let (low, high): (Vec<u32>, Vec<u32>) =
            part.iter().partition(|row| column.codes[**row as usize] <= median);
        if holds(input, checker, &low) && holds(input, checker, &high) {
            return Ok(Some([low, high]));
        }
    }
    Ok(None)
}

fn width(column: &CodedColumn, rows: impl Iterator<Item = usize>) -> f64 {
    let (least, most) = rows.fold((u32::MAX, 0), |(least, most), row| {
        let code = column.codes[row];
        (least.min(code), most.max(code))
    });
    if least < most { column.spread(least, most) } else { 0.0 }
}

/// What a class shows of a column whose distinct values in it are these, in order; and what that
/// loses, from 0 to 1.
pub(super) fn shown(
    column: &CodedColumn,
    domains: Option<&Domains>,
    values: &[u32],
) -> (Option<Arc<str>>, f64) {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return (None, 0.0) };
    if let Some(domains) = domains {
        let Some((level, code)) = domains.common(values.iter().copied()) else {
            return (Some(Arc::from(SUPPRESSED)), 1.0);
        };
        let label = domains.labels(level).get(code as usize).cloned().flatten();
        return (label, domains.loss(level, code));
    }
    let loss = column.spread(*first, *last);
    let text = |code: &u32| column.values.get(*code as usize).cloned().flatten();
    let has_null = text(first).is_none();
    let known: Vec<Arc<str>> = values.iter().filter_map(text).collect();
    let (Some(least), Some(most)) = (known.first(), known.last()) else { return (None, loss) };
    let label = match (known.as_slice(), column.kind) {
        ([only], _) => only.to_string(),
        (_, Kind::Number | Kind::Time) => format!("[{least}, {most}]"),
        (few, Kind::Text) if few.len() <= VALUES_SHOWN => format!("{{{}}}", few.join(", ")),
        _ => format!("[{least} … {most}]"),
    };
    let label = if has_null { format!("{label} or NULL") } else { label };
    (Some(Arc::from(label)), loss)
}

#[cfg(test)]
mod tests {
    use super::super::column::tests::{integers, texts};
    use super::super::domain::Scheme;
    use super::*;

    #[test]
    fn classes_show_their_values() {
        let ages = integers("age", &[17, 20, 40, 57]);
        let label = |column: &CodedColumn, values: &[u32]| {
            let (label, loss) = shown(column, None, values);
            (label.unwrap_or_else(|| Arc::from("NULL")).to_string(), loss)
        };
        assert_eq!(label(&ages, &[1]), ("20".into(), 0.0));
        assert_eq!(label(&ages, &[0, 2, 3]), ("[17, 57]".into(), 1.0));
        let words: Vec<String> = (10..20).map(|n| format!("w{n}")).collect();
        let words = texts("w", &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(label(&words, &[0, 2]).0, "{w10, w12}");
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(label(&words, &all), ("[w10 … w19]".into(), 1.0));
        let mut with_null = ages.clone();
        with_null.values[0] = None;
        assert_eq!(label(&with_null, &[0, 1, 2]).0, "[20, 40] or NULL");
        assert_eq!(label(&with_null, &[0]).0, "NULL");
        let tens = Scheme::built_in("interval:10,20").unwrap().unwrap().domains(&ages).unwrap();
        let (label, loss) = shown(&ages, Some(&tens), &[0, 1]);
        assert_eq!((label.as_deref(), loss), (Some("*"), 1.0));
        assert_eq!(shown(&ages, Some(&tens), &[0]).0.as_deref(), Some("17"));
    }
}
