//! Values of the configuration: how a TOML value or an environment variable becomes a typed one.
//!
//! Sizes are bytes, written `512 MiB`, `2 GB` or a bare number; times are `250 ms`, `30 s`, `5 m`,
//! `1 h` or a bare number of seconds. A relative path in a file is relative to that file's folder;
//! in the environment or on the command line, to the working directory.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

/// A value as it was written.
#[derive(Debug, Clone, Copy)]
pub enum Setting<'a> {
    /// In a file; `base` is the file's folder.
    Toml {
        /// The value.
        value: &'a DeValue<'a>,
        /// What relative paths are relative to.
        base: &'a Path,
    },
    /// In an environment variable.
    Text(&'a str),
}

/// A type that a setting can have.
pub trait FromSetting: Sized {
    /// What the user may write, for errors and for the documentation.
    const EXPECTS: &'static str;

    /// Reads the value; the error says what is wrong with it.
    fn from_setting(setting: &Setting<'_>) -> Result<Self, String>;

    /// The value as the user would write it, for the documentation; empty when there is none.
    fn shown(&self) -> String;
}

impl<'a> Setting<'a> {
    fn text(&self, expects: &str) -> Result<&'a str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml { value, .. } => {
                value.as_str().ok_or_else(|| mismatch(expects, value.type_str()))
            }
        }
    }

    /// The number's digits, from a number or from text.
    fn digits(&self, expects: &str) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.trim().to_owned()),
            Self::Toml { value, .. } => match value {
                DeValue::Integer(integer) if integer.radix() == 10 => {
                    Ok(integer.as_str().to_owned())
                }
                DeValue::String(text) => Ok(text.trim().to_owned()),
                other => Err(mismatch(expects, other.type_str())),
            },
        }
    }

    fn base(&self) -> Option<&'a Path> {
        match self {
            Self::Text(_) => None,
            Self::Toml { base, .. } => Some(base),
        }
    }
}

fn mismatch(expects: &str, found: &str) -> String {
    format!("expected {expects}, found a value of type {found}")
}

impl FromSetting for bool {
    const EXPECTS: &'static str = "true or false";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        match setting {
            Setting::Toml { value, .. } => {
                value.as_bool().ok_or_else(|| mismatch(Self::EXPECTS, value.type_str()))
            }
            Setting::Text(text) => match text.trim().to_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(format!("expected true or false, found {text:?}")),
            },
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl FromSetting for String {
    const EXPECTS: &'static str = "text";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let text = setting.text(Self::EXPECTS)?;
        if text.is_empty() { Err("the text is empty".into()) } else { Ok(text.to_owned()) }
    }

    fn shown(&self) -> String {
        if self.is_empty() { String::new() } else { format!("\"{self}\"") }
    }
}

impl FromSetting for usize {
    const EXPECTS: &'static str = "a whole number";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let digits = setting.digits(Self::EXPECTS)?.replace('_', "");
        digits.parse().map_err(|_| format!("expected {}, found {digits}", Self::EXPECTS))
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl FromSetting for SocketAddr {
    const EXPECTS: &'static str = "an address such as \"127.0.0.1:50051\"";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let text = setting.text(Self::EXPECTS)?;
        text.trim().parse().map_err(|_| format!("expected {}, found {text:?}", Self::EXPECTS))
    }

    fn shown(&self) -> String {
        format!("\"{self}\"")
    }
}

/// Where something listens, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// At an address; port 0 takes a free one.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl Listen {
    /// The address, unless it is off.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "off" => Ok(Self::Off),
            text => match text.parse() {
                Ok(address) => Ok(Self::At(address)),
                Err(_) => Err(format!("expected {}, found {text:?}", Self::EXPECTS)),
            },
        }
    }
}

impl FromSetting for Listen {
    const EXPECTS: &'static str = "an address such as \"127.0.0.1:8080\", or \"off\"";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        setting.text(Self::EXPECTS)?.parse()
    }

    fn shown(&self) -> String {
        match self {
            Self::At(address) => address.shown(),
            Self::Off => "\"off\"".into(),
        }
    }
}

