//! Tests of splits: what is kept aside, and what is refused.

use super::*;

fn options(text: &[(&str, Json)], is_three_way: bool) -> Result<SplitOptions> {
    let given = text.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    SplitOptions::read(&given.collect(), is_three_way)
}

#[test]
fn auto_split_keeps_aside_what_it_says() {
    let shares = |is_three_way, cells| {
        let shares = options(&[], is_three_way).unwrap().shares(cells);
        (shares.validation, shares.test)
    };
    assert_eq!([499, 500, 50_000].map(|n| shares(false, n).1), [0.0, 0.2, 0.2]);
    assert_eq!(shares(false, 100_000), (0.0, 0.1));
    assert_eq!([10, 500, 1_000_000].map(|n| shares(true, n)), [(0.2, 0.2), (0.1, 0.1), (0.1, 0.1)]);
    assert_eq!(shares(true, 2_000_000), (0.05, 0.05));
    let most = [("data_split_test_fraction", Json::from(0.9))];
    let most = options(&most, true).unwrap().shares(20);
    assert!(most.test == 0.9 && most.validation > 0.0 && most.validation < 0.1);
    let tested = |cells| options(&[], false).unwrap().tested_max(cells);
    assert_eq!([100, 1_000, 1_000_000].map(tested), [0, 320, 11_100]);
    let both = [
        ("data_split_eval_fraction", Json::from(0.3)),
        ("data_split_test_fraction", Json::from(0.0)),
    ];
    let shares = options(&both, true).unwrap().shares(9);
    assert_eq!((shares.validation, shares.test), (0.3, 0.0));
}

#[test]
fn three_parts_are_disjoint_and_whole_for_every_method() {
    let columns: Vec<u32> = (0..50).flat_map(|_| 0..40).collect();
    let offsets = (0..=50).map(|row| row * 40).collect();
    let all = Csr::new(offsets, columns, vec![1.0; 2000], 40).unwrap();
    let users: Vec<u64> = (0..50).collect();
    let items: Vec<u64> = (100..140).collect();
    let times: Vec<i64> = (0..2000).map(|cell| cell * 7 % 2000).collect();
    let parts_of: Vec<i64> = (0..2000).map(|cell| cell % 3).collect();
    for (method, keys, sizes) in [
        ("auto_split", None, None),
        ("random", None, None),
        ("per_user", None, Some((1200, 400, 400))),
        ("per_user", Some(times.clone()), Some((1200, 400, 400))),
        ("seq", Some(times.clone()), Some((1200, 400, 400))),
        ("leave_one_out", None, Some((1900, 50, 50))),
        ("leave_one_out", Some(times.clone()), Some((1900, 50, 50))),
        ("custom", Some(parts_of), Some((667, 667, 666))),
    ] {
        let mut given = vec![("data_split_method", Json::from(method))];
        if method == "custom" {
            given.push(("data_split_col", Json::from("part")));
        }
        let options = options(&given, true).unwrap();
        let is_timed = keys.as_ref().is_some_and(|_| method != "custom");
        let keys = keys.as_deref();
        let whole = Whole { all: &all, users: &users, items: &items, keys };
        let parts = whole.divide(&options, None).unwrap();
        let found = (parts.training.cells(), parts.validation.cells(), parts.test.cells());
        assert_eq!(found.0 + found.1 + found.2, 2000, "{method}");
        assert!(found.1 > 0 && found.2 > 0, "{method}");
        if let Some(sizes) = sizes {
            assert_eq!(found, sizes, "{method}");
        }
        for user in 0..50 {
            let in_parts = [parts.training.as_ref(), &parts.validation, &parts.test]
                .map(|part| part.row(user).0.to_vec());
            for item in 0..40 {
                assert_eq!(in_parts.iter().filter(|part| part.contains(&item)).count(), 1);
            }
            if is_timed && method != "seq" {
                let latest =
                    |part: &[u32]| part.iter().map(|&item| times[user * 40 + item as usize]).max();
                assert!(latest(&in_parts[0]) < latest(&in_parts[1]), "{method}");
                assert!(latest(&in_parts[1]) < latest(&in_parts[2]), "{method}");
            }
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let text = |text: &str| Json::from(text);
    for (given, is_three_way, part) in [
        (vec![("data_split_eval_fraction", Json::from(1.0))], false, "is 1 it lies between 0"),
        (vec![("data_split_test_fraction", Json::from(0.1))], false, "chosen"),
        (vec![("data_split_eval_fraction", Json::from(0.5))], true, "as much to measure on"),
        (
            vec![
                ("data_split_eval_fraction", Json::from(0.5)),
                ("data_split_test_fraction", Json::from(0.75)),
            ],
            true,
            "nothing to train on 0.5 to choose on and 0.75 to measure on",
        ),
        (vec![("data_split_method", text("no_split"))], true, "no rows to choose on"),
        (vec![("data_split_method", text("custom"))], false, "needs data_split_col"),
        (vec![("data_split_col", text("at"))], false, "takes no data_split_col"),
        (
            vec![
                ("data_split_method", text("leave_one_out")),
                ("data_split_eval_fraction", Json::from(0.1)),
            ],
            false,
            "takes no data_split_eval_fraction",
        ),
    ] {
        let error = options(&given, is_three_way).unwrap_err();
        let error = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(error.contains(part), "{error}");
    }
}
