//! Metrics of expectations: what CHECK TABLE last gave, by the warehouse, so that every server over
//! it tells the same and a restart forgets nothing.
//!
//! Tables and expectations are named where the configuration says so: whoever reads the metrics
//! sees them, with what was measured.

use std::sync::atomic::AtomicU64;

use catalog::checks::{CheckStatus, LastCheck, Severity};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Expectations that are named at most: each is two series.
const NAMED_MAX: usize = 1_000;

type Whole = Gauge<u64, AtomicU64>;
type BySeverity = [(&'static str, &'static str); 1];
type ByExpectation = [(&'static str, String); 4];

/// The metrics of expectations.
pub(super) struct ExpectationMetrics {
    unmet: Family<BySeverity, Whole>,
    named: Option<Named>,
}

/// Those with names.
#[derive(Default)]
struct Named {
    unmet: Family<ByExpectation, Whole>,
    value: Family<ByExpectation, Gauge<f64, AtomicU64>>,
    unnamed: Whole,
}

impl ExpectationMetrics {
    /// None yet; with names where `are_named`.
    pub(super) fn new(are_named: bool) -> Self {
        Self { unmet: Family::default(), named: are_named.then(Named::default) }
    }

    /// Makes them known.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Expectations that did not hold when CHECK TABLE last ran";
        registry.register("expectations_unmet", help, self.unmet.clone());
        let Some(named) = &self.named else { return };
        let help = "Whether an expectation did not hold when CHECK TABLE last ran";
        registry.register("expectation_unmet", help, named.unmet.clone());
        let help = "What CHECK TABLE last found for an expectation, where that is a number";
        registry.register("expectation_value", help, named.value.clone());
        let help = "Expectations without a series of their own, as there are too many";
        registry.register("expectations_unnamed", help, named.unnamed.clone());
    }

    /// Brings them to what checks last gave.
    pub(super) fn update(&self, last: &[LastCheck]) {
        for severity in [Severity::Warn, Severity::Error] {
            let unmet = last.iter().filter(|check| check.severity == severity && is_unmet(check));
            let gauge = self.unmet.get_or_create(&[("severity", severity.name())]);
            gauge.set(unmet.count() as u64);
        }
        if let Some(named) = &self.named {
            named.update(last);
        }
    }
}

impl Named {
    /// One that is gone has no series any more; those that do not hold come first.
    fn update(&self, last: &[LastCheck]) {
        self.unmet.clear();
        self.value.clear();
        let unmet = last.iter().filter(|check| is_unmet(check));
        let met = last.iter().filter(|check| !is_unmet(check));
        for check in unmet.chain(met).take(NAMED_MAX) {
            let labels = [
                ("schema", check.table.schema.clone()),
                ("table", check.table.name.clone()),
                ("expectation", check.name.clone()),
                ("severity", check.severity.name().to_owned()),
            ];
            self.unmet.get_or_create(&labels).set(u64::from(is_unmet(check)));
            if let Some(value) = check.value {
                self.value.get_or_create(&labels).set(value);
            }
        }
        self.unnamed.set(last.len().saturating_sub(NAMED_MAX) as u64);
    }
}

fn is_unmet(check: &LastCheck) -> bool {
    check.status != CheckStatus::Pass
}

#[cfg(test)]
mod tests {
    use catalog::ObjectName;
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn check(name: &str, status: CheckStatus, value: Option<f64>) -> LastCheck {
        let table = ObjectName::new("main", "orders");
        LastCheck { table, name: name.into(), severity: Severity::Error, status, value }
    }

    fn text(are_named: bool, last: &[LastCheck]) -> String {
        let metrics = ExpectationMetrics::new(are_named);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        // What was there before and is not any more leaves no series.
        metrics.update(&[check("gone", CheckStatus::Fail, Some(1.0))]);
        metrics.update(last);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn names_are_told_where_that_is_asked_for() {
        let last =
            [check("a", CheckStatus::Pass, Some(0.25)), check("b", CheckStatus::Error, None)];
        let labels = |name: &str| {
            format!("schema=\"main\",table=\"orders\",expectation=\"{name}\",severity=\"error\"")
        };
        let named = text(true, &last);
        for line in [
            format!("expectation_unmet{{{}}} 0\n", labels("a")),
            format!("expectation_unmet{{{}}} 1\n", labels("b")),
            format!("expectation_value{{{}}} 0.25\n", labels("a")),
            "expectations_unmet{severity=\"error\"} 1\n".to_owned(),
            "expectations_unnamed 0\n".to_owned(),
        ] {
            assert!(named.contains(&line), "no {line} in\n{named}");
        }
        assert!(!named.contains("gone") && !named.contains(&format!("value{{{}", labels("b"))));
        let plain = text(false, &last);
        assert!(plain.contains("expectations_unmet{severity=\"error\"} 1\n"), "{plain}");
        assert!(!plain.contains("orders"), "{plain}");
    }

    #[test]
    fn those_that_do_not_hold_have_a_series_before_others() {
        let name = |at: usize| format!("e{at:04}");
        let mut last: Vec<LastCheck> =
            (0..NAMED_MAX).map(|at| check(&name(at), CheckStatus::Pass, None)).collect();
        last.push(check("late", CheckStatus::Fail, None));
        let named = text(true, &last);
        assert!(named.contains("expectation=\"late\"") && named.contains("unnamed 1\n"));
        assert_eq!(named.matches("expectation_unmet{").count(), NAMED_MAX);
    }
}
