//! `convert_unit(value, from, to)`: a measure in another unit, NULL when there is doubt.
//!
//! Lengths, areas, volumes, masses, times, temperatures and sizes of data, by their usual symbols;
//! case counts only where it tells units apart (`mb` is none: `MB` or `Mb`?). A unit that is
//! unknown or of another kind gives NULL, and so does one that means different things (a bare
//! `gal`, `oz` is of mass and `fl_oz` is refused): write `us_gal` or `imp_gal`. Factors are exact
//! by definition (1 in = 25.4 mm, 1 lb = 453.59237 g). What is no finite number, before or after,
//! is no measure: NULL. NULL in, NULL out.

use std::sync::Arc;

use arrow::array::Float64Array;
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use crate::fuzzy::arguments::{
    Numbers, columnar, number_coercion, scalar_function, signature, text_coercion,
};
use crate::text::Text;

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "A measure in another unit: lengths (mm, cm, m, km, in, ft, yd, mi, nmi), areas (cm2, m2, ha, km2, in2, ft2, acre, mi2), volumes (ml, cl, dl, l, cm3, m3, us_gal, imp_gal), masses (mg, g, kg, t, oz, lb, st), times (ms, s, min, h, d, wk), temperatures (C, F, K), data (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB). NULL when a unit is unknown or of another kind.",
    syntax_example = "convert_unit(value, from, to)",
    sql_example = r#"```sql
> SELECT round(convert_unit(5, 'lb', 'kg'), 3) AS kg, convert_unit(212, 'F', 'C') AS celsius,
         convert_unit(1, 'kg', 'm') AS none;
