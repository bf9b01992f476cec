//! Ids in a column, and what expressions make of them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use catalog::subject_copies::{CopiedKey, Transformation};
use catalog::subjects::SubjectKey;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::define::is_id;
use crate::consent::tells_together;
use crate::subqueries::NULL_WITHOUT_ROW;

/// What an expression over ids calls the id.
pub(super) const ID: &str = "id";

/// Functions that make an id of an id: none become the same, or such alone as are written in
/// another way, so that whoever has the id finds what was made of it, and hardly anything else.
const IDENTIFYING: [&str; 18] = [
    "btrim",
    "concat",
    "digest",
    "encode",
    "lower",
    "ltrim",
    "md5",
    "normalize_email",
    "normalize_phone",
    "normalize_whitespace",
    "reverse",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "upper",
    CONCATENATE,
];

/// Functions of which one argument or another is given back.
pub(super) const CHOOSING: [&str; 7] =
    ["coalesce", "greatest", "ifnull", "least", NULL_WITHOUT_ROW, NULLIF, "nvl"];

/// Those of which the others are given where the first is NULL.
pub(super) const FALLING_BACK: [&str; 3] = ["coalesce", "ifnull", "nvl"];

/// The one that gives its first argument or NULL.
pub(super) const NULLIF: &str = "nullif";

/// Functions that change the type.
pub(super) const CASTING: [&str; 2] = ["arrow_cast", "arrow_try_cast"];

/// Aggregates and window functions that give back one of the values.
const PICKING: [&str; 9] =
    ["any_value", "first_value", "lag", "last_value", "lead", "max", "min", "mode", "nth_value"];

/// Functions and aggregates that count, so that no value is in what they give.
const COUNTING: [&str; 3] = ["approx_distinct", "count", "row_number"];

/// The aggregate whose text is about all values, and is none of them.
const INFER_DATE_ORDER: &str = "infer_date_order";

/// Functions and aggregates whose values hold ids that cannot be looked for.
const HIDING: [&str; 12] = [
    "array_agg",
    "bloom_encode",
    "concat_ws",
    "consent_seal",
    "encrypt",
    "encrypt_with",
    "fpe_encrypt",
    "make_array",
    "named_struct",
    REKEY,
    "string_agg",
    "struct",
];

const PSEUDONYMIZE: &str = "pseudonymize";
const ENCRYPT_DETERMINISTIC: &str = "encrypt_deterministic";
const REKEY: &str = "rekey";
/// The operator, which is planned as a function of many arguments.
const CONCATENATE: &str = "||";

/// Ids that a column may hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ids {
    pub(super) subject: String,
    /// The column that they were read from.
    pub(super) from: SubjectKey,
    /// The column that they came from at first.
    pub(super) root: SubjectKey,
    /// Whether that is a model.
    pub(super) of_model: bool,
    /// What had been done to them before: where they come of a model's users, under the
    /// generations of keys that made those.
    pub(super) before: Vec<Transformation>,
    /// What was done to them since; none where it cannot be done again.
    pub(super) by: Option<Vec<Transformation>>,
    /// Whether rows of persons in their table may have something else in their column, while
    /// another column has the id: they do not tell alone whose a row is.
    pub(super) is_partial: bool,
    /// Which reading of a table they come of, as a statement may read one several times.
    pub(super) reading: usize,
}

/// The reading of what was read of no table: columns as they are known.
const UNREAD: usize = 0;

impl Ids {
    /// The ids of a key, as they are.
    pub(super) fn of(subject: &str, key: &SubjectKey) -> Self {
        let (from, root) = (key.clone(), key.clone());
        let (subject, before, by) = (subject.to_owned(), vec![], Some(vec![]));
        let (of_model, is_partial) = (false, false);
        Self { subject, from, root, of_model, before, by, is_partial, reading: UNREAD }
    }

    /// The users of a model.
    pub(super) fn of_users(subject: &str, users: &SubjectKey) -> Self {
        Self { of_model: true, ..Self::of(subject, users) }
    }

    /// The ids that a column holds as a copy of others.
    pub(super) fn of_copy(copy: &CopiedKey, from: SubjectKey) -> Self {
        Self {
            subject: copy.subject.clone(),
            from,
            root: copy.root.clone(),
            of_model: copy.of_model,
            before: vec![],
            by: copy.by.clone(),
            is_partial: false,
            reading: UNREAD,
        }
    }

    /// Of one reading of their table.
    pub(super) fn read_in(mut self, reading: usize) -> Self {
        self.reading = reading;
        self
    }

    /// The reading and the column that they come of.
    pub(super) fn origin(&self) -> (usize, String) {
        (self.reading, self.from.column.clone())
    }

