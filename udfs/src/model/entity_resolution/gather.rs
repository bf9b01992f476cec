//! The rows of a query as records: in the order of their ids, whatever the order of the rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use rayon::prelude::*;

use super::column::{Column, Gatherer, MEMBER_END};
use super::key::{Computed, Expression, fingerprint, fingerprint_of};
use super::kind::{Declared, Kind};
use super::learn::{Comparison, UsedRule};
use super::records::Records;
use crate::model::random::mixed;
use crate::model::{IdIndex, ModelError};

/// A column that is compared, as it comes.
#[derive(Debug)]
struct Compared {
    name: String,
    declared: Declared,
    kind: Option<Kind>,
    values: Gatherer,
}

/// Rows as they come.
#[derive(Debug)]
pub struct Gathered {
    ids: (IdIndex, Vec<u32>),
    sources: Option<(IdIndex, Vec<u32>)>,
    columns: Vec<Compared>,
    computed: Vec<Computed>,
    truth: Option<Gatherer>,
}

/// Rows in the order of their ids, with fingerprints of what they say; not yet compared in any way.
#[derive(Debug)]
pub struct Ordered {
    /// A fingerprint of each record's id and table.
    pub keys: Vec<u64>,
    /// A fingerprint of what each record says.
    pub contents: Vec<u64>,
    order: Vec<u32>,
    ids: ArrayRef,
    sources: Option<ArrayRef>,
    sides: Vec<u32>,
    columns: Vec<Compared>,
    computed: Vec<Computed>,
    truth: Option<Gatherer>,
}

/// Records with their ids.
#[derive(Debug)]
pub struct Identified {
    /// The records.
    pub records: Records,
    /// Their ids.
    pub ids: ArrayRef,
    /// The table that each is of, where there are several.
    pub sources: Option<ArrayRef>,
    /// The same by number; empty where there is one table.
    pub sides: Vec<u32>,
    /// A fingerprint of each record's id and table.
    pub keys: Vec<u64>,
    /// A fingerprint of what each record says.
    pub contents: Vec<u64>,
    /// The entity that each record is known to be of; [`super::column::NONE`] where that is not
    /// known.
    pub truth: Option<Vec<u32>>,
}

/// What a column's type is declared as.
pub fn declared(data_type: &DataType) -> Declared {
    match data_type {
        DataType::Boolean => Declared::Truth,
        list if is_list(list) => Declared::List,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Declared::Day,
        number if number.is_integer() => Declared::Integer,
        number if number.is_numeric() => Declared::Real,
        _ => Declared::Text,
    }
}

/// Whether values of a type are lists.
pub fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

impl Gathered {
    /// Nothing yet, of an id, the table where there are several, and columns with the way to
    /// compare them where it is named.
    ///
    /// # Errors
    /// When an id is of a type that is none.
    pub fn new(
        id: (&str, &DataType),
        source: Option<(&str, &DataType)>,
        columns: &[(&str, &DataType, Option<Kind>)],
        has_truth: bool,
    ) -> Result<Self, ModelError> {
        let index = |(name, of): (&str, &DataType)| {
            Ok::<_, ModelError>((IdIndex::new(name, of)?, Vec::new()))
        };
        let compared = |(name, of, kind): &(&str, &DataType, Option<Kind>)| Compared {
            name: (*name).to_owned(),
            declared: declared(of),
            kind: *kind,
            values: Gatherer::default(),
        };
        Ok(Self {
            ids: index(id)?,
            sources: source.map(index).transpose()?,
            columns: columns.iter().map(compared).collect(),
            computed: Vec::new(),
            truth: has_truth.then(Gatherer::default),
        })
    }

    /// The same with what the query computes for rules to block by.
    pub fn computing(mut self, expressions: &[Expression]) -> Self {
        let computed = |of: &Expression| Computed { expression: of.clone(), keys: Vec::new() };
        self.computed = expressions.iter().map(computed).collect();
        self
    }

    /// Adds rows: the id, the table where there are several, the columns, what is computed, and the
    /// truth.
    ///
    /// # Errors
    /// NULL ids, and columns that are no values.
    pub fn add(
        &mut self,
        id: &ArrayRef,
        source: Option<&ArrayRef>,
        columns: &[ArrayRef],
        computed: &[ArrayRef],
        truth: Option<&ArrayRef>,
    ) -> Result<(), ModelError> {
        self.ids.1.extend(self.ids.0.encode(id)?);
        if let (Some((index, codes)), Some(source)) = (&mut self.sources, source) {
            codes.extend(index.encode(source)?);
        }
        let columns = self.columns.par_iter_mut().zip(columns);
        columns.try_for_each(|(column, array)| push(&mut column.values, array))?;
        for (known, array) in self.computed.iter_mut().zip(computed) {
            push_keys(&mut known.keys, array)?;
        }
        if let (Some(known), Some(array)) = (&mut self.truth, truth) {
            push(known, array)?;
        }
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.ids.1.len()
    }

