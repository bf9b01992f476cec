//! What holds of a whole training, on generated people.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use hmac::{Hmac, KeyInit};
use sha2::Sha256;

use super::blocking::{Blocks, Rule, rules_of};
use super::cluster::Method;
use super::column::NONE;
use super::gather::Gathered;
use super::key::{Expression, fingerprint};
use super::kind::Kind;
use super::learn::{LinkOptions, NamedRule};
use super::measure::MEASURES;
use super::model::{EntityModel, Settings, What};
use super::pairs::testing::{limited, tiny};
use super::pairs::{PairRows, Pairs, Spill};
use super::train::{Before, EntityOptions, Resolved, Said, Under, train};
use crate::model::ModelError;
use crate::model::random::Seeded;
use crate::privacy::bloom;

const FIRST: [&str; 12] = [
    "anna", "bernd", "clara", "david", "emma", "felix", "greta", "hugo", "ida", "jonas", "klara",
    "lukas",
];
const LAST: [&str; 15] = [
    "schneider",
    "fischer",
    "weber",
    "becker",
    "wagner",
    "hoffmann",
    "koch",
    "richter",
    "klein",
    "wolf",
    "neumann",
    "schwarz",
    "zimmermann",
    "krueger",
    "hartmann",
];
const STREETS: [&str; 9] =
    ["oak", "mill", "station", "church", "garden", "market", "school", "forest", "lake"];

/// A row: id, entity, and what is compared.
pub(super) type Row = (i64, String, [Option<String>; 6]);

pub(super) const COLUMNS: [&str; 6] =
    ["first_name", "last_name", "street", "phone", "email", "birth_date"];

/// People, a third of whom are there twice, with slips.
fn people(count: usize, seed: u64) -> Vec<Row> {
    let mut random = Seeded::new(seed);
    let mut rows = Vec::new();
    for person in 0..count {
        let mut pick = |of: usize| random.below(of as u64) as usize;
        let (first, last) = (FIRST[pick(12)], LAST[pick(15)]);
        let birth = (1940 + pick(65), 1 + pick(12), 1 + pick(28));
        let said = [
            Some(first.to_owned()),
            Some(last.to_owned()),
            Some(format!("{} {} street", 1 + pick(200), STREETS[pick(9)])),
            Some(format!("0{} {}", 100 + pick(900), 1_000_000 + pick(9_000_000))),
            Some(format!("{first}.{last}{}@example.org", pick(10_000))),
            Some(format!("{}-{:02}-{:02}", birth.0, birth.1, birth.2)),
        ];
        let times = if pick(3) == 0 { 2 } else { 1 };
        for time in 0..times {
            let mut said = said.clone();
            if time > 0 {
                said[pick(2)] = said[pick(2)].clone().map(|name| format!("{name}s"));
                said[2 + pick(4)] = None;
            }
            rows.push((rows.len() as i64 * 7 % 9973, format!("p{person}"), said));
        }
    }
    rows
}

fn gathered(rows: &[Row]) -> Gathered {
    computing(rows, &[], &[])
}

/// The same with what a query computes.
fn computing(rows: &[Row], expressions: &[Expression], computed: &[ArrayRef]) -> Gathered {
    let columns = COLUMNS.map(|name| (name, &DataType::Utf8, None));
    let gathered = Gathered::new(("id", &DataType::Int64), None, &columns, true).unwrap();
    let mut gathered = gathered.computing(expressions);
    let ids: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>());
    let truth: ArrayRef =
        Arc::new(rows.iter().map(|row| Some(row.1.as_str())).collect::<StringArray>());
    let column = |at: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.2[at].as_deref()).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = (0..6).map(column).collect();
    gathered.add(&ids, None, &columns, computed, Some(&truth)).unwrap();
    gathered
}

pub(super) fn options() -> EntityOptions {
    EntityOptions {
        settings: Settings {
            id_col: "id".into(),
            source_col: None,
            is_link: false,
            method: Method::Guarded,
            threshold: 0.95,
        },
        link: LinkOptions::default(),
        own: None,
        pair_threshold: 0.01,
    }
}

pub(super) fn resolved(rows: &[Row], before: Option<&Resolved>, version: u32) -> Resolved {
    let before = before.map(|found| Before {
        model: &found.model,
        pairs: Some(&found.pairs),
        must_be_whole: false,
    });
    run(gathered(rows), Said::default(), before, version, &Spill::in_memory()).unwrap()
}

