//! Writes the shop into the lake in the formats a lake has: CSV from the CRM and the broker,
//! Parquet from the web shop, the clickstream partitioned by day.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::csv::WriterBuilder;
use arrow::temporal_conversions::date32_to_datetime;
use parquet::arrow::ArrowWriter;

use super::shop::{Click, FIRST_DAY, Product, Record, Shop};
use crate::error::{Error, Result};

/// Writes every table of the shop below `lake`.
pub(super) fn write(shop: &Shop, lake: &Path) -> Result<()> {
    csv(lake, "crm_customers/customers.csv", &records(&shop.crm, "customer_id", "full_name")?)?;
    let web = records(&shop.web, "account_id", "name")?;
    parquet(lake, "web_customers/customers.parquet", &web)?;
    parquet(lake, "products/products.parquet", &products(&shop.products)?)?;
    parquet(lake, "orders/orders.parquet", &orders(shop)?)?;
    csv(lake, "third_party/attributes.csv", &attributes(shop)?)?;
    csv(lake, "answer_key/answer_key.csv", &answer_key(shop)?)?;
    for (number, clicks) in shop.clicks.iter().enumerate() {
        let day = date32_to_datetime(FIRST_DAY + number as i32)
            .map(|date| date.date().to_string())
            .unwrap_or_default();
        parquet(lake, &format!("clicks/day={day}/clicks.parquet"), &click_batch(shop, clicks)?)?;
    }
    Ok(())
}

fn text<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns)
        .map_err(|error| Error::Format { format: "parquet", reason: error.to_string() })
}

fn records(records: &[Record], id: &str, name: &str) -> Result<RecordBatch> {
    batch(vec![
        (id, text(records.iter().map(|record| record.id.as_str()))),
        (name, text(records.iter().map(|record| record.name.as_str()))),
        ("email", text(records.iter().map(|record| record.email.as_str()))),
        ("phone", text(records.iter().map(|record| record.phone.as_str()))),
        ("city", text(records.iter().map(|record| record.city))),
        ("postcode", text(records.iter().map(|record| record.postcode.as_str()))),
        ("birth_year", integers(records.iter().map(|record| record.birth_year))),
        ("gender", text(records.iter().map(|record| record.gender))),
    ])
}

fn products(products: &[Product]) -> Result<RecordBatch> {
    let prices = products.iter().map(|product| product.price);
    batch(vec![
        ("product_id", text(products.iter().map(|product| product.id.as_str()))),
        ("name", text(products.iter().map(|product| product.name.as_str()))),
        ("category", text(products.iter().map(|product| product.category))),
        ("price", Arc::new(Float64Array::from_iter_values(prices))),
    ])
}

fn product(shop: &Shop, index: usize) -> (&str, &str, f64) {
    shop.products
        .get(index)
        .map_or(("", "", 0.0), |product| (product.id.as_str(), product.category, product.price))
}

fn orders(shop: &Shop) -> Result<RecordBatch> {
    let orders = &shop.orders;
    let amounts = orders.iter().map(|order| {
        let cents = product(shop, order.product).2 * order.quantity as f64 * 100.0;
        cents.round() / 100.0
    });
    let times = orders.iter().map(|order| order.time_us);
    let ids: Vec<String> = (1..=orders.len()).map(|number| format!("O{number:06}")).collect();
    batch(vec![
        ("order_id", text(ids.iter().map(String::as_str))),
        ("customer_id", text(orders.iter().map(|order| order.customer.as_str()))),
        ("product_id", text(orders.iter().map(|order| product(shop, order.product).0))),
        ("quantity", integers(orders.iter().map(|order| order.quantity))),
        ("amount", Arc::new(Float64Array::from_iter_values(amounts))),
        ("ordered_at", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
    ])
}

fn click_batch(shop: &Shop, clicks: &[Click]) -> Result<RecordBatch> {
    let times = clicks.iter().map(|click| click.time_us);
    batch(vec![
        ("account_id", text(clicks.iter().map(|click| click.account.as_str()))),
        ("product_id", text(clicks.iter().map(|click| product(shop, click.product).0))),
        ("category", text(clicks.iter().map(|click| product(shop, click.product).1))),
        ("event", text(clicks.iter().map(|click| click.event))),
        ("event_time", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
    ])
}

fn attributes(shop: &Shop) -> Result<RecordBatch> {
    let rows = &shop.attributes;
    batch(vec![
        ("email", text(rows.iter().map(|row| row.email.as_str()))),
        ("household_income", text(rows.iter().map(|row| row.income))),
        ("interest", text(rows.iter().map(|row| row.interest))),
    ])
}

fn answer_key(shop: &Shop) -> Result<RecordBatch> {
    batch(vec![
        ("record_id", text(shop.answer_key.iter().map(|(record, _)| record.as_str()))),
        ("person", integers(shop.answer_key.iter().map(|(_, person)| *person as i64))),
    ])
}

fn create(lake: &Path, name: &str) -> Result<File> {
    let path = lake.join(name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, &error))?;
    }
    File::create(&path).map_err(|error| Error::file("create", &path, &error))
}

fn csv(lake: &Path, name: &str, batch: &RecordBatch) -> Result<()> {
    let mut writer = WriterBuilder::new().with_header(true).build(create(lake, name)?);
    writer.write(batch).map_err(|error| Error::Format { format: "csv", reason: error.to_string() })
}

fn parquet(lake: &Path, name: &str, batch: &RecordBatch) -> Result<()> {
    let wrong = |error: parquet::errors::ParquetError| Error::Format {
        format: "parquet",
        reason: error.to_string(),
    };
    let mut writer =
        ArrowWriter::try_new(create(lake, name)?, batch.schema(), None).map_err(wrong)?;
    writer.write(batch).map_err(wrong)?;
    writer.close().map_err(wrong)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lake_has_a_folder_a_table_and_one_a_day() {
        let folder = tempfile::tempdir().unwrap();
        write(&Shop::generate(42, 1), folder.path()).unwrap();
        let names = |path: &Path| {
            let entries = std::fs::read_dir(path).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(
            names(folder.path()),
            [
                "answer_key",
                "clicks",
                "crm_customers",
                "orders",
                "products",
                "third_party",
                "web_customers"
            ]
        );
        let days = names(&folder.path().join("clicks"));
        assert_eq!(days.len(), 30);
        assert_eq!((days[0].as_str(), days[29].as_str()), ("day=2026-01-01", "day=2026-01-30"));
    }
}
