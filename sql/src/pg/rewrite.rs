//! What PostgreSQL's clients write and the planner does not read, in other words: names of tables
//! as numbers, arrays made of subqueries, subqueries that give at most one row, columns without
//! names.
//!
//! These rules stand before those of the catalog's library and see statements over the catalog
//! alone.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    Query, SelectItem, SetExpr, TableFactor, Value, ValueWithSpan, VisitorMut,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::empty;
use crate::parse::name_parts;

/// PostgreSQL's own tables that programs name as numbers.
const OWN_TABLES: [(&str, i32); 12] = [
    ("pg_attrdef", 2604),
    ("pg_attribute", 1249),
    ("pg_class", 1259),
    ("pg_constraint", 2606),
    ("pg_database", 1262),
    ("pg_extension", 3079),
    ("pg_index", 2610),
    ("pg_namespace", 2615),
    ("pg_proc", 1255),
    ("pg_rewrite", 2618),
    ("pg_trigger", 2620),
    ("pg_type", 1247),
];

/// Rewrites a statement's expressions and tables.
pub(super) struct Rules {
    /// The schemas in which a name is looked up.
    pub(super) path: Vec<String>,
}

impl VisitorMut for Rules {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let changed = match expr {
            Expr::Cast { kind, expr: inner, data_type, .. } => match (kind, text(inner)) {
                (CastKind::DoubleColon | CastKind::Cast, Some(name)) => self.name(name, data_type),
                _ => None,
            },
            Expr::InSubquery { expr, subquery, negated } => {
                self.among_path(expr, subquery, *negated)
            }
            Expr::Function(call) if is_array_of(call) => read("CAST(NULL AS TEXT[])"),
            Expr::Function(call) => self.call(call),
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                escape(pattern, escape_char);
                None
            }
            Expr::Subquery(query) if empty::has_no_rows(query) => read("NULL"),
            Expr::Subquery(query) => {
                first_value(query);
                None
            }
            _ => None,
        };
        if let Some(changed) = changed {
            *expr = changed;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(args), .. } = factor
            && name_parts(name).last().is_some_and(|name| name == "generate_series")
        {
            args.args.iter_mut().for_each(widen);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            name_columns(&mut select.projection);
        }
        ControlFlow::Continue(())
    }
}

/// Makes calls of the names that PostgreSQL reserves for them, such as `current_user`.
pub(super) struct Registers;

impl VisitorMut for Registers {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
                && let Some(expr) = register(name)
            {
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::new(name.value.clone()) };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some(call) = register(name)
        {
            *expr = call;
        }
        ControlFlow::Continue(())
    }
}

fn register(name: &Ident) -> Option<Expr> {
    const REGISTERS: [&str; 5] =
        ["current_catalog", "current_role", "current_schema", "current_user", "session_user"];
    let folded = name.value.to_lowercase();
    let known = name.quote_style.is_none() && REGISTERS.contains(&folded.as_str());
    known.then(|| read(&format!("\"{folded}\"()"))).flatten()
}

/// `FROM …, string_to_array(current_setting('search_path'), ',') s`: who asks so asks for the
/// schemas of the search path, one a row.
fn is_text_as_table(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Table { name, args: Some(_), .. }
        if name_parts(name).last().is_some_and(|name| name == "string_to_array"))
}

impl Rules {
    /// Whether a name is among those of the search path, in the words of a list.
    fn among_path(&self, expr: &Expr, subquery: &Query, negated: bool) -> Option<Expr> {
        let SetExpr::Select(select) = subquery.body.as_ref() else { return None };
        if !select.from.iter().any(|source| is_text_as_table(&source.relation)) {
            return None;
        }
        let listed: Vec<String> = self.path.iter().map(|schema| quoted(schema)).collect();
        let not = if negated { "NOT " } else { "" };
        read(&format!("({expr} {not}IN ({}))", listed.join(", ")))
    }

    /// Functions that look names up, in the words of a query.
    fn call(&self, call: &Function) -> Option<Expr> {
        if name_parts(&call.name).last().is_some_and(|name| name == "has_table_privilege") {
            return self.privilege(call);
        }
        let [argument] = arguments(call)? else { return None };
        match name_parts(&call.name).last()?.as_str() {
            "to_regtype" => read(&format!(
                "(SELECT rt.oid FROM pg_catalog.pg_type rt WHERE rt.typname = {argument} LIMIT 1)"
            )),
            "to_regclass" => self.table(text(expression(argument)?)?),
            "pg_table_is_visible" => {
                let listed: Vec<String> = self.path.iter().map(|schema| quoted(schema)).collect();
                read(&format!(
                    "({argument} IN (SELECT vc.oid FROM pg_catalog.pg_class vc \
                     JOIN pg_catalog.pg_namespace vn ON vc.relnamespace = vn.oid \
                     WHERE vn.nspname IN ({})))",
                    listed.join(", ")
                ))
            }
            _ => None,
        }
    }

