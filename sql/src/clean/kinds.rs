//! Kinds of columns: how they are told by names and values, and what SQL corrects them.
//!
//! The expressions are over a value of which the white space is corrected already, so that blank is
//! the empty text. Blank dates, addresses of e-mail, numbers and countries are none: NULL.

use crate::policy::propose::tag_of_name;

/// What a column of texts holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Date,
    Email,
    Phone,
    Country,
    Address,
    /// A name of a person or place, whose case is of its own.
    Name,
    /// Any text.
    Text,
}

/// What the expressions are over, as SQL.
#[derive(Debug)]
pub(super) struct Parts {
    /// The value with its white space corrected.
    pub(super) spaced: String,
    /// The order of the column's dates.
    pub(super) order: String,
    /// The country of telephone numbers.
    pub(super) region: String,
}

/// Names that nobody has, of e-mail addresses.
const PLACEHOLDER: &str =
    "^(test|none|no|na|null|nobody|unknown|foo)@(test|none|no|na|null|nobody|unknown|foo)[.]";
const EXTENSION: &str = "(x|ext|extension|app)[. ]*[0-9]+$";
const DATED: &str =
    "^([0-9]{1,2}[./-][0-9]{1,2}[./-]([0-9]{2}|[0-9]{4})|[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2})$";
const MIDNIGHT: &str = "[ t]0?0:00(:00([.,]0+)?)?( ?(z|utc|[+]00:?00))?$";

impl Kind {
    /// Each kind by the option that names its columns.
    pub(super) const OPTIONS: [(&'static str, Self); 7] = [
        ("dates", Self::Date),
        ("emails", Self::Email),
        ("phones", Self::Phone),
        ("countries", Self::Country),
        ("addresses", Self::Address),
        ("names", Self::Name),
        ("texts", Self::Text),
    ];

    /// The kind's word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Country => "country",
            Self::Address => "address",
            Self::Name => "name",
            Self::Text => "text",
        }
    }

    /// The kind that a column's name tells of.
    pub(super) fn of_name(column: &str) -> Option<Self> {
        match tag_of_name(column) {
            Some("pii.email") => return Some(Self::Email),
            Some("pii.phone") => return Some(Self::Phone),
            Some("pii.name") => return Some(Self::Name),
            Some("pii.birth_date") => return Some(Self::Date),
            _ => {}
        }
        let name = column.to_lowercase().replace(['-', ' ', '.'], "_");
        let words: Vec<&str> = name.split('_').collect();
        let has = |known: &[&str]| words.iter().any(|word| known.contains(word));
        if has(&["date", "born"]) {
            return Some(Self::Date);
        }
        if has(&["country", "nationality"]) {
            return Some(Self::Country);
        }
        if has(&["address", "street"]) && !has(&["ip", "mac"]) {
            return Some(Self::Address);
        }
        has(&["city", "town"]).then_some(Self::Name)
    }

    /// A condition that values of a column of this kind, by its name, mostly meet.
    pub(super) fn plausible(self, value: &str) -> String {
        match self {
            Self::Email => format!("regexp_like({value}, '@')"),
            Self::Phone => format!("regexp_like({value}, '([0-9][^0-9]*){{5}}')"),
            Self::Date | Self::Address => format!("regexp_like({value}, '[0-9]')"),
            Self::Country => format!("normalize_country({value}) IS NOT NULL"),
            Self::Name | Self::Text => format!("NOT regexp_like({value}, '[0-9]')"),
        }
    }

    /// The kinds that are told by values alone, and the condition that most of them meet.
    pub(super) fn by_values(value: &str) -> [(Self, String); 3] {
        [
            (
                Self::Email,
                format!(
                    "regexp_like({value}, '^[[:space:]]*[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+[[:space:]]*$')"
                ),
            ),
            (
                Self::Phone,
                format!(
                    "regexp_like({value}, '^[[:space:]]*[+][0-9][0-9 ()/.-]{{6,20}}[[:space:]]*$')"
                ),
            ),
            // Digits alone may be any number, and a time of day is no part of a date.
            (
                Self::Date,
                format!(
                    "({date}) IS NOT NULL AND regexp_like({value}, '[0-9]{{4}}|[[:alpha:]]{{3}}') \
                     AND NOT regexp_like({value}, '^[[:space:]]*[0-9]+[[:space:]]*$|:')",
                    date = any_date(value)
                ),
            ),
        ]
    }

    /// The corrected value; NULL of a doubtful one.
    pub(super) fn after(self, parts: &Parts) -> String {
        let Parts { spaced, order, region } = parts;
        let (blank, sure) = match self {
            Self::Text => return spaced.clone(),
            Self::Date => (
                "NULL",
                format!(
                    "WHEN {} THEN NULL ELSE CAST(parse_date_any({spaced}, {order}) AS VARCHAR)",
                    has_time(spaced)
                ),
            ),
            Self::Email => (
                "NULL",
                format!("WHEN {} THEN NULL ELSE normalize_email({spaced})", is_nobodys(spaced)),
            ),
            Self::Phone => (
                "NULL",
                format!(
                    "WHEN {} OR {} THEN NULL ELSE coalesce(normalize_phone({spaced}), \
                     normalize_phone({spaced}, {region}))",
                    has_extension(spaced),
                    is_dated(spaced)
                ),
            ),
            Self::Country => ("NULL", format!("ELSE normalize_country({spaced})")),
            // The one spelling of an address has no accents: one that has them keeps its own.
            Self::Address => (
                "''",
                format!(
                    "WHEN NOT regexp_like({spaced}, '[0-9]') THEN NULL \
                     WHEN regexp_like({spaced}, '[^ -~]') THEN {spaced} \
                     ELSE initcap(normalize_address({spaced}))"
                ),
            ),
            Self::Name => (
                "''",
                format!(
                    "WHEN {} OR {} THEN NULL WHEN {spaced} = upper({spaced}) OR {spaced} = \
                     lower({spaced}) THEN title_case({spaced}) ELSE {spaced}",
                    is_abbreviation(spaced),
                    is_slip(spaced)
                ),
            ),
        };
        format!("CASE WHEN {spaced} = '' THEN {blank} {sure} END")
    }

    /// Why a value is doubtful.
    pub(super) fn doubt(self, parts: &Parts) -> String {
        let Parts { spaced, region, .. } = parts;
        match self {
            Self::Text => "NULL".into(),
            Self::Date => format!(
                "CASE WHEN ({date}) IS NULL THEN 'is no date' \
                 WHEN {time} THEN 'has a time of day, which a date would lose' \
                 ELSE 'may be several dates: the column does not tell its order' END",
                date = any_date(spaced),
                time = has_time(spaced)
            ),
            Self::Email => format!(
                "CASE WHEN {} THEN 'is nobody''s address' ELSE 'is no e-mail address' END",
                is_nobodys(spaced)
            ),
            Self::Phone => format!(
                "CASE WHEN {extension} THEN 'has an extension, which E.164 would lose' \
                 WHEN {dated} THEN 'is written as a date is' \
                 WHEN {spaced} LIKE '+%' THEN 'is no number of its country''s plan' \
                 WHEN {region} IS NULL THEN 'has no country code, and its country is not known' \
                 ELSE 'is no number of ' || {region} END",
                extension = has_extension(spaced),
                dated = is_dated(spaced)
            ),
            Self::Country => "'is no country, or several'".into(),
            Self::Address => "'has no house number'".into(),
            Self::Name => format!(
                "CASE WHEN {} THEN 'may be an abbreviation' \
                 ELSE 'may be a slip of the capitals key' END",
                is_abbreviation(spaced)
            ),
        }
    }

    /// Why a value was changed into `after`.
    pub(super) fn reason(self, parts: &Parts, after: &str) -> String {
        let Parts { spaced, order, region } = parts;
        let other = match self {
            Self::Text => return "'white space'".into(),
            Self::Date => format!(
                "WHEN parse_date_any({spaced}) IS NULL THEN 'ISO 8601, read as ' || upper({order}) \
                 ELSE 'ISO 8601'"
            ),
            Self::Email => format!(
                "WHEN lower({spaced}) = {after} THEN 'lower case' \
                 ELSE 'without what its provider leaves out'"
            ),
            Self::Phone => format!(
                "WHEN normalize_phone({spaced}) IS NULL THEN 'E.164, as dialled in ' || {region} \
                 ELSE 'E.164'"
            ),
            Self::Country => "ELSE 'ISO 3166-1 code'".into(),
            Self::Address => {
                format!("WHEN lower({spaced}) = lower({after}) THEN 'case' ELSE 'one spelling'")
            }
            Self::Name => "ELSE 'case'".into(),
        };
        format!(
            "CASE WHEN {spaced} = '' THEN 'blank' WHEN {spaced} = {after} THEN 'white space' \
             {other} END"
        )
    }
}