fn run(
    gathered: Gathered,
    said: Said<'_>,
    before: Option<Before<'_>>,
    version: u32,
    spill: &Spill,
) -> Result<Resolved, ModelError> {
    let cancel = AtomicBool::new(false);
    let under = Under { report: &mut |_| {}, cancel: &cancel, spill, room: &|_| true };
    train(gathered, &options(), said, before, version, under)
}

/// The same by rules that are named.
fn run_by(
    gathered: Gathered,
    rules: Vec<NamedRule>,
    before: Option<Before<'_>>,
) -> Result<Resolved, ModelError> {
    let options = options();
    let options = EntityOptions { link: LinkOptions { rules, ..options.link.clone() }, ..options };
    let (cancel, spill) = (AtomicBool::new(false), Spill::in_memory());
    let under = Under { report: &mut |_| {}, cancel: &cancel, spill: &spill, room: &|_| true };
    let version = if before.is_some() { 2 } else { 1 };
    train(gathered, &options, Said::default(), before, version, under)
}

/// All pairs, whatever pages they are in.
fn rows_of(pairs: &Pairs) -> PairRows {
    let mut rows = PairRows::default();
    for at in 0..pairs.pages() {
        let page = pairs.page(at).unwrap();
        rows.edges.extend(page.edges);
        rows.parts.extend(page.parts);
    }
    rows
}

pub(super) fn measure(found: &Resolved, name: &str) -> f64 {
    found.measures[MEASURES.iter().position(|known| *known == name).unwrap()]
}

#[test]
fn people_with_slips_are_found() {
    let found = resolved(&people(600, 1), None, 1);
    assert!(measure(&found, "precision") > 0.97, "{:?}", found.measures);
    assert!(measure(&found, "recall") > 0.97, "{:?}", found.measures);
    assert!(measure(&found, "estimated_precision") > 0.97, "{:?}", found.measures);
}

#[test]
fn the_answer_depends_neither_on_the_order_of_rows_nor_on_threads() {
    let mut rows = people(300, 2);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let alone = pool(1).install(|| resolved(&rows, None, 1));
    rows.reverse();
    let middle = rows.len() / 3;
    rows.rotate_left(middle);
    let many = pool(4).install(|| resolved(&rows, None, 1));
    let (a, b) = (alone.model.parts(), many.model.parts());
    assert_eq!(&a.ids, &b.ids);
    assert_eq!(a.entities, b.entities);
    assert_eq!(rows_of(&alone.pairs), rows_of(&many.pairs));
    assert_eq!(a.linkage.comparisons, b.linkage.comparisons);
}

#[test]
fn a_version_goes_on_and_entities_keep_their_ids() {
    let rows = people(300, 3);
    // Thirty come later, each the second record of somebody.
    let is_second = |at: usize| at > 0 && rows[at].1 == rows[at - 1].1;
    let late: Vec<usize> = (0..rows.len()).filter(|&at| is_second(at)).take(30).collect();
    let old = (0..rows.len()).filter(|at| !late.contains(at)).map(|at| rows[at].clone());
    let old: Vec<Row> = old.collect();
    let first = resolved(&old, None, 1);
    let second = resolved(&rows, Some(&first), 2);
    assert_eq!(second.kept, Some(old.len()));
    let whole = resolved(&rows, None, 1);
    let same = |a: &EntityModel, b: &EntityModel| {
        let of = |model: &EntityModel| {
            let entities = &model.parts().entities;
            entities.iter().map(|x| entities.iter().position(|y| x == y)).collect::<Vec<_>>()
        };
        of(a).iter().zip(of(b)).filter(|(x, y)| **x == *y).count()
    };
    assert!(same(&whole.model, &second.model) + 3 >= rows.len());
    let id = |model: &EntityModel, id: i64| {
        let ids = model.parts().ids.as_any().downcast_ref::<Int64Array>().unwrap().clone();
        let at = ids.values().iter().position(|&known| known == id).unwrap();
        model.parts().entities[at]
    };
    let kept = old.iter().filter(|row| id(&first.model, row.0) == id(&second.model, row.0));
    assert!(kept.count() + 3 >= old.len());
    let history = &second.model.parts().history;
    assert!(history.iter().any(|event| event.version == 2 && event.what == What::Joined));
}