impl FromSetting for PathBuf {
    const EXPECTS: &'static str = "a path";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let text = setting.text(Self::EXPECTS)?;
        if text.is_empty() {
            return Err("the path is empty".into());
        }
        Ok(setting.base().map_or_else(|| PathBuf::from(text), |base| base.join(text)))
    }

    fn shown(&self) -> String {
        format!("\"{}\"", self.display())
    }
}

/// A URL, or a local path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location(pub String);

impl FromSetting for Location {
    const EXPECTS: &'static str = "a URL such as \"s3://bucket/path\", or a local path";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let text = setting.text(Self::EXPECTS)?;
        if text.is_empty() {
            return Err("the location is empty".into());
        }
        match setting.base() {
            Some(base) if !text.contains("://") => {
                Ok(Self(base.join(text).to_string_lossy().into_owned()))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }

    fn shown(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("\"{}\"", self.0) }
    }
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hidden(…)")
    }
}

impl FromSetting for Hidden {
    const EXPECTS: &'static str = "text";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        setting.text(Self::EXPECTS).map(|text| Self(text.to_owned()))
    }

    fn shown(&self) -> String {
        String::new()
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

impl FromSetting for ByteSize {
    const EXPECTS: &'static str = "a size such as \"512 MiB\"";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let text = setting.digits(Self::EXPECTS)?;
        let bytes = with_unit(&text, &BYTE_UNITS);
        bytes.map(Self).ok_or_else(|| format!("expected {}, found {text:?}", Self::EXPECTS))
    }

    fn shown(&self) -> String {
        let unit = BYTE_UNITS
            .iter()
            .skip(6)
            .rev()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match unit {
            Some((name, scale)) => {
                let name = format!("{}iB", name.chars().next().unwrap_or('k').to_uppercase());
                format!("\"{} {name}\"", self.0 / scale)
            }
            None => self.0.to_string(),
        }
    }
}

const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("", 1_000), ("m", 60_000), ("h", 3_600_000)];

impl FromSetting for Duration {
    const EXPECTS: &'static str = "a time such as \"30 s\"";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let text = setting.digits(Self::EXPECTS)?;
        let milliseconds = with_unit(&text, &TIME_UNITS);
        milliseconds
            .map(Self::from_millis)
            .ok_or_else(|| format!("expected {}, found {text:?}", Self::EXPECTS))
    }

    fn shown(&self) -> String {
        let milliseconds = self.as_millis();
        if milliseconds.is_multiple_of(1_000) {
            format!("\"{} s\"", milliseconds / 1_000)
        } else {
            format!("\"{milliseconds} ms\"")
        }
    }
}

/// Reads `12 MiB` as 12 times the unit's scale; `None` when it is no such thing or overflows.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.replace('_', "");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = unit.trim().to_lowercase();
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}

impl<T: FromSetting> FromSetting for Option<T> {
    const EXPECTS: &'static str = T::EXPECTS;

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        T::from_setting(setting).map(Some)
    }

    fn shown(&self) -> String {
        self.as_ref().map(T::shown).unwrap_or_default()
    }
}

impl FromSetting for Vec<String> {
    const EXPECTS: &'static str = "a list of text such as [\"day\"]";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        match setting {
            Setting::Text(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
            Setting::Toml { value, .. } => {
                let wrong = || mismatch(Self::EXPECTS, value.type_str());
                let items = value.as_array().ok_or_else(wrong)?;
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<_>>().ok_or_else(wrong)
            }
        }
    }

    fn shown(&self) -> String {
        if self.is_empty() { String::new() } else { format!("{self:?}") }
    }
}

