//! Who consents, and the mask of a column of persons.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, LargeStringArray, StringArray, StringViewArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_err};

use super::integers::Integers;
use super::texts::Texts;

/// What a column of persons holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// Integers of any width. One that does not fit 64 bits with a sign is nobody.
    Integer,
    /// Text of any encoding, compared byte by byte.
    Text,
}

impl SubjectKind {
    /// What a column of this type holds; `None` where it cannot hold persons.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Dictionary(_, values) => Self::of(values),
            other if other.is_integer() => Some(Self::Integer),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            _ => None,
        }
    }

    /// The kind in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "whole numbers",
            Self::Text => "text",
        }
    }
}

/// Which rows of a batch are there.
#[derive(Debug, Clone, PartialEq)]
pub enum Mask {
    /// All of them.
    All,
    /// None.
    None,
    /// Those that are true; there are no NULLs.
    Some(BooleanArray),
}

/// Who consents: a default, and the exceptions to it.
#[derive(Debug, Clone)]
pub struct ConsentSet {
    default_allow: bool,
    exceptions: Exceptions,
}

#[derive(Debug, Clone)]
enum Exceptions {
    Integers(Integers),
    Texts(Texts),
}

impl ConsentSet {
    /// The set with the persons of these arrays as exceptions; NULLs are nobody. `seed` decides
    /// where they lie in memory, and should be known to nobody who chooses ids.
    ///
    /// # Errors
    /// When an array holds something else, or there are more than 2³² - 2 texts.
    pub fn new(
        kind: SubjectKind,
        default_allow: bool,
        exceptions: &[ArrayRef],
        seed: u64,
    ) -> Result<Self> {
        let exceptions = match kind {
            SubjectKind::Integer => {
                let mut values = Vec::with_capacity(exceptions.iter().map(Array::len).sum());
                for array in exceptions {
                    let array = integers(array)?;
                    values.extend(array.as_primitive::<Int64Type>().iter().flatten());
                }
                Exceptions::Integers(Integers::new(values, seed))
            }
            SubjectKind::Text => {
                let mut texts = Texts::new(seed);
                for array in exceptions {
                    let array = cast(array, &DataType::Utf8View)?;
                    for text in array.as_string_view().iter().flatten() {
                        if !texts.insert(text) {
                            return exec_err!("there are too many persons in one set of consents");
                        }
                    }
                }
                Exceptions::Texts(texts)
            }
        };
        Ok(Self { default_allow, exceptions })
    }

    /// What persons are here.
    pub fn kind(&self) -> SubjectKind {
        match &self.exceptions {
            Exceptions::Integers(_) => SubjectKind::Integer,
            Exceptions::Texts(_) => SubjectKind::Text,
        }
    }

    /// Whether somebody who is no exception consents.
    pub fn default_allow(&self) -> bool {
        self.default_allow
    }

    /// How many exceptions there are.
    pub fn len(&self) -> usize {
        match &self.exceptions {
            Exceptions::Integers(set) => set.len(),
            Exceptions::Texts(set) => set.len(),
        }
    }

    /// Whether there is no exception.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        match &self.exceptions {
            Exceptions::Integers(set) => set.memory_bytes(),
            Exceptions::Texts(set) => set.memory_bytes(),
        }
    }

    /// Whose rows are there. NULL is nobody, who never consents.
    ///
    /// # Errors
    /// When the column holds persons of another kind.
    pub fn mask(&self, persons: &ArrayRef) -> Result<Mask> {
        match &self.exceptions {
            Exceptions::Integers(set) => {
                let persons = integers(persons)?;
                let persons = persons.as_primitive::<Int64Type>();
                if persons.null_count() == persons.len() || !set.may_meet(persons) {
                    return Ok(self.unmarked(persons.nulls(), persons.len()));
                }
                let marks = Buffer::from_vec(set.mark(persons.values()));
                let marks = BooleanBuffer::new(marks, 0, persons.len());
                Ok(self.marked(marks, persons.nulls()))
            }
            Exceptions::Texts(set) => self.mask_texts(set, persons),
        }
    }

    fn mask_texts(&self, set: &Texts, persons: &ArrayRef) -> Result<Mask> {
        let any = persons.as_any();
        // A NULL's slot holds some text, and is masked afterwards.
        if let Some(texts) = any.downcast_ref::<StringArray>() {
            return Ok(self.found(set, persons, |row| texts.value(row)));
        }
        if let Some(texts) = any.downcast_ref::<LargeStringArray>() {
            return Ok(self.found(set, persons, |row| texts.value(row)));
        }
        if let Some(texts) = any.downcast_ref::<StringViewArray>() {
            return Ok(self.found(set, persons, |row| texts.value(row)));
        }
        match persons.data_type() {
            DataType::Dictionary(_, values) if SubjectKind::of(values) == Some(self.kind()) => {
                self.mask_texts(set, &cast(persons, &DataType::Utf8View)?)
            }
            other => exec_err!("consent is asked of persons that are text, not {other}"),
        }
    }

    fn found<'a>(&self, set: &Texts, persons: &ArrayRef, text: impl Fn(usize) -> &'a str) -> Mask {
        if set.len() == 0 {
            return self.unmarked(persons.nulls(), persons.len());
        }
        let marks = BooleanBuffer::collect_bool(persons.len(), |row| set.contains(text(row)));
        self.marked(marks, persons.nulls())
    }

    /// The mask where nobody is an exception.
    fn unmarked(&self, nulls: Option<&NullBuffer>, rows: usize) -> Mask {
        match (self.default_allow, nulls) {
            (false, _) if rows > 0 => Mask::None,
            (_, Some(nulls)) if nulls.null_count() == rows && rows > 0 => Mask::None,
            (true, Some(nulls)) if nulls.null_count() > 0 => {
                Mask::Some(BooleanArray::new(nulls.inner().clone(), None))
            }
            _ => Mask::All,
        }
    }

    /// The mask of marked exceptions.
    fn marked(&self, marks: BooleanBuffer, nulls: Option<&NullBuffer>) -> Mask {
        let mut kept = if self.default_allow { !&marks } else { marks };
        if let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) {
            kept = &kept & nulls.inner();
        }
        match kept.count_set_bits() {
            rows if rows == kept.len() => Mask::All,
            0 => Mask::None,
            _ => Mask::Some(BooleanArray::new(kept, None)),
        }
    }
}

