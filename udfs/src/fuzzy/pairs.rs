//! Runs a kernel over two columns: short ASCII pairs 32 at once, all others one by one.
//!
//! What repeats is prepared once ([`Prepared`]). Rows that are NULL on either side are skipped.

use arrow::array::{GenericStringArray, OffsetSizeTrait, StringViewArray};
use arrow::buffer::NullBuffer;
use pulp::Arch;

use super::kernel::lanes::{EditLanes, GroupKernel, Groups, JaroLanes, SHORT, Short};
use super::kernel::{Pattern, Scratch};
use super::prepared::{Prepared, repeating_first};
use super::stop::{Stop, Stopped};
use crate::text::Text;

/// Beyond the cut-off.
pub(crate) const BEYOND: u32 = u32::MAX;

/// A measure with a kernel for short pairs and one for any pair.
pub(crate) trait Measure {
    /// The lanes' kernel.
    type Kernel: GroupKernel;
    /// What a row gives.
    type Output: Copy + Default;

    /// The kernel for this machine.
    fn kernel(arch: Arch) -> Self::Kernel;
    /// A lane's result for a row.
    fn lane_result(
        &self,
        row: usize,
        result: <Self::Kernel as GroupKernel>::Output,
    ) -> Self::Output;
    /// The result for any pair.
    fn single(&self, row: usize, pair: (&Pattern, &str), scratch: &mut Scratch) -> Self::Output;
    /// The answer that the lengths in code points give, if they give one.
    fn by_length(&self, row: usize, left: usize, right: usize) -> Option<Self::Output>;
}

/// Edit distance; [`BEYOND`] when it is more than the row's cut-off.
pub(crate) struct Edit<const OSA: bool, F>(pub F);

impl<const OSA: bool, F: Fn(usize) -> usize> Measure for Edit<OSA, F> {
    type Kernel = EditLanes<OSA>;
    type Output = u32;

    fn kernel(arch: Arch) -> Self::Kernel {
        EditLanes(arch)
    }

    #[inline(always)]
    fn lane_result(&self, row: usize, result: u8) -> u32 {
        if usize::from(result) <= (self.0)(row) { u32::from(result) } else { BEYOND }
    }

    fn single(&self, row: usize, (pattern, text): (&Pattern, &str), scratch: &mut Scratch) -> u32 {
        let distance = pattern.edit::<OSA>(text, (self.0)(row), scratch);
        distance.and_then(|distance| u32::try_from(distance).ok()).unwrap_or(BEYOND)
    }

    #[inline(always)]
    fn by_length(&self, row: usize, left: usize, right: usize) -> Option<u32> {
        (left.abs_diff(right) > (self.0)(row)).then_some(BEYOND)
    }
}

/// Jaro or Jaro-Winkler similarity.
pub(crate) struct Jaro<const WINKLER: bool>;

impl<const WINKLER: bool> Measure for Jaro<WINKLER> {
    type Kernel = JaroLanes<WINKLER>;
    type Output = f64;

    fn kernel(arch: Arch) -> Self::Kernel {
        JaroLanes(arch)
    }

    #[inline(always)]
    fn lane_result(&self, _row: usize, result: f64) -> f64 {
        result
    }

    fn single(&self, _row: usize, (pattern, text): (&Pattern, &str), scratch: &mut Scratch) -> f64 {
        if WINKLER { pattern.jaro_winkler(text, scratch) } else { pattern.jaro(text, scratch) }
    }

    #[inline(always)]
    fn by_length(&self, _row: usize, _left: usize, _right: usize) -> Option<f64> {
        None
    }
}

