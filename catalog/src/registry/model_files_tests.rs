//! Files of models come back as they were written, and what is damaged is told.

use arrow::array::{FixedSizeBinaryArray, Int64Array, StringArray};
use object_store::ObjectStoreExt;

use super::super::model_writing::{Writing, group_rows, write};
use super::*;
use crate::testing::Shared;

fn numbers(rows: usize, width: usize) -> Vec<f32> {
    (0..rows * width).map(|index| (index as f32).sin()).collect()
}

#[tokio::test]
async fn ids_of_every_type_come_back_with_their_vectors() {
    let place = Shared::new().place;
    let uuids = (0..20_000_u128).map(|index| index.to_be_bytes());
    let ids: [ArrayRef; 3] = [
        Arc::new(Int64Array::from_iter_values(0..20_000)),
        Arc::new(StringArray::from_iter_values((0..20_000).map(|id| format!("user {id}")))),
        Arc::new(FixedSizeBinaryArray::try_from_iter(uuids).unwrap()),
    ];
    let (values, bias) = (numbers(20_000, 3), numbers(20_000, 1));
    for ids in ids {
        let columns = vec![
            ("id", Column::Ids(Arc::clone(&ids))),
            ("factors", Column::Vectors(&values, 3)),
            ("bias", Column::Numbers(&bias)),
        ];
        let file = write(&place, "u".into(), &columns).await.unwrap();
        let wanted = [("id", Kind::Ids), ("factors", Kind::Vectors(3)), ("bias", Kind::Numbers)];
        let mut table = read(&place, &file, &wanted).await.unwrap();
        assert_eq!(&table.ids("id").unwrap(), &ids);
        assert_eq!(table.numbers("factors").unwrap(), values);
        assert_eq!(table.numbers("bias").unwrap(), bias);
        assert!(table.numbers("bias").is_err() && table.codes("id").is_err());
    }
}

#[tokio::test]
async fn cells_come_back_with_rows_that_have_none() {
    let place = Shared::new().place;
    let long: Vec<usize> = (0..=3_000).map(|row| row * 7).collect();
    for offsets in [vec![0, 0, 2, 2, 3, 3], vec![0, 3], vec![0, 0], long] {
        let cells = *offsets.last().unwrap();
        let items: Vec<u32> = (0..cells as u32).map(|cell| cell * 31 % 97).collect();
        let weights = numbers(cells, 1);
        let columns = vec![
            ("user", Column::Rows(&offsets)),
            ("item", Column::Codes(&items)),
            ("weight", Column::Numbers(&weights)),
        ];
        let file = write(&place, "s".into(), &columns).await.unwrap();
        let rows = offsets.len() - 1;
        let wanted = [("user", Kind::Rows(rows)), ("item", Kind::Codes), ("weight", Kind::Numbers)];
        let mut table = read(&place, &file, &wanted).await.unwrap();
        assert_eq!(table.offsets("user").unwrap(), offsets);
        assert_eq!(table.codes("item").unwrap(), items);
        assert_eq!(table.numbers("weight").unwrap(), weights);
    }
}

#[tokio::test]
async fn long_rows_are_written_in_small_groups() {
    let place = Shared::new().place;
    let values = numbers(3, 3_000_000);
    let columns = vec![("weights", Column::Vectors(&values, 3_000_000))];
    assert_eq!(group_rows(&columns), 5);
    let file = write(&place, "d".into(), &columns).await.unwrap();
    let wanted = [("weights", Kind::Vectors(3_000_000))];
    let mut table = read(&place, &file, &wanted).await.unwrap();
    assert_eq!(table.numbers("weights").unwrap(), values);
}

#[tokio::test]
async fn vectors_of_any_length_come_back_from_several_groups() {
    let place = Shared::new().place;
    let (rows, codes) = (70_000_usize, (0..70_000).rev().collect::<Vec<u32>>());
    for width in [1, 7, 64] {
        let values = numbers(rows, width);
        let lists: Vec<&[f32]> = values.chunks_exact(width).collect();
        for vectors in [Column::Vectors(&values, width), Column::Lists(lists)] {
            let columns = vec![("of", vectors), ("code", Column::Codes(&codes))];
            assert!(group_rows(&columns) < rows);
            let file = write(&place, "v".into(), &columns).await.unwrap();
            let wanted = [("code", Kind::Codes), ("of", Kind::Vectors(width))];
            let mut table = read(&place, &file, &wanted).await.unwrap();
            assert!(table.numbers("of").unwrap() == values);
            assert_eq!(table.codes("code").unwrap(), codes);
        }
    }
}

#[tokio::test]
async fn columns_that_do_not_fit_together_are_refused() {
    let place = Shared::new().place;
    let (empty, short, long): (&[f32], &[f32], &[f32]) = (&[], &[1.0], &[1.0, 2.0]);
    let null: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    for columns in [
        vec![("a", Column::Codes(&[1, 2])), ("b", Column::Numbers(short))],
        vec![("a", Column::Lists(vec![short, long]))],
        vec![("a", Column::Lists(vec![empty, empty]))],
        vec![("a", Column::Ids(null))],
    ] {
        let error = write(&place, "w".into(), &columns).await.unwrap_err().to_string();
        assert!(error.contains("do not fit together"), "{error}");
    }
    let mut writing =
        Writing::begin(&place, "w".into(), &vec![("a", Column::Codes(&[1]))]).unwrap();
    assert!(writing.add(&vec![("a", Column::Numbers(short))]).await.is_err());
}

#[tokio::test]
async fn cut_swapped_and_senseless_files_are_corrupt() {
    let place = Shared::new().place;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let save = async |values: &[f32], width: usize| {
        let vectors = Column::Vectors(values, width);
        let columns = vec![("id", Column::Ids(Arc::clone(&ids))), ("factors", vectors)];
        write(&place, "u".into(), &columns).await
    };
    let file = save(&numbers(2, 4), 4).await.unwrap();
    let expect = async |file: &StoredFile, width, part: &str| {
        let wanted = [("id", Kind::Ids), ("factors", Kind::Vectors(width))];
        let error = read(&place, file, &wanted).await.err().unwrap();
        assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    expect(&file, 5, "4 numbers, not 5").await;
    expect(&StoredFile { rows: 3, ..file.clone() }, 4, "2 rows, not 3").await;
    expect(&StoredFile { name: "gone".into(), ..file.clone() }, 4, "missing").await;
    let wanted = [("id", Kind::Codes), ("factors", Kind::Numbers), ("bias", Kind::Numbers)];
    for (wanted, part) in wanted.iter().zip(["no codes", "no 32-bit", "no column bias"]) {
        let error = read(&place, &file, &[*wanted]).await.err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
    let target = place.child("u");
    let content = target.read().await.unwrap();
    let cut = content.slice(..content.len() / 2);
    target.store.put(&target.path, cut.clone().into()).await.unwrap();
    expect(&file, 4, "bytes").await;
    expect(&StoredFile { bytes: cut.len() as u64, ..file.clone() }, 4, "u cannot be read").await;
    let file = save(&[1.0, f32::NAN, 0.0, 0.0], 2).await.unwrap();
    expect(&file, 2, "not finite").await;
    assert!(save(&[1.0, 2.0, 3.0], 2).await.is_err());
    let cells = vec![("row", Column::Codes(&[1, 0]))];
    let file = write(&place, "c".into(), &cells).await.unwrap();
    let error = read(&place, &file, &[("row", Kind::Rows(2))]).await.err().unwrap();
    assert!(error.to_string().contains("not by row"), "{error}");
}
