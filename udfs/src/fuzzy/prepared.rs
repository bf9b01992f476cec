//! What is made of a text before it is compared: once of a constant, once of each value of a
//! dictionary, and once of a text that repeats from row to row (as in a nested-loop join).

use crate::text::Text;
use arrow::array::Array;

/// Most values of a dictionary that are kept prepared beside each other: as many as a batch has
/// rows.
const VALUES_MAX: usize = 8_192;
/// Longest of them, in bytes: what is made of a text may be many times as large.
const VALUE_BYTES_MAX: usize = 4_096;
/// All of them together, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// What is made of the texts of a column.
pub(crate) struct Prepared<'a, P> {
    /// Of the last text that is no kept value of a dictionary.
    last: Slot<'a, P>,
    /// Of a dictionary's values, by their place in it.
    values: Vec<Slot<'a, P>>,
    /// Of the texts that may be kept, what is left.
    bytes_left: usize,
}

#[derive(Default)]
struct Slot<'a, P> {
    text: Option<&'a str>,
    made: Option<P>,
}

impl<'a, P: Default> Prepared<'a, P> {
    /// For the texts of a column, of which nothing is made yet.
    pub(crate) fn new(column: &Text) -> Self {
        let values = match column {
            // Where there are no fewer values than rows, hardly one comes twice.
            Text::Dictionary { keys, values }
                if values.len() <= VALUES_MAX && values.len() < keys.len() =>
            {
                values.len()
            }
            _ => 0,
        };
        let slots = std::iter::repeat_with(Slot::default).take(values);
        Self { last: Slot::default(), values: slots.collect(), bytes_left: BYTES_MAX }
    }

    /// What `make` makes of a text, in place of what it made of another before; `key` is the text's
    /// place among the dictionary's values.
    #[inline]
    pub(crate) fn of(
        &mut self,
        text: &'a str,
        key: Option<usize>,
        make: impl FnOnce(&str, &mut P),
    ) -> &P {
        let slot = match key.and_then(|key| self.values.get_mut(key)) {
            Some(slot) if slot.made.is_some() => slot,
            Some(slot) if text.len() <= VALUE_BYTES_MAX.min(self.bytes_left) => {
                self.bytes_left -= text.len();
                slot
            }
            _ => &mut self.last,
        };
        let is_made = |made: &str| std::ptr::eq(made, text) || made == text;
        let made = slot.made.get_or_insert_with(P::default);
        if !slot.text.is_some_and(is_made) {
            make(text, made);
            slot.text = Some(text);
        }
        made
    }
}

/// Two columns, first the one whose texts repeat more: the measures are the same both ways round.
pub(crate) fn repeating_first<'a>(left: &'a Text, right: &'a Text) -> (&'a Text, &'a Text) {
    if repeats(right) > repeats(left) { (right, left) } else { (left, right) }
}

fn repeats(column: &Text) -> u8 {
    match column {
        Text::Constant(_) => 2,
        Text::Dictionary { .. } => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};
    use arrow::compute::cast;
    use arrow::datatypes::DataType;

    use super::*;

    const ROWS: usize = 8_000;

    /// How often something is made of the texts of all rows.
    fn made(column: &Text) -> usize {
        let (mut prepared, mut times) = (Prepared::<String>::new(column), 0);
        for row in 0..ROWS {
            let text = column.get(row).unwrap();
            let made = prepared.of(text, column.key(row), |text, made| {
                text.clone_into(made);
                times += 1;
            });
            assert_eq!(made, text);
        }
        times
    }

    fn column(value: impl Fn(usize) -> String) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(value)))
    }

    fn dictionary(value: impl Fn(usize) -> String) -> Text {
        let to = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        Text::from_array("f", &cast(&column(value), &to).unwrap()).unwrap()
    }

    #[test]
    fn constants_values_of_dictionaries_and_repeated_texts_are_prepared_once() {
        assert_eq!(made(&Text::Constant(Some("a".into()))), 1);
        for values in [10, 257, ROWS / 2, ROWS - 1] {
            assert_eq!(made(&dictionary(|row| format!("text {}", row % values))), values);
        }
        let repeating = column(|row| format!("text {}", row / 100));
        assert_eq!(made(&Text::from_array("f", &repeating).unwrap()), ROWS / 100);
    }

    #[test]
    fn what_would_take_much_memory_is_prepared_where_it_occurs() {
        assert_eq!(made(&dictionary(|row| format!("text {row}"))), ROWS);
        let (values, bytes) = (400, 4_000);
        let kept = BYTES_MAX / bytes;
        let much = dictionary(|row| format!("{:0>bytes$}", row % values));
        assert_eq!(made(&much), kept + (values - kept) * (ROWS / values));
        let long = dictionary(|row| if row % 2 == 0 { "x".repeat(5_000) } else { "y".into() });
        assert_eq!(made(&long), 2);
        let both_long = dictionary(|row| ["x", "y"][row % 2].repeat(5_000));
        assert_eq!(made(&both_long), ROWS);
    }

    #[test]
    fn the_side_that_repeats_more_comes_first() {
        let constant = Text::Constant(Some("a".into()));
        let dictionary = dictionary(|row| format!("{}", row % 3));
        let plain = Text::from_array("f", &column(|row| format!("{row}"))).unwrap();
        for (left, right, first_is_left) in [
            (&plain, &plain, true),
            (&plain, &dictionary, false),
            (&dictionary, &constant, false),
            (&constant, &plain, true),
        ] {
            let (first, second) = repeating_first(left, right);
            let expected = if first_is_left { (left, right) } else { (right, left) };
            assert!(std::ptr::eq(first, expected.0) && std::ptr::eq(second, expected.1));
        }
    }
}