    /// What a column of these ids is a copy of, whichever rows have them.
    pub(super) fn copied_to(&self, column: Option<&str>) -> CopiedKey {
        CopiedKey {
            subject: self.subject.clone(),
            column: column.map(str::to_owned),
            from: self.from.clone(),
            root: self.root.clone(),
            of_model: self.of_model,
            by: self.by.as_ref().map(|by| [self.before.as_slice(), by.as_slice()].concat()),
            is_whole: false,
        }
    }

    /// After an expression, given its text over that of the ids.
    pub(super) fn expressed(mut self, text: impl Fn(&str) -> String) -> Self {
        if let Some(by) = &mut self.by {
            let made = match by.last() {
                Some(Transformation::Expression(before)) => text(before),
                _ => text(ID),
            };
            if matches!(by.last(), Some(Transformation::Expression(_))) {
                by.pop();
            }
            by.push(Transformation::Expression(made));
        }
        self
    }

    /// After a function with a key.
    fn keyed(mut self, step: &Transformation) -> Self {
        if let Some(by) = &mut self.by {
            by.push(step.clone());
        }
        self
    }

    /// Whether that was done to them last.
    fn ends_with(&self, step: &Transformation) -> bool {
        self.by.as_ref().is_some_and(|by| by.last() == Some(step))
    }

    /// What cannot be made again.
    pub(super) fn hidden(mut self) -> Self {
        self.by = None;
        self
    }
}

/// What a column comes of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The ids that it may hold.
    pub(super) ids: BTreeSet<Ids>,
    /// The readings of tables with keys that its values come of.
    pub(super) readings: BTreeSet<usize>,
    /// Those of persons of whom it may hold what was made of ids, and none.
    pub(super) lost: BTreeSet<Ids>,
    /// Those of persons in whose rows it may hold something else in the place of the id.
    pub(super) replaced: BTreeSet<Ids>,
    /// Those of persons of many rows of whom it may hold values, as a list does that is of a group.
    pub(super) others: BTreeSet<Ids>,
    /// Whether it may be a value of no table, as one that the query writes or counts.
    pub(super) is_written: bool,
    /// Whether the ids may be of other rows than the value is in, as those that a window gathers.
    pub(super) is_of_others: bool,
    /// The columns with personal data that it is made of, and in which reading.
    pub(super) personal: BTreeSet<(usize, String)>,
}

impl Held {
    pub(super) fn add(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.readings.extend(other.readings);
        self.lost.extend(other.lost);
        self.replaced.extend(other.replaced);
        self.others.extend(other.others);
        self.is_written |= other.is_written;
        self.is_of_others |= other.is_of_others;
        self.personal.extend(other.personal);
    }

    /// Whether a value comes of a reading, or may be one of no table beside its rows.
    pub(super) fn may_stand_for(&self, reading: usize) -> bool {
        self.is_written || self.readings.contains(&reading)
    }

    /// Whether a value or an id comes of a reading.
    pub(super) fn comes_of(&self, reading: usize) -> bool {
        self.readings.contains(&reading) || self.ids.iter().any(|ids| ids.reading == reading)
    }

    /// Of some rows something else is there in the place of ids.
    pub(super) fn replace(&mut self, of: impl Fn(&Ids) -> bool) {
        self.replaced.extend(self.ids.iter().filter(|ids| of(ids)).cloned());
    }

    pub(super) fn is_replaced(&self, ids: &Ids) -> bool {
        let mut replaced = self.replaced.iter();
        replaced.any(|of| (&of.subject, of.reading) == (&ids.subject, ids.reading))
    }

    /// The ids by which every row is found, and those of which is said that they cannot be.
    pub(super) fn left(&self) -> impl Iterator<Item = &Ids> {
        self.ids.iter().filter(move |ids| ids.by.is_none() || !self.is_replaced(ids))
    }

    /// What came of a reading comes of another one.
    pub(super) fn read_apart(&mut self, reading: usize, apart: usize) {
        self.readings.remove(&reading);
        self.readings.insert(apart);
        for known in [&mut self.ids, &mut self.lost, &mut self.replaced] {
            let moved = std::mem::take(known).into_iter().map(|ids| match ids.reading == reading {
                true => ids.read_in(apart),
                false => ids,
            });
            *known = moved.collect();
        }
        let personal = std::mem::take(&mut self.personal).into_iter();
        let moved = |of: usize| if of == reading { apart } else { of };
        self.personal = personal.map(|(of, column)| (moved(of), column)).collect();
    }

    pub(super) fn each(mut self, change: impl Fn(Ids) -> Ids) -> Self {
        self.ids = self.ids.into_iter().map(change).collect();
        self
    }

    /// The same without ids: nothing of them is left.
    pub(super) fn without_ids(mut self) -> Self {
        self.lose();
        self.ids.clear();
        self.is_of_others = false;
        self
    }

    /// Of some rows nothing of the ids is left.
    pub(super) fn lose(&mut self) {
        self.lost.extend(self.ids.iter().cloned().map(Ids::hidden));
    }
}

