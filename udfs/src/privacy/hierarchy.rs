//! Generalization hierarchies in ARX's form: one row a value, from the value itself (level 0) to
//! its most general label, usually `*`.
//!
//! `Bachelors;Undergraduate;Higher education;*` has height 3. All rows have one length; a value
//! stands once; and values that share a label share all later ones, without which a higher level
//! would not be more general. A value that no row names is `*` at every level but 0: suppressed,
//! never passed through.
//!
//! A hierarchy shows, compares and hashes by name and a fingerprint of its rows.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{Result, exec_err};
use sha2::{Digest, Sha256};

/// What a value becomes that the hierarchy does not know.
pub const SUPPRESSED: &str = "*";

/// The most rows of a hierarchy.
pub const ROWS_MAX: usize = 1_000_000;

/// The most levels of a hierarchy, the value itself not counted.
pub const LEVELS_MAX: usize = 64;

/// A named generalization hierarchy.
pub struct Hierarchy {
    name: String,
    height: usize,
    fingerprint: [u8; 32],
    /// Of each value, the labels of levels 1 to `height`; labels are shared among values.
    labels: HashMap<String, Box<[Arc<str>]>>,
}

impl Hierarchy {
    /// A hierarchy from its rows, each a value and its labels from level 1 on.
    ///
    /// # Errors
    /// When there is no row or no level, rows differ in length, a value stands twice with
    /// different labels, two values share a label but not the next one, or a limit is passed.
    pub fn from_rows(name: &str, rows: impl IntoIterator<Item = Vec<String>>) -> Result<Self> {
        let mut builder = Builder::new(name);
        for row in rows {
            builder.add(row)?;
        }
        builder.finish()
    }

    /// A hierarchy from CSV text as ARX writes it: no header, separated by `;` (or tab, or `,`
    /// where the first line has neither), values quoted with `"` where needed.
    ///
    /// # Errors
    /// Those of [`Hierarchy::from_rows`], and when a quotation is not closed.
    pub fn from_csv(name: &str, text: &str) -> Result<Self> {
        Self::from_rows(name, parse_csv(name, text)?)
    }

    /// The name by which statements call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The highest level.
    pub fn height(&self) -> usize {
        self.height
    }

    /// How many values it knows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it knows none, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of `value` at `level`: the value itself at level 0, `*` for an unknown value.
    /// `None` beyond the hierarchy's height.
    pub fn generalize<'a>(&'a self, value: &'a str, level: usize) -> Option<&'a str> {
        if level > self.height {
            return None;
        }
        let Some(position) = level.checked_sub(1) else { return Some(value) };
        let labels = self.labels.get(value);
        Some(labels.and_then(|labels| labels.get(position)).map_or(SUPPRESSED, AsRef::as_ref))
    }

    /// Bytes of memory it takes, for whoever reserves them; shared labels are counted once a
    /// value, so this is an upper bound.
    pub fn memory_bytes(&self) -> usize {
        let labels: usize = self
            .labels
            .iter()
            .map(|(value, labels)| {
                let text: usize = labels.iter().map(|label| label.len()).sum();
                value.capacity() + text + labels.len() * size_of::<Arc<str>>()
            })
            .sum();
        labels + self.labels.capacity() * size_of::<(String, Box<[Arc<str>]>)>()
    }
}

impl fmt::Debug for Hierarchy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hierarchy({self})")
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@", self.name)?;
        self.fingerprint.iter().take(4).try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl PartialEq for Hierarchy {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.fingerprint == other.fingerprint
    }
}

impl Eq for Hierarchy {}

impl Hash for Hierarchy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.fingerprint.hash(state);
    }
}

/// The hierarchies that one statement may use, by name.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct HierarchySet(BTreeMap<String, Arc<Hierarchy>>);

impl HierarchySet {
    /// A set of hierarchies; of two with one name the later stands.
    pub fn new(hierarchies: impl IntoIterator<Item = Arc<Hierarchy>>) -> Self {
        Self(hierarchies.into_iter().map(|one| (one.name.clone(), one)).collect())
    }