    /// Bytes on the heap, about.
    pub fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|column| &column.values).chain(&self.truth);
        let columns: usize = columns.map(Gatherer::memory_bytes).sum();
        let sources = self.sources.as_ref().map_or(0, |(index, _)| index.memory_bytes());
        let ids = self.ids.0.memory_bytes() + sources;
        columns + ids + 8 * self.rows() * (1 + self.computed.len())
    }

    /// The rows in the order of their ids.
    ///
    /// # Errors
    /// When two rows have one id.
    pub fn ordered(self) -> Result<Ordered, ModelError> {
        let Self { ids: (mut index, mut codes), sources, columns, mut computed, truth } = self;
        let new = index.sort()?;
        codes.iter_mut().for_each(|code| *code = new[*code as usize]);
        let mut sources = sources;
        if let Some((index, codes)) = &mut sources {
            let new = index.sort()?;
            codes.iter_mut().for_each(|code| *code = new[*code as usize]);
        }
        let source = |row: u32| sources.as_ref().map_or(0, |(_, codes)| codes[row as usize]);
        let key = |row: u32| (codes[row as usize], source(row));
        let mut order: Vec<u32> = (0..codes.len() as u32).collect();
        order.par_sort_unstable_by_key(|&row| key(row));
        if let Some(twice) = order.windows(2).find(|rows| key(rows[0]) == key(rows[1])) {
            let value = index.values().slice(codes[twice[0] as usize] as usize, 1);
            return Err(ModelError::Repeated {
                column: index.column().to_owned(),
                value: text_of(&value).unwrap_or_default(),
            });
        }
        let contents = order.par_iter().map(|&row| {
            let said = columns.iter().enumerate().fold(0, |hash, (at, column)| {
                let seed = at as u64 + 1;
                let own = column.values.value(row as usize).map_or(seed, |v| fingerprint(v, seed));
                mixed(hash ^ own)
            });
            computed.iter().fold(said, |hash, known| mixed(hash ^ known.keys[row as usize]))
        });
        let contents: Vec<u64> = contents.collect();
        for known in &mut computed {
            known.keys = order.iter().map(|&row| known.keys[row as usize]).collect();
        }
        let ordered =
            |codes: &[u32]| -> Vec<u32> { order.iter().map(|&row| codes[row as usize]).collect() };
        let in_order = |index: &IdIndex, codes: &[u32]| -> Result<ArrayRef, ModelError> {
            Ok(take(&index.values(), &UInt32Array::from(ordered(codes)), None)?)
        };
        let ids = in_order(&index, &codes)?;
        let sides = sources.as_ref().map(|(_, codes)| ordered(codes)).unwrap_or_default();
        let sources = sources.as_ref().map(|(index, codes)| in_order(index, codes)).transpose()?;
        let keys = keys(&ids, sources.as_ref())?;
        Ok(Ordered { keys, contents, order, ids, sources, sides, columns, computed, truth })
    }
}

impl Ordered {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether the columns are those that were compared in these ways, and all is computed that
    /// rules ask for. A way that is named for a column now is the one that it has to be.
    pub fn fits(&self, comparisons: &[Comparison], rules: &[UsedRule]) -> bool {
        let same = |(column, known): (&Compared, &Comparison)| {
            column.name == known.column
                && column.kind.is_none_or(|kind| kind == known.kind)
                && (column.declared == Declared::List) == (known.kind == Kind::Array)
        };
        let is_computed =
            |wanted: &Expression| self.computed.iter().any(|known| known.expression == *wanted);
        self.columns.len() == comparisons.len()
            && self.columns.iter().zip(comparisons).all(same)
            && rules.iter().flat_map(|used| &used.rule.expressions).all(is_computed)
    }

    /// The records, with columns compared as `before` did, or as they are named and their values
    /// suggest, and without the values that stand for nobody. Of a link, records of one table are
    /// not compared.
    ///
    /// # Errors
    /// When a column that is named as one of encodings holds other texts, and when encodings of a
    /// column are under several keys.
    pub fn finish(
        self,
        before: Option<&[Comparison]>,
        is_link: bool,
    ) -> Result<Identified, ModelError> {
        let Self { keys, contents, order, ids, sources, sides, columns, computed, truth } = self;
        let between = if is_link { sides.clone() } else { Vec::new() };
        let is_wrong = |column: &&Compared| {
            column.kind == Some(Kind::Bloom) && column.values.has_other_than_encodings()
        };
        if let Some(column) = columns.iter().find(is_wrong) {
            return Err(ModelError::NoEncodings { column: column.name.clone() });
        }
        let finished = columns.into_par_iter().enumerate().map(|(at, column)| {
            let known = before.and_then(|before| before.get(at));
            let kind = known.map(|known| known.kind).or(column.kind);
            let Compared { name, declared, values, .. } = column;
            let mut finished = values.finish(&name, declared, kind, &order, &sides);
            finished.leave_out_placeholders(known.map(|known| known.placeholders.as_slice()));
            finished
        });
        let finished: Vec<Column> = finished.collect();
        for column in &finished {
            if let Some((one, other)) = column.two_keys() {
                let (one, other) = (one.to_owned(), other.to_owned());
                let column = column.name.clone();
                return Err(ModelError::EncodingKeys { column, one, other });
            }
        }
        let mut records = Records::new(finished, between, order.len());
        records.computed = computed;
        let truth = truth.map(|known| known.codes(&order));
        Ok(Identified { records, ids, sources, sides, keys, contents, truth })
    }
}