    /// A right on a table that is named in words, as one on the table that comes first on the path:
    /// another schema may have one of the name as well. PostgreSQL's own are everybody's.
    fn privilege(&self, call: &Function) -> Option<Expr> {
        let (table, wanted) = match arguments(call)? {
            [table, wanted] | [_, table, wanted] => (table, wanted),
            _ => return None,
        };
        let name = text(expression(table)?)?;
        if ["pg_", "information_schema."].iter().any(|own| name.starts_with(own)) {
            return None;
        }
        read(&format!("has_table_privilege({}, {wanted})", self.table(name)?))
    }

    /// A name of a table or function, as what stands for it in the catalog.
    fn name(&self, name: &str, data_type: &DataType) -> Option<Expr> {
        let kind = data_type.to_string().to_lowercase();
        match kind.strip_prefix("pg_catalog.").unwrap_or(&kind) {
            "regclass" if !name.bytes().all(|byte| byte.is_ascii_digit()) => self.table(name),
            // Columns that hold functions hold their names.
            "regproc" => {
                let last = name.rsplit('.').next().unwrap_or(name);
                read(&quoted(last))
            }
            _ => None,
        }
    }

    fn table(&self, name: &str) -> Option<Expr> {
        let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(name);
        let parts = name_parts(&parser.ok()?.parse_object_name(false).ok()?);
        let own = |name: &str| OWN_TABLES.iter().find(|(known, _)| *known == name);
        let (schemas, table) = match parts.as_slice() {
            [table] => (self.path.clone(), table),
            [schema, table] | [_, schema, table] => (vec![schema.clone()], table),
            _ => return None,
        };
        if let Some((_, oid)) = own(table)
            && (parts.len() == 1 || schemas == [super::PG_CATALOG])
        {
            return read(&oid.to_string());
        }
        // The table that comes first on the path wins: each schema has its place as a weight.
        let places = schemas.iter().enumerate();
        let places: Vec<String> =
            places.map(|(place, name)| format!("WHEN {} THEN {place}", quoted(name))).collect();
        let listed: Vec<String> = schemas.iter().map(|schema| quoted(schema)).collect();
        read(&format!(
            "(SELECT rc.oid FROM pg_catalog.pg_class rc JOIN pg_catalog.pg_namespace rn \
             ON rc.relnamespace = rn.oid WHERE rn.nspname IN ({}) AND rc.relname = {} \
             ORDER BY CASE rn.nspname {} END LIMIT 1)",
            listed.join(", "),
            quoted(table),
            places.join(" "),
        ))
    }
}