/// Integers of any width as 64 bits; what does not fit is NULL.
fn integers(array: &ArrayRef) -> Result<ArrayRef> {
    if SubjectKind::of(array.data_type()) != Some(SubjectKind::Integer) {
        return exec_err!(
            "consent is asked of persons that are whole numbers, not {}",
            array.data_type()
        );
    }
    Ok(cast(array, &DataType::Int64)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, Int64Array, UInt64Array};
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    use super::*;

    fn kept(mask: &Mask, rows: usize) -> Vec<bool> {
        match mask {
            Mask::All => vec![true; rows],
            Mask::None => vec![false; rows],
            Mask::Some(mask) => mask.iter().map(|kept| kept.unwrap()).collect(),
        }
    }

    fn of_integers(default_allow: bool, values: &[i64]) -> ConsentSet {
        let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        ConsentSet::new(SubjectKind::Integer, default_allow, &[values], 3).unwrap()
    }

    #[test]
    fn nobody_never_consents() {
        let persons: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(9)]));
        let opt_out = of_integers(true, &[1]);
        assert_eq!(kept(&opt_out.mask(&persons).unwrap(), 3), [false, false, true]);
        let opt_in = of_integers(false, &[1]);
        assert_eq!(kept(&opt_in.mask(&persons).unwrap(), 3), [true, false, false]);
        for (set, expected) in [(of_integers(true, &[]), true), (of_integers(false, &[]), false)] {
            assert!(set.is_empty());
            let mask = set.mask(&persons).unwrap();
            assert_eq!(kept(&mask, 3), [expected, false, expected]);
        }
        // What does not fit is nobody as well.
        let wide: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 9]));
        assert_eq!(kept(&opt_out.mask(&wide).unwrap(), 2), [false, true]);
    }

    #[test]
    fn all_encodings_of_text_are_read() {
        let plain = StringArray::from(vec![Some("ann"), Some("bob"), None]);
        let withdrawn: ArrayRef = Arc::new(StringArray::from(vec!["bob"]));
        let set = ConsentSet::new(SubjectKind::Text, true, &[withdrawn], 3).unwrap();
        let dictionary: DictionaryArray<Int32Type> = plain.iter().collect();
        let plain: ArrayRef = Arc::new(plain);
        let large = cast(&plain, &DataType::LargeUtf8).unwrap();
        let views = cast(&plain, &DataType::Utf8View).unwrap();
        for persons in [plain, large, views, Arc::new(dictionary) as ArrayRef] {
            assert_eq!(kept(&set.mask(&persons).unwrap(), 3), [true, false, false]);
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert!(set.mask(&numbers).is_err());
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
        assert!(of_integers(true, &[]).mask(&texts).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_mask_is_what_each_row_says(
            exceptions in prop::collection::vec(0_i64..100, 0..40),
            persons in prop::collection::vec(prop::option::of(0_i64..120), 0..200),
            default_allow in any::<bool>(),
        ) {
            let expected: Vec<bool> = persons
                .iter()
                .map(|person| person.is_some_and(|p| exceptions.contains(&p) != default_allow))
                .collect();
            let rows = persons.len();
            let numbers: ArrayRef = Arc::new(Int64Array::from(persons.clone()));
            let set = of_integers(default_allow, &exceptions);
            prop_assert_eq!(&kept(&set.mask(&numbers).unwrap(), rows), &expected);
            let texts: StringArray =
                persons.iter().map(|person| person.map(|p| p.to_string())).collect();
            let texts: ArrayRef = Arc::new(texts);
            let named: StringArray = exceptions.iter().map(|p| Some(p.to_string())).collect();
            let named: ArrayRef = Arc::new(named);
            let set = ConsentSet::new(SubjectKind::Text, default_allow, &[named], 5).unwrap();
            prop_assert_eq!(&kept(&set.mask(&texts).unwrap(), rows), &expected);
        }
    }
}