#[test]
fn columns_without_values_and_values_of_everyone_do_no_harm() {
    let mut rows = people(400, 4);
    for (at, row) in rows.iter_mut().enumerate() {
        row.2[3] = None;
        if at % 2 == 0 {
            row.2[4] = Some(["N/A", "test@test.com", "info@shop.com"][at / 2 % 3].into());
        }
    }
    let found = resolved(&rows, None, 1);
    assert!(measure(&found, "precision") > 0.95, "{:?}", found.measures);
    let nothing: Vec<Row> = (0..50).map(|id| (id, format!("p{id}"), [const { None }; 6])).collect();
    let found = resolved(&nothing, None, 1);
    assert_eq!(measure(&found, "entities"), 50.0);
}

#[test]
fn a_namesake_with_the_same_birthday_is_another_person() {
    let mut rows = people(600, 5);
    let like = |row: &Row| [row.2[0].clone(), row.2[1].clone(), row.2[5].clone()];
    let [first, last, birth] = like(&rows[0]);
    let id = 20_000;
    let said = [
        first,
        last,
        Some("7 harbour road".into()),
        Some("0999 7654321".into()),
        Some("someone.else@other.net".into()),
        birth,
    ];
    rows.push((id, "namesake".into(), said));
    let found = resolved(&rows, None, 1);
    let parts = found.model.parts();
    let ids = parts.ids.as_any().downcast_ref::<Int64Array>().unwrap();
    let entity =
        |id: i64| parts.entities[ids.values().iter().position(|&known| known == id).unwrap()];
    assert_ne!(entity(id), entity(rows[0].0));
}

#[test]
fn two_records_are_enough() {
    let mut rows = people(1, 8);
    rows.truncate(1);
    rows.push((7, rows[0].1.clone(), rows[0].2.clone()));
    assert_eq!(measure(&resolved(&rows, None, 1), "entities"), 1.0);
    let mut few = people(6, 9);
    few.push((9000, few[2].1.clone(), few[2].2.clone()));
    let found = resolved(&few, None, 1);
    assert_eq!((measure(&found, "precision"), measure(&found, "recall")), (1.0, 1.0));
}

#[test]
fn any_text_in_any_column_is_compared() {
    let pieces =
        ["é", "日本", "a@b", "12", "1999", "@", "/", "-", " ", "x", "\u{301}", "ß", "0", "n/a"];
    for seed in 0..40 {
        let mut random = Seeded::new(seed);
        let mut text = || {
            let count = random.below(6);
            let piece = |_| pieces[random.below(pieces.len() as u64) as usize];
            (count > 0).then(|| (0..count).map(piece).collect::<String>())
        };
        let row = |id| (id, format!("p{}", id / 2), [(); 6].map(|()| text()));
        let rows: Vec<Row> = (0..60).map(row).collect();
        assert_eq!(measure(&resolved(&rows, None, 1), "records"), 60.0);
    }
}

#[test]
fn ids_repeat_and_tables_are_empty() {
    let mut rows = people(10, 6);
    rows[1].0 = rows[0].0;
    let error = |rows: &[Row]| {
        run(gathered(rows), Said::default(), None, 1, &Spill::in_memory()).unwrap_err()
    };
    assert!(matches!(error(&rows), ModelError::Repeated { .. }));
    assert_eq!(error(&[]), ModelError::Empty);
    assert_eq!(resolved(&rows[..1], None, 1).model.parts().ids.len(), 1);
}

#[test]
fn pairs_without_memory_and_disk_are_refused() {
    let spill = Spill::new(limited(1_000, 1_000));
    let found = run(gathered(&people(300, 7)), Said::default(), None, 1, &spill);
    let error = found.unwrap_err();
    assert!(matches!(error, ModelError::Spill(_)), "{error}");
}

#[test]
fn with_pairs_on_disk_all_is_the_same() {
    let rows = people(300, 11);
    // Some come later, so that the second version goes on with the pairs of the first.
    let early: Vec<Row> = rows.iter().filter(|row| row.0 % 9 > 0).cloned().collect();
    let versions = |spill: Spill| {
        let first = run(gathered(&early), Said::default(), None, 1, &spill).unwrap();
        let (model, pairs) = (&first.model, Some(&first.pairs));
        let before = Before { model, pairs, must_be_whole: true };
        let second = run(gathered(&rows), Said::default(), Some(before), 2, &spill).unwrap();
        assert!(second.kept.is_some());
        [first, second]
    };
    for (in_memory, on_disk) in versions(Spill::in_memory()).iter().zip(versions(tiny())) {
        assert_eq!(rows_of(&in_memory.pairs), rows_of(&on_disk.pairs));
        let (a, b) = (in_memory.model.parts(), on_disk.model.parts());
        assert_eq!((&a.entities, &a.history), (&b.entities, &b.history));
        // The measures that need a truth, and those that do not.
        assert_eq!(in_memory.measures, on_disk.measures);
        let at = |found: &Resolved| found.model.entities_at(&found.pairs, 0.5).unwrap();
        assert_eq!(at(in_memory), at(&on_disk));
    }
}