/// A fingerprint of each record's id and table, by their texts or, where they are bytes, these.
///
/// # Errors
/// When Arrow makes no text of an id.
pub fn keys(ids: &ArrayRef, sources: Option<&ArrayRef>) -> Result<Vec<u64>, ModelError> {
    let ids = bytes(ids)?;
    let sources = sources.map(bytes).transpose()?;
    let ids = ids.as_binary_view();
    let key = |row: usize| {
        let side = sources.as_ref().map(|sources| sources.as_binary_view().value(row));
        fingerprint_of(ids.value(row), fingerprint_of(side.unwrap_or_default(), 11))
    };
    Ok((0..ids.len()).into_par_iter().map(key).collect())
}

/// The bytes of ids or tables: their own, or those of their texts.
pub(super) fn bytes(values: &ArrayRef) -> Result<ArrayRef, ModelError> {
    let values = match is_bytes(values.data_type()) {
        true => Arc::clone(values),
        false => cast(values, &DataType::Utf8View)?,
    };
    Ok(cast(&values, &DataType::BinaryView)?)
}

fn is_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_bytes(values),
        other => other.is_binary(),
    }
}

fn text_of(value: &ArrayRef) -> Option<String> {
    let text = cast(value, &DataType::Utf8).ok()?;
    Some(text.as_string::<i32>().value(0).to_owned())
}

fn push(values: &mut Gatherer, array: &ArrayRef) -> Result<(), ModelError> {
    if is_list(array.data_type()) {
        return push_lists(values, array);
    }
    let texts = cast(array, &DataType::Utf8View)?;
    texts.as_string_view().iter().for_each(|value| values.push(value));
    Ok(())
}

/// Adds the keys that values make: those of one text are one.
fn push_keys(keys: &mut Vec<u64>, array: &ArrayRef) -> Result<(), ModelError> {
    let texts = cast(array, &DataType::Utf8View)?;
    let key = |text: Option<&str>| text.map_or(0, |text| fingerprint(text, 0));
    keys.extend(texts.as_string_view().iter().map(key));
    Ok(())
}

/// Adds lists as texts: their members in order, each once. In which order they came is of no
/// matter.
fn push_lists(values: &mut Gatherer, array: &ArrayRef) -> Result<(), ModelError> {
    let lists = cast(array, &DataType::new_list(DataType::Utf8, true))?;
    let lists = lists.as_list::<i32>();
    let members = lists.values().as_string::<i32>();
    for (row, ends) in lists.offsets().windows(2).enumerate() {
        let known = (ends[0] as usize..ends[1] as usize).filter(|&at| members.is_valid(at));
        let mut known: Vec<&str> = known.map(|at| members.value(at)).collect();
        known.sort_unstable();
        known.dedup();
        let is_known = lists.is_valid(row) && !known.is_empty();
        values.push(is_known.then(|| known.join(MEMBER_END)).as_deref());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, FixedSizeBinaryArray, Int64Array, StringArray};

    use super::*;

    #[test]
    fn what_is_known_of_records_takes_memory_too() {
        let taken = |has_truth: bool| {
            let (id, columns) = (("id", &DataType::Int64), [("c", &DataType::Utf8, None)]);
            let mut gathered = Gathered::new(id, None, &columns, has_truth).unwrap();
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
            let values: ArrayRef = Arc::new(StringArray::from(vec!["value"; 1_000]));
            let truth = (0..1_000).map(|at| format!("entity {at}"));
            let truth: ArrayRef = Arc::new(StringArray::from_iter_values(truth));
            let truth = Some(&truth).filter(|_| has_truth);
            gathered.add(&ids, None, &[values], &[], truth).unwrap();
            gathered.memory_bytes()
        };
        assert!(taken(true) > taken(false) + 10_000);
    }

    #[test]
    fn ids_of_bytes_are_told_apart_as_those_of_texts_are() {
        let ids: [&[u8]; 3] = [&[0xFF, 0], &[0xFE, 1], b"ab"];
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(ids));
        let fixed = FixedSizeBinaryArray::try_from_iter(ids.into_iter()).unwrap();
        let fixed: ArrayRef = Arc::new(fixed);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
        let of_ids = keys(&bytes, None).unwrap();
        assert!(of_ids[0] != of_ids[1] && of_ids[1] != of_ids[2]);
        assert_eq!(keys(&fixed, None).unwrap(), of_ids);
        assert_eq!(keys(&text, None).unwrap(), &of_ids[2..]);
        let one: ArrayRef = Arc::new(StringArray::from(vec!["x"; 3]));
        let of_tables = keys(&one, Some(&bytes)).unwrap();
        assert!(of_tables[0] != of_tables[1] && of_tables[1] != of_tables[2]);
    }
}