/// Ids in another type. Text that is no number as it is written is another text afterwards.
pub(super) fn cast_to(held: Held, value: &Expr, schema: &DFSchema, to: &DataType) -> Held {
    let from = value.get_type(schema).unwrap_or(DataType::Utf8);
    // A list of another kind holds what the list held.
    if from.is_nested() && to.is_nested() {
        return held;
    }
    if !is_id(to) {
        return held.without_ids();
    }
    if is_one_to_one(&from, to) {
        return held;
    }
    held.each(|ids| ids.expressed(|id| format!("arrow_try_cast({id}, '{to}')")))
}

/// Whether no two values become the same in another type; of numbers, where all fit.
fn is_one_to_one(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Dictionary(_, from), to) => is_one_to_one(from, to),
        (from, DataType::Dictionary(_, to)) => is_one_to_one(from, to),
        (from, to) => from.is_integer() || !to.is_integer(),
    }
}

/// Whether ids of one type are the same persons' in another one.
pub(crate) fn are_same_ids(from: &DataType, to: &DataType) -> bool {
    from == to || (is_id(from) && is_id(to) && is_one_to_one(from, to))
}

/// What a scalar function makes of ids.
pub(super) fn called(
    name: &str,
    args: &[Expr],
    held: Held,
    keys: &BTreeMap<String, String>,
) -> Held {
    if held.ids.is_empty() {
        return held;
    }
    if name == REKEY
        && let Some(step) = under_key(ENCRYPT_DETERMINISTIC, args, keys)
    {
        // Sealed anew it is what another generation of the key makes of the same.
        return held.each(|ids| if ids.ends_with(&step) { ids } else { ids.hidden() });
    }
    if HIDING.contains(&name) {
        return held.each(Ids::hidden);
    }
    let texts: Vec<Option<String>> = args.iter().map(literal).collect();
    let varies = texts.iter().filter(|text| text.is_none()).count();
    if name == PSEUDONYMIZE || name == ENCRYPT_DETERMINISTIC {
        return match under_key(name, args, keys) {
            Some(step) => held.each(|ids| ids.keyed(&step)),
            None => held.each(Ids::hidden),
        };
    }
    if !IDENTIFYING.contains(&name) {
        return held.without_ids();
    }
    if varies != 1 {
        return held.each(Ids::hidden);
    }
    held.each(|ids| {
        ids.expressed(|id| {
            let args = texts.iter().map(|text| text.clone().unwrap_or_else(|| id.to_owned()));
            let args: Vec<String> = args.collect();
            match name {
                CONCATENATE => format!("({})", args.join(" || ")),
                _ => format!("{name}({})", args.join(", ")),
            }
        })
    })
}

/// What a function with a key does to ids, under whichever generation: one may be named behind the
/// key, and any of them is looked for.
fn under_key(
    function: &str,
    args: &[Expr],
    keys: &BTreeMap<String, String>,
) -> Option<Transformation> {
    let [_, Expr::Literal(key, _)] = args else { return None };
    let key = key.try_as_str().flatten()?;
    let name = key.split_once('@').map_or(key, |(name, _)| name);
    let (key, id) = keys.get_key_value(name)?;
    let (key, id) = (key.clone(), id.clone());
    Some(match function {
        PSEUDONYMIZE => Transformation::Pseudonym { key, id },
        _ => Transformation::Ciphertext { key, id },
    })
}

/// What an aggregate or a window function makes of ids.
pub(super) fn gathered(name: &str, held: Held) -> Held {
    match name {
        name if COUNTING.contains(&name) => Held { is_written: true, ..Held::default() },
        name if PICKING.contains(&name) => held,
        name if HIDING.contains(&name) => held.each(Ids::hidden),
        // What tells of all rows together tells no persons apart.
        name if tells_together(name) => Held { personal: BTreeSet::new(), ..held.without_ids() },
        _ => held.without_ids(),
    }
}

/// Whether an aggregate or a window function gives values of single rows: not where it tells of all
/// of them together, nor numbers and times that are the least or the largest.
pub(super) fn gives_values(name: &str, to: &DataType) -> bool {
    let is_of_one_row = PICKING.contains(&name) && !["max", "min"].contains(&name);
    let is_of_all = COUNTING.contains(&name) || tells_together(name) || name == INFER_DATE_ORDER;
    let is_number = to.is_primitive() || matches!(to, DataType::Boolean | DataType::Null);
    is_of_one_row || !(is_of_all || is_number)
}

/// A literal as SQL text; none for anything else.
fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => match value {
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)) => Some(super::person::literal(text)),
            value if value.is_null() => Some("NULL".to_owned()),
            value if value.data_type().is_integer() => Some(value.to_string()),
            _ => None,
        },
        Expr::Alias(alias) => literal(&alias.expr),
        Expr::Cast(cast) => literal(&cast.expr),
        _ => None,
    }
}