#[test]
fn a_model_made_anew_keeps_the_ids_of_entities() {
    let rows = people(200, 10);
    let first = resolved(&rows, None, 1);
    let less = &rows[..rows.len() - 20];
    let before = Before { model: &first.model, pairs: None, must_be_whole: false };
    let again = run(gathered(less), Said::default(), Some(before), 2, &Spill::in_memory());
    let again = again.unwrap();
    assert_eq!((again.kept, again.gone), (None, 20));
    // Where nothing may stay of records that are gone, nothing does, whatever there is to go on.
    for (must_be_whole, kept) in [(false, Some(less.len())), (true, None)] {
        let before = Before { model: &first.model, pairs: Some(&first.pairs), must_be_whole };
        let next = run(gathered(less), Said::default(), Some(before), 2, &Spill::in_memory());
        assert_eq!(next.unwrap().kept, kept);
    }
    let of = |model: &EntityModel| {
        let parts = model.parts();
        let ids = parts.ids.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
        ids.into_iter().zip(parts.entities.clone()).collect::<std::collections::HashMap<_, _>>()
    };
    let (was, is) = (of(&first.model), of(&again.model));
    let same = is.iter().filter(|(id, entity)| was[id] == **entity).count();
    assert!(same + 4 >= less.len(), "{same} of {}", less.len());
    let history = &again.model.parts().history;
    assert!(history.iter().any(|event| event.version == 2 && event.what == What::Gone));
}

#[test]
fn labels_do_no_harm_and_those_of_nobody_change_nothing() {
    let rows = people(600, 1);
    let salt = fingerprint("", 11);
    let key = |row: &Row| fingerprint(&row.0.to_string(), salt);
    let labelled: Vec<(u64, u64, bool)> = rows
        .windows(2)
        .take(100)
        .map(|pair| (key(&pair[0]), key(&pair[1]), pair[0].1 == pair[1].1))
        .collect();
    let learned = |labelled: &[(u64, u64, bool)]| {
        let said = Said { labelled, ..Said::default() };
        run(gathered(&rows), said, None, 1, &Spill::in_memory()).unwrap()
    };
    let told = learned(&labelled);
    assert!(told.unlearned.is_some_and(|ignored| ignored.is_none()), "{:?}", told.unlearned);
    assert!(measure(&told, "precision") > 0.97, "{:?}", told.measures);
    assert!(measure(&told, "recall") > 0.97, "{:?}", told.measures);
    let (alone, same) = (learned(&[]), learned(&[(1, 2, true), (3, 4, false)]));
    assert_eq!(rows_of(&same.pairs), rows_of(&alone.pairs));
    assert_eq!(same.unlearned.map(|ignored| ignored.unknown), Some(2));
}

/// u is how often two people say the same by chance: what the second records of a third of them
/// have in common with the first is no part of it.
#[test]
fn u_is_how_often_people_agree_by_chance() {
    let rows = people(900, 11);
    let found = resolved(&rows, None, 1);
    for (at, column) in found.model.parts().linkage.comparisons.iter().enumerate() {
        let (mut pairs, mut equal) = (0.0, 0.0);
        for (left, one) in rows.iter().enumerate() {
            let others = rows[left + 1..].iter().filter(|other| other.1 != one.1);
            let said = others.filter_map(|other| one.2[at].as_ref().zip(other.2[at].as_ref()));
            for (one, other) in said {
                pairs += 1.0;
                equal += f64::from(one == other);
            }
        }
        let (chance, found) = (equal / pairs, column.u[column.u.len() - 1]);
        let name = &column.column;
        assert!((found - chance).abs() < 0.1 * chance + 1e-4, "{name}: {found} for {chance}");
        let sum: f64 = column.u.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{name}: {sum}");
    }
}