    /// The hierarchy of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Hierarchy>> {
        self.0.get(name)
    }
}

/// Checks rows as they come.
struct Builder<'a> {
    name: &'a str,
    width: usize,
    rows: usize,
    digest: Sha256,
    labels: HashMap<String, Box<[Arc<str>]>>,
    shared: HashMap<String, Arc<str>>,
    /// At each level, which label comes after a label.
    parents: Vec<HashMap<Arc<str>, Arc<str>>>,
}

impl<'a> Builder<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            width: 0,
            rows: 0,
            digest: Sha256::new(),
            labels: HashMap::new(),
            shared: HashMap::new(),
            parents: vec![],
        }
    }

    fn add(&mut self, row: Vec<String>) -> Result<()> {
        self.rows += 1;
        let (name, number, width) = (self.name, self.rows, row.len());
        if self.rows == 1 {
            self.start(width)?;
        }
        if width != self.width {
            return exec_err!(
                "hierarchy '{name}': row {number} has {width} values, the first has {}",
                self.width
            );
        }
        if number > ROWS_MAX {
            return exec_err!("hierarchy '{name}' has more than {ROWS_MAX} rows");
        }
        for value in &row {
            self.digest.update(value.len().to_le_bytes());
            self.digest.update(value.as_bytes());
        }
        let mut row = row.into_iter();
        let Some(value) = row.next() else { return Ok(()) };
        let labels: Box<[Arc<str>]> = row.map(|label| self.share(label)).collect();
        self.check_parents(&labels)?;
        if self.labels.get(&value).is_some_and(|known| *known != labels) {
            return exec_err!(
                "hierarchy '{name}': row {number} gives a value other labels than an earlier row"
            );
        }
        self.labels.insert(value, labels);
        Ok(())
    }

    fn start(&mut self, width: usize) -> Result<()> {
        let name = self.name;
        if width < 2 {
            return exec_err!(
                "hierarchy '{name}' has no level: its rows are a value and at least one label, \
                 as in 'Bachelors;Higher education;*'"
            );
        }
        if width > LEVELS_MAX + 1 {
            return exec_err!("hierarchy '{name}' has more than {LEVELS_MAX} levels");
        }
        self.width = width;
        self.parents = vec![HashMap::new(); width - 2];
        Ok(())
    }

    fn share(&mut self, label: String) -> Arc<str> {
        if let Some(shared) = self.shared.get(&label) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = Arc::from(label.as_str());
        self.shared.insert(label, Arc::clone(&shared));
        shared
    }

    fn check_parents(&mut self, labels: &[Arc<str>]) -> Result<()> {
        let (name, number) = (self.name, self.rows);
        let steps = labels.iter().zip(labels.iter().skip(1));
        for (level, ((label, parent), parents)) in steps.zip(&mut self.parents).enumerate() {
            let known = parents.entry(Arc::clone(label)).or_insert_with(|| Arc::clone(parent));
            if known != parent {
                return exec_err!(
                    "hierarchy '{name}': row {number} puts '{label}' of level {} under '{parent}', \
                     an earlier row under '{known}'. Hint: a label must have one parent",
                    level + 1
                );
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Hierarchy> {
        let Some(height) = self.width.checked_sub(1) else {
            return exec_err!("hierarchy '{}' has no rows", self.name);
        };
        Ok(Hierarchy {
            name: self.name.to_string(),
            height,
            fingerprint: self.digest.finalize().into(),
            labels: self.labels,
        })
    }
}

fn parse_csv(name: &str, text: &str) -> Result<Vec<Vec<String>>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let separator = separator(text);
    let (mut rows, mut row, mut field) = (vec![], vec![], String::new());
    let (mut quoted, mut line) = (false, 1_usize);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        if quoted {
            match character {
                '"' if characters.next_if_eq(&'"').is_some() => field.push('"'),
                '"' => quoted = false,
                other => field.push(other),
            }
        } else if character == '"' && field.is_empty() {
            quoted = true;
        } else if character == separator {
            row.push(std::mem::take(&mut field));
        } else if character == '\n' {
            end_row(&mut rows, &mut row, &mut field);
        } else if character != '\r' || characters.peek() != Some(&'\n') {
            field.push(character);
        }
    }
    if quoted {
        return exec_err!("hierarchy '{name}': a quotation is not closed at its end, line {line}");
    }
    end_row(&mut rows, &mut row, &mut field);
    Ok(rows)
}

