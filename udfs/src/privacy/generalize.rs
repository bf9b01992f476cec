//! `generalize(value, 'hierarchy', level)`: replaces a value by its label in a hierarchy.
//!
//! Level 0 is the value itself, the hierarchy's height its most general label, beyond it an error.
//! A value that the hierarchy does not know is `*` at every level but 0. Integers count as their
//! decimal text. NULL value or level gives NULL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err, internal_err, plan_err};
use datafusion_expr::{Coercion, ColumnarValue, Documentation, ReturnFieldArgs};
use datafusion_expr::{ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature};
use datafusion_expr::{TypeSignatureClass, Volatility};
use datafusion_macros::user_doc;

use super::arguments::{self, Identifiers, Integers};
use super::hierarchy::{Hierarchy, HierarchySet};

const NAME: &str = "generalize";

/// The function `generalize`, with the hierarchies of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Replaces a value by its label at a level of a generalization hierarchy (as ARX \
writes them: value;level 1;level 2;…;*). Level 0 is the value; an unknown value becomes '*'.",
    syntax_example = "generalize(value, 'hierarchy', level)",
    sql_example = r#"```sql
> SELECT generalize('Bachelors', 'education', 2) AS education;
+------------------+
| education        |
+------------------+
| Higher education |
+------------------+
```"#,
    argument(name = "value", description = "Text or integer. NULL gives NULL."),
    argument(name = "hierarchy", description = "Name of a hierarchy, as a literal."),
    argument(name = "level", description = "From 0 to the hierarchy's height.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Generalize {
    signature: Signature,
    hierarchies: Option<Arc<HierarchySet>>,
}

impl Generalize {
    /// The function by name alone: listed and documented, refused when planned.
    pub fn unbound() -> Self {
        Self::with_hierarchies(None)
    }

    /// The function with the hierarchies of one statement.
    pub fn bound(hierarchies: Arc<HierarchySet>) -> Self {
        Self::with_hierarchies(Some(hierarchies))
    }

    fn with_hierarchies(hierarchies: Option<Arc<HierarchySet>>) -> Self {
        let (text, level) = (arguments::text_coercion(), arguments::integer_coercion());
        let integer = Coercion::new_exact(TypeSignatureClass::Integer);
        let signature = Signature::one_of(
            vec![
                TypeSignature::Coercible(vec![text.clone(), text.clone(), level.clone()]),
                TypeSignature::Coercible(vec![integer, text, level]),
            ],
            Volatility::Immutable,
        );
        Self { signature, hierarchies }
    }

    fn hierarchy(&self, name: &str) -> Result<&Arc<Hierarchy>> {
        let Some(hierarchies) = &self.hierarchies else {
            return plan_err!(
                "{NAME} has no hierarchy bound to it: it can only be used in a statement that the \
                 session plans, which loads the hierarchy by its name"
            );
        };
        match hierarchies.get(name) {
            Some(hierarchy) => Ok(hierarchy),
            None => plan_err!(
                "{NAME}: unknown hierarchy '{name}'. Hint: name a hierarchy that exists and that \
                 you may use"
            ),
        }
    }
}

impl ScalarUDFImpl for Generalize {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("{NAME} answers through return_field_from_args")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let name = arguments::literal_text(NAME, &args, 1, "hierarchy")?;
        self.hierarchy(name)?;
        Ok(Arc::new(Field::new(NAME, DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Identifiers::from_argument(NAME, arguments::argument(NAME, &args, 0)?)?;
        let name = arguments::text_argument(NAME, &args, 1)?;
        let hierarchy = self.hierarchy(arguments::constant_text(NAME, &name, "hierarchy")?)?;
        let levels = Integers::from_argument(NAME, arguments::argument(NAME, &args, 2)?)?;
        let constant = values.is_constant() && levels.is_constant();
        arguments::text_rows(args.number_rows, constant, |row, out| {
            let Some(level) = levels.get(row) else { return Ok(false) };
            let level = usize::try_from(level).ok().filter(|level| *level <= hierarchy.height());
            let Some(level) = level else {
                return exec_err!(
                    "{NAME}: hierarchy '{}' has levels 0 to {}, not {}",
                    hierarchy.name(),
                    hierarchy.height(),
                    levels.get(row).unwrap_or_default()
                );
            };
            let known = values.with(row, |value| {
                out.push_str(hierarchy.generalize(value, level).unwrap_or_default());
            });
            Ok(known.is_some())
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use datafusion_common::ScalarValue;

    use super::super::arguments::testing::{call, int, text, texts};
    use super::super::hierarchy::tests::education;
    use super::*;

    #[test]
    fn rows_take_their_label_at_their_level() {
        let values = texts(&[Some("Bachelors"), Some("11th"), Some("PhD"), None]);
        let level = |level| vec![values.clone(), text("education"), int(level)];
        let rows = |level_| {
            let rows = call(Generalize::bound(education()), level(level_)).unwrap();
            rows.into_iter().map(|row| row.unwrap_or("NULL".to_string())).collect::<Vec<_>>()
        };
        assert_eq!(rows(0), ["Bachelors", "11th", "PhD", "NULL"]);
        assert_eq!(rows(1), ["Undergraduate", "High School", "*", "NULL"]);
        assert_eq!(rows(3), ["*", "*", "*", "NULL"]);
        let levels = ColumnarValue::Array(Arc::new(Int32Array::from(vec![
            Some(0),
            Some(2),
            Some(1),
            Some(3),
        ])));
        let args = vec![values.clone(), text("education"), levels];
        let rows = call(Generalize::bound(education()), args).unwrap();
        assert_eq!(rows[1].as_deref(), Some("Secondary education"));
    }

    #[test]
    fn integers_are_looked_up_as_text() {
        let ages = Hierarchy::from_csv("age", "41;40-44;40-49;*\n").unwrap();
        let set = Arc::new(HierarchySet::new([Arc::new(ages)]));
        let args = vec![int(41), text("age"), int(1)];
        assert_eq!(call(Generalize::bound(set), args).unwrap(), [Some("40-44".to_string())]);
    }

    #[test]
    fn bad_levels_and_names_are_errors() {
        let error = |function, hierarchy, level| {
            let args = vec![text("11th"), hierarchy, level];
            call(function, args).unwrap_err().to_string()
        };
        let bound = || Generalize::bound(education());
        assert!(error(bound(), text("education"), int(4)).contains("levels 0 to 3, not 4"));
        assert!(error(bound(), text("education"), int(-1)).contains("levels 0 to 3, not -1"));
        assert!(error(bound(), text("nope"), int(1)).contains("unknown hierarchy 'nope'"));
        assert!(error(bound(), texts(&[Some("education")]), int(1)).contains("literal"));
        assert!(error(Generalize::unbound(), text("education"), int(1)).contains("no hierarchy"));
        let args =
            vec![text("11th"), text("education"), ColumnarValue::Scalar(ScalarValue::Int64(None))];
        assert_eq!(call(bound(), args).unwrap(), [None]);
    }
}