/// What rules are expected to find is what they find, to a tenth, of people whose second records
/// have slips that nobody has told the rules of.
#[test]
fn rules_find_about_what_is_expected_of_them() {
    let rows = people(600, 12);
    let found = resolved(&rows, None, 1);
    let rules = &found.model.parts().linkage.rules;
    let expected: Vec<f64> = rules.iter().map(|used| used.expected.unwrap()).collect();
    assert!(expected.iter().all(|recall| (0.0..=1.0).contains(recall)), "{expected:?}");
    assert!(expected.is_sorted(), "{expected:?}");

    let records = gathered(&rows).ordered().unwrap().finish(None, false).unwrap();
    let truth = records.truth.as_ref().unwrap();
    let most = found.model.parts().linkage.block_max;
    let block = rules.iter().map(|used| Blocks::new(&used.rule, &records.records, most));
    let blocks: Vec<Blocks> = block.collect();
    let (mut all, mut caught) = (0.0, 0.0);
    for (left, one) in truth.iter().enumerate() {
        let same = truth.iter().enumerate().skip(left + 1);
        for (right, _) in same.filter(|(_, other)| *other == one && **other != NONE) {
            all += 1.0;
            caught += f64::from(rules_of(&blocks, left as u32, right as u32) != 0);
        }
    }
    let last = expected.last().copied().unwrap();
    assert!(all > 100.0 && (caught / all - last).abs() < 0.1, "{caught} of {all}, {last}");
}

/// What a query computes of last names: their first three letters, none of every seventh row.
fn beginnings(rows: &[Row]) -> ArrayRef {
    let beginning = |(at, row): (usize, &Row)| {
        row.2[1].as_ref().filter(|_| at % 7 != 3).map(|name| name[..3].to_owned())
    };
    Arc::new(rows.iter().enumerate().map(beginning).collect::<StringArray>())
}

fn computed_rule(text: &str) -> (Expression, Vec<NamedRule>) {
    let expression = Expression { text: text.into(), columns: 1 << 1 };
    let by_email = Rule::parse("email", &COLUMNS).unwrap();
    let rule = Rule { keys: vec![], expressions: vec![expression.clone()] };
    let rules = vec![
        NamedRule { rule: by_email, text: "email".into() },
        NamedRule { rule, text: text.into() },
    ];
    (expression, rules)
}

#[test]
fn what_a_query_computes_blocks_as_the_same_part_of_a_column_does() {
    let rows = people(60, 13);
    let (expression, rules) = computed_rule("f(last_name)");
    // All rows have a last name here, of three letters at least.
    let all: ArrayRef = Arc::new(
        rows.iter().map(|row| row.2[1].as_ref().map(|name| &name[..3])).collect::<StringArray>(),
    );
    let computed = run_by(computing(&rows, &[expression], &[all]), rules, None).unwrap();
    let named = ["email", "prefix(last_name, 3)"]
        .map(|text| NamedRule { rule: Rule::parse(text, &COLUMNS).unwrap(), text: text.into() });
    let parts = run_by(gathered(&rows), named.into(), None).unwrap();
    let (a, b) = (computed.model.parts(), parts.model.parts());
    assert_eq!(a.entities, b.entities);
    assert_eq!(rows_of(&computed.pairs), rows_of(&parts.pairs));
    let (a, b) = (&a.linkage.rules[1], &b.linkage.rules[1]);
    assert_eq!((&a.cost, a.recall, a.text.as_str()), (&b.cost, b.recall, "f(last_name)"));
    // Of an expression it is not known that a slip may leave it as it was.
    assert!(a.expected.is_some_and(|least| b.expected.is_some_and(|recall| least <= recall)));
}

#[test]
fn a_version_goes_on_with_what_the_query_computes_and_only_with_it() {
    let rows = people(60, 14);
    let (expression, rules) = computed_rule("f(last_name)");
    let made = |expression: &Expression| {
        computing(&rows, std::slice::from_ref(expression), &[beginnings(&rows)])
    };
    let first = run_by(made(&expression), rules.clone(), None).unwrap();
    let keyed = first.model.parts().linkage.rules[1].cost.keyed;
    let without = (0..rows.len()).filter(|at| at % 7 == 3).count();
    assert_eq!(keyed as usize, rows.len() - without);
    let (model, pairs) = (&first.model, Some(&first.pairs));
    let before = || Some(Before { model, pairs, must_be_whole: true });
    let again = run_by(made(&expression), rules.clone(), before()).unwrap();
    assert_eq!(again.kept, Some(rows.len()));
    let (other, others) = computed_rule("g(last_name)");
    let anew = run_by(made(&other), others, before()).unwrap();
    assert_eq!(anew.kept, None);
    let error = run_by(gathered(&rows), rules, None).unwrap_err();
    assert!(matches!(&error, ModelError::Option { value, .. } if value == "'f(last_name)'"));
}

