//! `MODEL name` in calls of scalar functions: `ml_score(MODEL m, …)` and `ML.SCORE(MODEL m, …)` are
//! planned as `ml_score('m', …)`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Statement, Value,
    visit_expressions_mut,
};

use crate::dialect::marked_model;
use crate::error::{Error, Result};
use crate::model::table_functions;
use crate::parse::name_parts;

/// Puts a text in place of each marked model.
///
/// # Errors
/// When the function is none of a model, or one that gives a table.
pub(crate) fn plain(tree: &mut Statement) -> Result<()> {
    let found = visit_expressions_mut(tree, |expr| match plain_call(expr) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn plain_call(expr: &mut Expr) -> Result<()> {
    let Expr::Function(call) = expr else { return Ok(()) };
    let FunctionArguments::List(list) = &mut call.args else { return Ok(()) };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first_mut() else {
        return Ok(());
    };
    let Some(model) = marked_model(first).map(str::to_owned) else { return Ok(()) };
    let function = name_parts(&call.name).join("_").to_lowercase();
    if udfs::recommend::model_argument(&function).is_none() {
        return Err(match table_functions::model_argument(&function) {
            Some(_) => Error::invalid_hint(
                format!("{function} gives a table, not a value"),
                format!("write SELECT * FROM {function}('{model}', …)"),
            ),
            None => Error::invalid_hint(
                format!("{} asks no model", call.name),
                "MODEL name is the first argument of functions such as ml_score",
            ),
        });
    }
    *first = Expr::Value(Value::SingleQuotedString(model).with_empty_span());
    call.name = ObjectName::from(vec![Ident::new(function)]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    fn planned(text: &str) -> Result<String> {
        let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
        plain(&mut tree)?;
        Ok(tree.to_string())
    }

    #[test]
    fn a_marked_model_is_its_name_as_text() {
        let expected = "SELECT ml_score('main.m@2', u, i) FROM t WHERE ml_score('n', u, i) > 0";
        let text = "SELECT ml_score(MODEL Main.m@2, u, i) FROM t WHERE ML.SCORE(MODEL n, u, i) > 0";
        assert_eq!(planned(text).unwrap(), expected);
        let table = "SELECT * FROM ML.RECOMMEND(MODEL m, (SELECT lower(x) FROM t))";
        assert!(planned(table).unwrap().contains("MODEL"), "tables are planned elsewhere");
    }

    #[test]
    fn other_functions_take_no_model() {
        for (text, part) in [
            ("SELECT lower(MODEL m)", "lower asks no model"),
            ("SELECT ML.RECOMMEND(MODEL m, 1)", "ml_recommend gives a table"),
        ] {
            let error = planned(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