/// Ends a row; a blank line is none.
fn end_row(rows: &mut Vec<Vec<String>>, row: &mut Vec<String>, field: &mut String) {
    if row.is_empty() && field.is_empty() {
        return;
    }
    row.push(std::mem::take(field));
    rows.push(std::mem::take(row));
}

/// The separator of the first line that is not blank.
fn separator(text: &str) -> char {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut quoted = false;
    let bare: Vec<char> = line
        .chars()
        .filter(|&character| {
            quoted ^= character == '"';
            !quoted
        })
        .collect();
    [';', '\t'].into_iter().find(|separator| bare.contains(separator)).unwrap_or(',')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small hierarchy of education.
    pub(crate) fn education() -> Arc<HierarchySet> {
        let text = "Bachelors;Undergraduate;Higher education;*\n\
                    HS-grad;High School;Secondary education;*\n\
                    11th;High School;Secondary education;*\n";
        Arc::new(HierarchySet::new([Arc::new(Hierarchy::from_csv("education", text).unwrap())]))
    }

    fn rows(text: &str) -> Vec<Vec<String>> {
        parse_csv("h", text).unwrap()
    }

    #[test]
    fn levels_go_from_the_value_to_suppression() {
        let set = education();
        let hierarchy = set.get("education").unwrap();
        assert_eq!((hierarchy.height(), hierarchy.len()), (3, 3));
        let levels = |value| [0, 1, 2, 3].map(|level| hierarchy.generalize(value, level).unwrap());
        assert_eq!(levels("11th"), ["11th", "High School", "Secondary education", "*"]);
        assert_eq!(levels("PhD"), ["PhD", "*", "*", "*"]);
        assert_eq!(hierarchy.generalize("11th", 4), None);
        assert!(hierarchy.memory_bytes() > 100);
    }

    #[test]
    fn csv_of_every_dialect_reads_the_same() {
        let expected = [["a;b", "x"], ["c \"d\"", "y,z"]];
        assert_eq!(rows("\"a;b\";x\n\"c \"\"d\"\"\";y,z\n"), expected);
        assert_eq!(rows("\u{feff}\"a;b\";x\r\n\r\n\"c \"\"d\"\"\";y,z"), expected);
        assert_eq!(rows("\"a;b\",x\r\n\"c \"\"d\"\"\",\"y,z\"\r\n"), expected);
        assert_eq!(rows("\"a;b\"\tx\n\"c \"\"d\"\"\"\ty,z"), expected);
        assert_eq!(rows("1;\n"), [["1", ""]]);
    }

    #[test]
    fn what_is_no_hierarchy_says_where() {
        for (text, expected) in [
            ("", "no rows"),
            ("\n\n", "no rows"),
            ("a\nb\n", "no level"),
            ("a;x;*\nb;*\n", "row 2 has 2 values, the first has 3"),
            ("a;x;*\na;y;*\n", "row 2 gives a value other labels"),
            ("a;x;1;*\nb;x;2;*\n", "row 2 puts 'x' of level 1 under '2'"),
            ("a;\"x\n", "not closed"),
        ] {
            let error = Hierarchy::from_csv("h", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(Hierarchy::from_csv("h", &";".repeat(100)).is_err());
    }

    #[test]
    fn hierarchies_compare_by_name_and_content() {
        let one = Hierarchy::from_csv("h", "a;*\n").unwrap();
        assert_eq!(one, Hierarchy::from_csv("h", "a,*").unwrap());
        assert_ne!(one, Hierarchy::from_csv("g", "a;*").unwrap());
        assert_ne!(one, Hierarchy::from_csv("h", "b;*").unwrap());
        assert_eq!(format!("{one:?}").len(), "Hierarchy(h@01234567)".len());
    }
}