/// Encodings of names of two words, and the same of each with a slip in it.
pub(super) fn encodings(count: usize, seed: u64) -> Vec<(String, String)> {
    const PARTS: [&str; 24] = [
        "ba", "chen", "dor", "el", "fisch", "gra", "hof", "in", "jan", "krueg", "lin", "mann",
        "nov", "ost", "pet", "quir", "rich", "schul", "tam", "urs", "vog", "weg", "xer", "zim",
    ];
    let mac = Hmac::<Sha256>::new_from_slice(b"a key of the tests").unwrap();
    let shown = |text: &str| {
        let mut shown = String::new();
        bloom::show("ab-1", &bloom::encoded(text, &mac).unwrap(), &mut shown).unwrap();
        shown
    };
    let mut random = Seeded::new(seed);
    let mut one = || {
        let mut part = || PARTS[random.below(24) as usize];
        let words = [[part(), part(), part()].concat(), [part(), part(), part()].concat()];
        let name = words.join(" ");
        let mut letters = name.clone().into_bytes();
        let at = random.below(letters.len() as u64) as usize;
        letters[at] = if letters[at] == b'y' { b'w' } else { b'y' };
        (shown(&name), shown(&String::from_utf8(letters).unwrap()))
    };
    (0..count).map(|_| one()).collect()
}

/// People in columns of encodings, each there twice, with a slip in all.
fn encoded(names: &[&str], count: usize, seed: u64) -> Gathered {
    let ids: ArrayRef = Arc::new((0..2 * count as i64).map(Some).collect::<Int64Array>());
    let truth = (0..2 * count).map(|id| Some(format!("p{}", id % count)));
    let truth: ArrayRef = Arc::new(truth.collect::<StringArray>());
    let column = |at: usize| -> ArrayRef {
        let made = encodings(count, seed + at as u64);
        let (first, second): (Vec<String>, Vec<String>) = made.into_iter().unzip();
        Arc::new(first.into_iter().chain(second).map(Some).collect::<StringArray>())
    };
    let said: Vec<ArrayRef> = (0..names.len()).map(column).collect();
    let columns: Vec<_> = names.iter().map(|name| (*name, &DataType::Utf8, None)).collect();
    let mut gathered = Gathered::new(("id", &DataType::Int64), None, &columns, true).unwrap();
    gathered.add(&ids, None, &said, &[], Some(&truth)).unwrap();
    gathered
}

#[test]
fn encodings_that_are_nowhere_equal_are_linked() {
    for names in [&["name"][..], &["name", "street"]] {
        let gathered = encoded(names, 200, 21);
        let found = run(gathered, Said::default(), None, 1, &Spill::in_memory()).unwrap();
        assert!(measure(&found, "recall") > 0.9, "{names:?} {:?}", found.measures);
        assert!(measure(&found, "precision") > 0.9, "{names:?} {:?}", found.measures);
    }
}

#[test]
fn encodings_that_tell_nothing_of_each_other_are_refused() {
    let shown = |key: &str| format!("{key}.{}", "0f".repeat(64));
    let compared = |kind: Option<Kind>, values: &[String]| {
        let columns = [("name", &DataType::Utf8, kind)];
        let mut gathered = Gathered::new(("id", &DataType::Int64), None, &columns, false).unwrap();
        let ids: ArrayRef = Arc::new((0..values.len() as i64).map(Some).collect::<Int64Array>());
        let said: ArrayRef = Arc::new(values.iter().map(Some).collect::<StringArray>());
        gathered.add(&ids, None, &[said], &[], None).unwrap();
        gathered.ordered().unwrap().finish(None, false).map(|_| ())
    };
    let two = [shown("a-1"), shown("b-1"), shown("a-1")];
    let error = compared(None, &two).unwrap_err();
    assert!(matches!(&error, ModelError::EncodingKeys { one, other, .. } if one < other));
    assert!(error.to_string().contains("under the keys a-1 and b-1"), "{error}");
    let other = [shown("a-1"), "unknown".to_owned(), "ann".to_owned()];
    let error = compared(Some(Kind::Bloom), &other).unwrap_err();
    assert!(matches!(&error, ModelError::NoEncodings { column } if column == "name"), "{error}");
    assert!(compared(Some(Kind::Bloom), &other[..2]).is_ok());
}