impl FromSetting for Vec<PathBuf> {
    const EXPECTS: &'static str = "a list of paths such as [\"old.key\"]";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let texts = Vec::<String>::from_setting(setting)?;
        if texts.iter().any(String::is_empty) {
            return Err("a path is empty".into());
        }
        let base = setting.base().unwrap_or(Path::new(""));
        Ok(texts.iter().map(|text| base.join(text)).collect())
    }

    fn shown(&self) -> String {
        if self.is_empty() { String::new() } else { format!("{self:?}") }
    }
}

impl FromSetting for BTreeMap<String, String> {
    const EXPECTS: &'static str = "a table of text such as { delimiter = \";\" }";

    fn from_setting(setting: &Setting<'_>) -> Result<Self, String> {
        let Setting::Toml { value, .. } = setting else {
            return Err("options can only be given in a file".into());
        };
        let table = value.as_table().ok_or_else(|| mismatch(Self::EXPECTS, value.type_str()))?;
        let mut map = Self::new();
        for (key, value) in table {
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Boolean(flag) => flag.to_string(),
                DeValue::Integer(integer) => integer.as_str().to_owned(),
                other => return Err(mismatch(Self::EXPECTS, other.type_str())),
            };
            map.insert(key.get_ref().to_string(), text);
        }
        Ok(map)
    }

    fn shown(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    fn text<T: FromSetting>(text: &str) -> Result<T, String> {
        T::from_setting(&Setting::Text(text))
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (written, bytes) in
            [("512 MiB", 512 << 20), ("2GB", 2_000_000_000), ("4_096", 4096), ("1 tib", 1 << 40)]
        {
            assert_eq!(text::<ByteSize>(written), Ok(ByteSize(bytes)), "{written}");
        }
        for wrong in ["", "MiB", "12 parsecs", "-5", "99999999999 TiB"] {
            assert!(text::<ByteSize>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ByteSize(1 << 30).shown(), "\"1 GiB\"");
        assert_eq!(ByteSize(1001).shown(), "1001");
    }

    #[test]
    fn times_have_units_and_default_to_seconds() {
        assert_eq!(text::<Duration>("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(text::<Duration>("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(text::<Duration>("7"), Ok(Duration::from_secs(7)));
        assert!(text::<Duration>("soon").is_err());
        assert_eq!(Duration::from_millis(1500).shown(), "\"1500 ms\"");
    }

    #[test]
    fn a_listener_has_an_address_or_is_off() {
        assert_eq!(text::<Listen>("off"), Ok(Listen::Off));
        assert_eq!(
            text::<Listen>("[::1]:1").map(|listen| listen.shown()),
            Ok("\"[::1]:1\"".into())
        );
        assert!(text::<Listen>("8080").is_err());
    }

    #[test]
    fn a_path_in_a_file_is_relative_to_the_file() {
        let value = DeValue::String("data".into());
        let setting = Setting::Toml { value: &value, base: Path::new("/etc/attune") };
        assert_eq!(Location::from_setting(&setting), Ok(Location("/etc/attune/data".into())));
        let value = DeValue::String("s3://bucket/x".into());
        let setting = Setting::Toml { value: &value, base: Path::new("/etc/attune") };
        assert_eq!(Location::from_setting(&setting), Ok(Location("s3://bucket/x".into())));
    }

    #[test]
    fn each_path_of_a_list_is_relative_to_the_files_folder() {
        let (document, _) = DeTable::parse_recoverable("of = [\"a.key\", \"/b.key\"]");
        let (_, value) = document.get_ref().iter().next().unwrap();
        let value = value.get_ref();
        let setting = Setting::Toml { value, base: Path::new("/etc/attune") };
        let paths = Vec::<PathBuf>::from_setting(&setting).unwrap();
        assert_eq!(paths, [PathBuf::from("/etc/attune/a.key"), PathBuf::from("/b.key")]);
        assert!(Vec::<PathBuf>::from_setting(&Setting::Text("a,,b")).is_err());
    }

    #[test]
    fn a_hidden_text_is_not_shown() {
        assert_eq!(format!("{:?}", Hidden("hunter2".into())), "Hidden(…)");
        assert_eq!(Hidden("hunter2".into()).shown(), "");
    }
}