/// The date by any order.
fn any_date(value: &str) -> String {
    let by = ["DMY", "MDY", "YMD"].map(|order| format!("parse_date_any({value}, '{order}')"));
    format!("coalesce({})", by.join(", "))
}

/// Whether there is a time of day, other than midnight.
fn has_time(spaced: &str) -> String {
    format!("(regexp_like({spaced}, ':') AND NOT regexp_like(lower({spaced}), '{MIDNIGHT}'))")
}

fn is_nobodys(spaced: &str) -> String {
    format!("regexp_like(lower({spaced}), '{PLACEHOLDER}')")
}

fn has_extension(spaced: &str) -> String {
    format!("regexp_like(lower({spaced}), '{EXTENSION}')")
}

/// Figures that stand as those of a date do, and may be one in the wrong column.
fn is_dated(spaced: &str) -> String {
    format!("regexp_like({spaced}, '{DATED}')")
}

/// A few capitals, which may be meant; an accent is a part of its letter, wherever it stands.
fn is_abbreviation(spaced: &str) -> String {
    format!(
        "(character_length(title_case({spaced})) <= 3 AND {spaced} = upper({spaced}) \
         AND {spaced} <> lower({spaced}))"
    )
}

/// A small letter first, and capitals behind it.
fn is_slip(spaced: &str) -> String {
    format!("({spaced} <> lower({spaced}) AND left({spaced}, 1) <> upper(left({spaced}, 1)))")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_kinds() {
        for (name, kind) in [
            ("email_address", Some(Kind::Email)),
            ("Mobile", Some(Kind::Phone)),
            ("date of birth", Some(Kind::Date)),
            ("ship_country", Some(Kind::Country)),
            ("street", Some(Kind::Address)),
            ("ip_address", None),
            ("last_name", Some(Kind::Name)),
            ("city", Some(Kind::Name)),
            ("updated_by", None),
            ("candidates", None),
        ] {
            assert_eq!(Kind::of_name(name), kind, "{name}");
        }
    }
}
