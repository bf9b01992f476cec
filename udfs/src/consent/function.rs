//! Whether somebody consents, as a function of a column of persons: bound to sets, for plans that
//! the SQL layer makes. No statement can name it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{and, cast, not, nullif};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::set::{ConsentSet, Mask, SubjectKind};

/// Whether each person consents by all of some sets.
pub struct Consents {
    /// Of what the sets are: a model's name and version, and the versions of the consents. Of two
    /// functions that say the same, the sets are the same.
    label: String,
    sets: Vec<Arc<ConsentSet>>,
    signature: Signature,
}

impl Consents {
    /// By these sets.
    pub fn new(label: String, sets: Vec<Arc<ConsentSet>>) -> Self {
        Self { label, sets, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl fmt::Debug for Consents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Consents({})", self.label)
    }
}

impl PartialEq for Consents {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label
    }
}

impl Eq for Consents {}

impl Hash for Consents {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
    }
}

impl ScalarUDFImpl for Consents {
    fn name(&self) -> &'static str {
        "consents"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let persons = args.args.into_iter().next().map(|persons| persons.into_array(rows));
        let consenting = match persons {
            Some(persons) => consenting(&self.sets, &persons?)?,
            None => BooleanArray::from(vec![false; rows]),
        };
        Ok(ColumnarValue::Array(Arc::new(consenting)))
    }
}

/// Whether each of these ids, of any type that casts to the sets', is of somebody who consents by
/// all sets.
///
/// # Errors
/// When the ids do not cast to the sets' type.
pub fn consenting(sets: &[Arc<ConsentSet>], ids: &ArrayRef) -> Result<BooleanArray> {
    let mut all = BooleanArray::from(vec![true; ids.len()]);
    for set in sets {
        let same = SubjectKind::of(ids.data_type()) == Some(set.kind());
        let persons = match (same, set.kind()) {
            (true, _) => Arc::clone(ids),
            (false, SubjectKind::Integer) => cast(ids, &DataType::Int64)?,
            (false, SubjectKind::Text) => cast(ids, &DataType::Utf8View)?,
        };
        all = match set.mask(&persons)? {
            Mask::All => all,
            Mask::None => BooleanArray::from(vec![false; ids.len()]),
            Mask::Some(mask) => and(&all, &mask)?,
        };
    }
    Ok(all)
}

/// The ids of people who consent by all sets; NULL in place of the others.
///
/// # Errors
/// As [`consenting`].
pub fn only_consenting(sets: &[Arc<ConsentSet>], ids: ArrayRef) -> Result<ArrayRef> {
    if sets.is_empty() {
        return Ok(ids);
    }
    Ok(nullif(&ids, &not(&consenting(sets, &ids)?)?)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, StringArray};

    use super::*;

    #[test]
    fn ids_of_another_type_are_the_same_people() {
        let withdrawn: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let set = ConsentSet::new(SubjectKind::Integer, true, &[withdrawn], 1).unwrap();
        let sets = [Arc::new(set)];
        let ids: ArrayRef =
            Arc::new(StringArray::from(vec![Some("7"), Some("8"), Some("x"), None]));
        let consenting = consenting(&sets, &ids).unwrap();
        let consenting: Vec<bool> = consenting.iter().map(|one| one.unwrap()).collect();
        assert_eq!(consenting, [false, true, false, false]);
        let only = only_consenting(&sets, Arc::clone(&ids)).unwrap();
        let only: Vec<Option<&str>> = only.as_string::<i32>().iter().collect();
        assert_eq!(only, [None, Some("8"), None, None]);
        assert_eq!(only_consenting(&[], ids).unwrap().null_count(), 1);
    }
}