fn read(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

fn arguments(call: &Function) -> Option<&[FunctionArg]> {
    match &call.args {
        FunctionArguments::List(list) => Some(&list.args),
        _ => None,
    }
}

fn expression(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// A pattern with an escape of its own gets the planner's, the backslash.
fn escape(pattern: &mut Box<Expr>, escape_char: &mut Option<ValueWithSpan>) {
    let Some(ValueWithSpan { value: Value::SingleQuotedString(own), .. }) = escape_char else {
        return;
    };
    if own != "\\"
        && let Some(changed) = read(&format!("replace({pattern}, {}, '\\')", quoted(own)))
    {
        **pattern = changed;
        *escape_char = None;
    }
}

/// `ARRAY(SELECT …)`: programs gather rights, options and policies by it, which the catalog's
/// rows do not have here.
fn is_array_of(call: &Function) -> bool {
    matches!(call.args, FunctionArguments::Subquery(_))
        && name_parts(&call.name).last().is_some_and(|name| name == "array")
}

/// A subquery for one value that does not say how it has one row at most gets its first row, which
/// the planner can join.
fn first_value(query: &mut Query) {
    let plain = query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [item] = select.projection.as_mut_slice() else { return };
    if !plain || empty::may_aggregate(item) || select.distinct.is_some() {
        return;
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
        return;
    };
    if let Some(first) = read(&format!("first_value({expr})")) {
        *expr = first;
        query.order_by = None;
    }
}

/// The bounds of a series are whole numbers of 64 bits.
fn widen(argument: &mut FunctionArg) {
    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument
        && !matches!(expr, Expr::Value(_))
        && let Some(wide) = read(&format!("CAST({expr} AS BIGINT)"))
    {
        *expr = wide;
    }
}

/// Gives columns without a name the one that PostgreSQL gives them, and makes names differ.
fn name_columns(projection: &mut [SelectItem]) {
    let mut seen = BTreeSet::new();
    for item in projection.iter() {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => seen.insert(crate::dialect::folded(alias)),
            SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => {
                seen.insert(empty::name(item).unwrap_or_default())
            }
            _ => false,
        };
    }
    for item in projection.iter_mut() {
        let Some(name) = empty::name(item) else { continue };
        if let SelectItem::UnnamedExpr(expr) = item
            && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        {
            let alias = Ident::with_quote('"', empty::free_name(&name, &mut seen));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::{Statement, VisitMut};

    use super::*;

    fn rewritten(text: &str) -> String {
        let mut read = Parser::parse_sql(&PostgreSqlDialect {}, text).unwrap();
        let mut rules = Rules { path: vec!["main".into(), "lake".into()] };
        let statement: &mut Statement = &mut read[0];
        let _ = VisitMut::visit(statement, &mut rules);
        statement.to_string()
    }

    #[test]
    fn a_name_becomes_a_look_up_along_the_path() {
        let text = rewritten("SELECT 'shop'::regclass::oid AS o");
        assert!(text.contains("relname = 'shop'") && text.contains("'lake'"), "{text}");
        let text = rewritten("SELECT CAST('lake.\"A b\"' AS regclass) AS o");
        assert!(text.contains("relname = 'A b'") && !text.contains("'main'"), "{text}");
        assert_eq!(rewritten("SELECT 'pg_class'::regclass AS o"), "SELECT 1259 AS o");
        let text = rewritten("SELECT a = 'pg_catalog.array_in'::regproc AS b FROM pg_type");
        assert_eq!(text, "SELECT a = 'array_in' AS b FROM pg_type");
    }

    #[test]
    fn a_right_is_that_on_the_table_of_the_path() {
        for text in [
            "SELECT has_table_privilege('shop', 'select')",
            "SELECT pg_catalog.has_table_privilege('ann', 'shop', 'select')",
        ] {
            let text = rewritten(text);
            let path = "nspname IN ('main', 'lake') AND rc.relname = 'shop'";
            assert!(text.contains(path) && text.contains(", 'select')"), "{text}");
        }
        let text = rewritten("SELECT has_table_privilege('system.consents', 'select')");
        assert!(text.contains("nspname IN ('system')"), "{text}");
        let text = "SELECT has_table_privilege('pg_catalog.pg_class', 'select')";
        assert!(rewritten(text).contains("'pg_catalog.pg_class'"));
    }

    #[test]
    fn what_the_planner_does_not_read_is_said_otherwise() {
        let text =
            rewritten("SELECT a FROM pg_type t WHERE (SELECT c.k FROM pg_class c WHERE c.o = t.r)");
        assert!(text.contains("SELECT first_value(c.k)"), "{text}");
        let text = rewritten("SELECT ARRAY(SELECT a FROM pg_class) AS x, 1, 1, pg_catalog.f(2)");
        assert!(text.contains("CAST(NULL AS TEXT[]) AS x"), "{text}");
        assert!(text.contains("1 AS \"?column?\", 1 AS \"?column?_2\""), "{text}");
        assert!(text.ends_with("pg_catalog.f(2) AS \"f\""), "{text}");
        let text = rewritten("SELECT a FROM pg_class WHERE a NOT LIKE $1 || '%' ESCAPE '/'");
        assert!(text.ends_with("a NOT LIKE replace($1 || '%', '/', '\\')"), "{text}");
        let text = rewritten("SELECT 1 AS o FROM pg_type WHERE oid = to_regtype($1)");
        assert!(text.contains("rt.typname = $1"), "{text}");
        let text = rewritten(
            "SELECT a FROM pg_class WHERE a IN (SELECT s[i] FROM generate_series(1, 2) AS i, string_to_array(current_setting('search_path'), ',') s)",
        );
        assert!(text.ends_with("WHERE (a IN ('main', 'lake'))"), "{text}");
        let text = rewritten("SELECT CASE WHEN a THEN (SELECT s FROM pg_sequence) END AS x");
        assert!(text.contains("THEN NULL"), "{text}");
    }
}