+-------+---------+------+
| kg    | celsius | none |
+-------+---------+------+
| 2.268 | 100.0   |      |
+-------+---------+------+
```"#,
    argument(name = "value", description = "A number."),
    argument(name = "from", description = "The unit it is in."),
    argument(name = "to", description = "The unit it shall be in.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ConvertUnitFunction {
    signature: Signature,
}

scalar_function!(
    ConvertUnitFunction,
    "convert_unit",
    signature(vec![number_coercion(), text_coercion(), text_coercion()]),
    DataType::Float64,
    convert_unit
);

fn convert_unit(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let [value, from, to] = arguments else {
        return exec_err!("{name} takes a number and two units, got {} arguments", arguments.len());
    };
    let value = Numbers::<Float64Type>::from_argument(name, value)?;
    let (from, to) = (Text::from_argument(name, from)?, Text::from_argument(name, to)?);
    columnar(arguments, rows, |rows| {
        let converted = (0..rows).map(|row| {
            let (from, to) = (unit(from.get(row)?)?, unit(to.get(row)?)?);
            converted(value.get(row)?, from, to).filter(|measure| measure.is_finite())
        });
        Ok(Arc::new(converted.collect::<Float64Array>()))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Length,
    Area,
    Volume,
    Mass,
    Time,
    Temperature,
    Data,
}

/// A unit: `value · numerator / denominator + offset` is the value in its quantity's own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Unit {
    quantity: Quantity,
    numerator: f64,
    denominator: f64,
    offset: f64,
}

fn converted(value: f64, from: Unit, to: Unit) -> Option<f64> {
    if from.quantity != to.quantity {
        return None;
    }
    if from == to {
        return Some(value);
    }
    // Whole factors are multiplied first, so that 1 ft is 0.3048 m to the last digit.
    let whole = value * from.numerator * to.denominator / (from.denominator * to.numerator);
    let shift = (from.offset - to.offset) * to.denominator / to.numerator;
    Some(whole + shift)
}

/// Whether a symbol is of a unit that is known.
pub fn is_unit(symbol: &str) -> bool {
    unit(symbol).is_some()
}

fn unit(symbol: &str) -> Option<Unit> {
    use Quantity as Q;
    let of = |quantity, numerator: f64, denominator: f64| {
        Some(Unit { quantity, numerator, denominator, offset: 0.0 })
    };
    let symbol = symbol.trim();
    match symbol {
        "B" => return of(Q::Data, 1.0, 1.0),
        "kB" => return of(Q::Data, 1e3, 1.0),
        "MB" => return of(Q::Data, 1e6, 1.0),
        "GB" => return of(Q::Data, 1e9, 1.0),
        "TB" => return of(Q::Data, 1e12, 1.0),
        "KiB" => return of(Q::Data, 1024.0, 1.0),
        "MiB" => return of(Q::Data, 1_048_576.0, 1.0),
        "GiB" => return of(Q::Data, 1_073_741_824.0, 1.0),
        "TiB" => return of(Q::Data, 1_099_511_627_776.0, 1.0),
        // A lower-case k or f is no temperature, and Mm no millimetre.
        "K" => {
            return Some(Unit {
                quantity: Q::Temperature,
                numerator: 1.0,
                denominator: 1.0,
                offset: 0.0,
            });
        }
        "C" | "°C" => {
            return Some(Unit {
                quantity: Q::Temperature,
                numerator: 1.0,
                denominator: 1.0,
                offset: 273.15,
            });
        }
        "F" | "°F" => {
            let offset = 273.15 - 160.0 / 9.0;
            return Some(Unit {
                quantity: Q::Temperature,
                numerator: 5.0,
                denominator: 9.0,
                offset,
            });
        }
        "Mm" | "MM" | "Mg" | "MG" | "Ms" | "MS" | "T" | "D" | "H" | "S" | "G" | "M" => return None,
        _ => {}
    }
    match symbol.to_lowercase().as_str() {
        "mm" => of(Q::Length, 1.0, 1e3),
        "cm" => of(Q::Length, 1.0, 1e2),
        "m" => of(Q::Length, 1.0, 1.0),
        "km" => of(Q::Length, 1e3, 1.0),
        "in" => of(Q::Length, 254.0, 1e4),
        "ft" => of(Q::Length, 3_048.0, 1e4),
        "yd" => of(Q::Length, 9_144.0, 1e4),
        "mi" => of(Q::Length, 1_609_344.0, 1e3),
        "nmi" => of(Q::Length, 1_852.0, 1.0),
        "cm2" | "cm²" => of(Q::Area, 1.0, 1e4),
        "m2" | "m²" | "sqm" => of(Q::Area, 1.0, 1.0),
        "ha" => of(Q::Area, 1e4, 1.0),
        "km2" | "km²" => of(Q::Area, 1e6, 1.0),
        "in2" | "in²" | "sqin" => of(Q::Area, 64_516.0, 1e8),
        "ft2" | "ft²" | "sqft" => of(Q::Area, 9_290_304.0, 1e8),
        "acre" | "acres" => of(Q::Area, 40_468_564_224.0, 1e7),
        "mi2" | "mi²" | "sqmi" => of(Q::Area, 2_589_988_110_336.0, 1e6),
        "ml" | "cm3" | "cm³" => of(Q::Volume, 1.0, 1e3),
        "cl" => of(Q::Volume, 1.0, 1e2),
        "dl" => of(Q::Volume, 1.0, 1e1),
        "l" => of(Q::Volume, 1.0, 1.0),
        "m3" | "m³" => of(Q::Volume, 1e3, 1.0),
        "us_gal" => of(Q::Volume, 3_785_411_784.0, 1e9),
        "imp_gal" => of(Q::Volume, 454_609.0, 1e5),
        "mg" => of(Q::Mass, 1.0, 1e6),
        "g" => of(Q::Mass, 1.0, 1e3),
        "kg" => of(Q::Mass, 1.0, 1.0),
        "t" => of(Q::Mass, 1e3, 1.0),
        "oz" => of(Q::Mass, 45_359_237.0, 16e8),
        "lb" | "lbs" => of(Q::Mass, 45_359_237.0, 1e8),
        "st" => of(Q::Mass, 14.0 * 45_359_237.0, 1e8),
        "ms" => of(Q::Time, 1.0, 1e3),
        "s" | "sec" => of(Q::Time, 1.0, 1.0),
        "min" => of(Q::Time, 60.0, 1.0),
        "h" | "hr" => of(Q::Time, 3_600.0, 1.0),
        "d" => of(Q::Time, 86_400.0, 1.0),
        "wk" => of(Q::Time, 604_800.0, 1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use datafusion_common::ScalarValue;

    use super::*;
    use crate::fuzzy::testing::{one, text};

    fn of(value: f64, from: &str, to: &str) -> Option<f64> {
        converted(value, unit(from)?, unit(to)?)
    }

    #[test]
    fn defined_factors_are_exact() {
        assert_eq!(of(1.0, "ft", "m"), Some(0.3048));
        assert_eq!(of(1.0, "in", "mm"), Some(25.4));
        assert_eq!(of(1.0, "mi", "ft"), Some(5280.0));
        assert_eq!(of(1.0, "lb", "oz"), Some(16.0));
        assert_eq!(of(1.0, "st", "lb"), Some(14.0));
        assert_eq!(of(1.0, "acre", "m2"), Some(4_046.856_422_4));
        assert_eq!(of(1.0, "us_gal", "l"), Some(3.785_411_784));
        assert_eq!(of(2.0, "wk", "d"), Some(14.0));
        assert_eq!(of(1.0, "GiB", "MiB"), Some(1024.0));
    }

    #[test]
    fn temperatures_have_an_offset() {
        for (fahrenheit, celsius) in [(32.0, 0.0), (212.0, 100.0), (-40.0, -40.0)] {
            assert!((of(fahrenheit, "F", "C").unwrap() - celsius).abs() < 1e-12);
            assert!((of(celsius, "°C", "°F").unwrap() - fahrenheit).abs() < 1e-12);
        }
        assert_eq!(of(0.0, "C", "K"), Some(273.15));
    }

    #[test]
    fn what_is_not_finite_is_no_measure() {
        let [number, from, to] = [ScalarValue::from(1e308), text("t"), text("kg")];
        let none = |arguments: &[ScalarValue]| one("convert_unit", arguments).is_null(0);
        assert!(none(&[number, from, to.clone()]));
        for endless in [f64::NAN, f64::INFINITY] {
            assert!(none(&[endless.into(), to.clone(), to.clone()]), "{endless}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_null() {
        for (from, to) in
            [("gal", "l"), ("mb", "B"), ("kg", "m"), ("", "m"), ("Mm", "m"), ("c", "K")]
        {
            assert_eq!(of(1.0, from, to), None, "{from} {to}");
        }
    }
}