/// The measure of each row; rows that are NULL in `valid` hold a default.
///
/// # Errors
/// When nobody wants the result any more.
pub(crate) fn measure<M: Measure>(
    measure: &M,
    left: &Text,
    right: &Text,
    rows: usize,
    valid: Option<&NullBuffer>,
    stop: &Stop,
) -> Result<Vec<M::Output>, Stopped> {
    let mut results = vec![M::Output::default(); rows];
    let mut groups = Groups::new(M::kernel(Arch::new()));
    let mut singles = Singles::new(left, right, stop);
    let mut pace = stop.pace();
    let (left_short, right_short) = (Shorts::new(left), Shorts::new(right));
    for row in 0..rows {
        if valid.is_some_and(|valid| valid.is_null(row)) {
            continue;
        }
        if let (Some(a), Some(b)) = (left_short.get(row), right_short.get(row)) {
            if let Some(result) = measure.by_length(row, a.len(), b.len()) {
                results[row] = result;
                continue;
            }
            let in_lane = groups.push(row, &a, &b, |row, result| {
                results[row] = measure.lane_result(row, result);
            });
            if in_lane {
                continue;
            }
        }
        let Some((pattern, text, scratch)) = singles.prepare(row) else {
            continue;
        };
        let in_lane = groups.push_medium(row, pattern, text, scratch, |row, result| {
            results[row] = measure.lane_result(row, result);
        });
        if !in_lane {
            pace.spend(32 + text.len() * (1 + pattern.len() / 64))?;
            results[row] = measure.single(row, (pattern, text), scratch);
        }
    }
    groups.finish(|row, result| results[row] = measure.lane_result(row, result));
    // A kernel that ended early left any result.
    stop.check()?;
    Ok(results)
}

/// The pairs that do not fit a lane.
struct Singles<'a> {
    /// The side whose values are prepared.
    fixed: &'a Text,
    other: &'a Text,
    patterns: Prepared<'a, Pattern>,
    scratch: Scratch,
}

impl<'a> Singles<'a> {
    fn new(left: &'a Text, right: &'a Text, stop: &Stop) -> Self {
        let (fixed, other) = repeating_first(left, right);
        Self { fixed, other, patterns: Prepared::new(fixed), scratch: Scratch::new(stop.clone()) }
    }

    /// The row's pair, one side prepared.
    #[inline]
    fn prepare(&mut self, row: usize) -> Option<(&Pattern, &'a str, &mut Scratch)> {
        let (mut fixed, mut other) = (self.fixed.get(row)?, self.other.get(row)?);
        let mut key = self.fixed.key(row);
        // A word-sized pattern is worth more than a prepared one: the measures are symmetric.
        if fixed.len() > 64 && other.len() <= 64 {
            (fixed, other, key) = (other, fixed, None);
        }
        let pattern = self.patterns.of(fixed, key, |text, pattern| pattern.reset(text));
        Some((pattern, other, &mut self.scratch))
    }
}

/// Reads the short ASCII texts of a column.
enum Shorts<'a> {
    Constant(Option<Short>),
    Utf8(&'a GenericStringArray<i32>),
    LargeUtf8(&'a GenericStringArray<i64>),
    Utf8View(&'a StringViewArray),
    Other(&'a Text),
}

impl<'a> Shorts<'a> {
    fn new(text: &'a Text) -> Self {
        match text {
            Text::Constant(value) => Self::Constant(
                value.as_ref().and_then(|value| Short::read(value.as_bytes(), value.len())),
            ),
            Text::Utf8(array) => Self::Utf8(array),
            Text::LargeUtf8(array) => Self::LargeUtf8(array),
            Text::Utf8View(array) => Self::Utf8View(array),
            Text::Dictionary { .. } => Self::Other(text),
        }
    }

    #[inline(always)]
    fn get(&self, row: usize) -> Option<Short> {
        match self {
            Self::Constant(short) => *short,
            Self::Utf8(array) => from_offsets(array, row),
            Self::LargeUtf8(array) => from_offsets(array, row),
            Self::Utf8View(array) => from_view(array, row),
            Self::Other(text) => {
                let text = text.get(row)?;
                Short::read(text.as_bytes(), text.len())
            }
        }
    }
}

#[inline(always)]
fn from_offsets<O: OffsetSizeTrait>(array: &GenericStringArray<O>, row: usize) -> Option<Short> {
    let offsets = array.value_offsets();
    let (from, to) = (offsets.get(row)?.as_usize(), offsets.get(row + 1)?.as_usize());
    Short::read(array.value_data().get(from..)?, to - from)
}

/// A view holds its length, then up to 12 bytes of text, or a prefix, a buffer and an offset.
#[inline(always)]
fn from_view(array: &StringViewArray, row: usize) -> Option<Short> {
    let view = *array.views().get(row)?;
    let len = view as u32 as usize;
    if len <= 12 {
        let inline = view >> 32;
        return Short::from_words([inline as u64, (inline >> 64) as u64, 0, 0], len);
    }
    if len > SHORT {
        return None;
    }
    let (buffer, offset) = ((view >> 64) as u32 as usize, (view >> 96) as usize);
    Short::read(array.data_buffers().get(buffer)?.as_slice().get(offset..)?, len)
}
