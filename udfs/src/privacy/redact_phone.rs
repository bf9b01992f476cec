//! Phone numbers in free text: groups of digits that nothing else explains.
//!
//! Taken for a phone number: 7 to 15 digits after `+` or `00`, with parentheses, or in two groups
//! or more; a bare run of 10 to 15 digits, or of 8 and more that begins with 0. A group of one
//! digit is part of a number after `+` or `00` alone. Four groups of four digits are taken too, a
//! card whose sum does not hold. Not taken: dates, spans of years, amounts, and digits that are
//! part of a longer word or code.

use super::redact_scan::{Kind, Span, step};

/// The fewest and the most digits of a phone number (E.164 allows fifteen).
const DIGITS_MIN: usize = 7;
const DIGITS_MAX: usize = 15;

/// Adds the phone numbers that lie between `spans`, keeping their order.
pub(super) fn find_between(bytes: &[u8], spans: &mut Vec<Span>) {
    let taken = std::mem::take(spans);
    let mut from = 0;
    for span in taken {
        find(bytes, from, span.start, spans);
        from = span.end;
        spans.push(span);
    }
    find(bytes, from, bytes.len(), spans);
}

fn find(bytes: &[u8], from: usize, end: usize, spans: &mut Vec<Span>) {
    let mut position = from;
    while position < end {
        step();
        if !may_begin(bytes, position) {
            position += 1;
            continue;
        }
        let number = Candidate::read(bytes, position, end);
        match number.end() {
            Ok(number_end) => {
                spans.push(Span { start: position, end: number_end, kind: Kind::Phone });
                position = number_end;
            }
            Err(skip_to) => position = skip_to.max(position + 1),
        }
    }
}

fn may_begin(bytes: &[u8], position: usize) -> bool {
    if !matches!(bytes.get(position), Some(b'+' | b'(' | b'0'..=b'9')) {
        return false;
    }
    let at = |back: usize| position.checked_sub(back).and_then(|at| bytes.get(at)).copied();
    let word = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    match at(1) {
        Some(b'-' | b'.' | b'/') => !word(at(2)),
        // A plus or an opening bracket in front was tried with what follows it.
        Some(b'+' | b'(') => true,
        previous => !word(previous),
    }
}

/// A group of digits and where it lies.
#[derive(Debug, Clone, Copy)]
struct Group {
    start: usize,
    end: usize,
}

impl Group {
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Digits in groups, from a possible beginning on.
struct Candidate<'a> {
    bytes: &'a [u8],
    start: usize,
    groups: Vec<Group>,
}

impl<'a> Candidate<'a> {
    fn read(bytes: &'a [u8], start: usize, limit: usize) -> Self {
        let mut groups: Vec<Group> = vec![];
        let (mut position, mut digits) = (start, 0);
        while digits <= DIGITS_MAX {
            // At most two characters between groups: "(030) 123".
            let separators = bytes.get(position..limit).map_or(0, |rest| {
                rest.iter().take_while(|b| b" -./()+".contains(b)).take(3).count()
            });
            let first = groups.is_empty();
            let allowed = if first { separators <= 2 } else { (1..=2).contains(&separators) };
            if !allowed {
                break;
            }
            let begin = position + separators;
            let run = bytes.get(begin..limit).map_or(0, |rest| {
                rest.iter().take(DIGITS_MAX + 1).take_while(|b| b.is_ascii_digit()).count()
            });
            // A plus belongs in front only: "1+2" are two numbers.
            let plus = bytes.get(position..begin).is_some_and(|between| between.contains(&b'+'));
            if run == 0 || (plus && !first) {
                break;
            }
            position = begin + run;
            digits += run;
            groups.push(Group { start: begin, end: position });
        }
        Self { bytes, start, groups }
    }

    /// Where the number ends, or where to look on.
    fn end(&self) -> Result<usize, usize> {
        let Some(first) = self.groups.first() else { return Err(self.start + 1) };
        if self.is_date() {
            return Err(self.groups.get(2).map_or(first.end, |group| group.end));
        }
        (1..=self.groups.len())
            .rev()
            .filter_map(|count| self.groups.get(..count))
            .find(|groups| self.is_number(groups))
            .and_then(|groups| groups.last())
            .map(|group| group.end)
            .ok_or(first.end)
    }

    fn is_number(&self, groups: &[Group]) -> bool {
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return false };
        let digits: usize = groups.iter().map(Group::len).sum();
        let follows = self.bytes.get(last.end);
        let is_long_enough =
            (DIGITS_MIN..=DIGITS_MAX).contains(&digits) || self.is_like_card(groups);
        let text = self.bytes.get(self.start..last.end).unwrap_or_default();
        let is_abroad = text.contains(&b'+') || text.starts_with(b"00");
        if !is_long_enough
            || follows.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
            || (!is_abroad && groups.iter().skip(1).any(|group| group.len() == 1))
        {
            return false;
        }
        if text.contains(&b'+') || text.contains(&b'(') {
            return true;
        }
        let zero = self.bytes.get(first.start) == Some(&b'0');
        if groups.len() == 1 {
            return digits >= 10 || (zero && digits >= 8);
        }
        !self.is_amount(groups, zero) && !self.is_years(groups)
    }

    fn separator(&self, left: &Group, right: &Group) -> &[u8] {
        self.bytes.get(left.end..right.start).unwrap_or_default()
    }

    /// Year, month and day in any order, with one kind of separator.
    fn is_date(&self) -> bool {
        let [a, b, c, ..] = self.groups.as_slice() else { return false };
        let separator = self.separator(a, b);
        let short = |group: &Group| group.len() <= 2;
        let ordered =
            (a.len() == 4 && short(b) && short(c)) || (short(a) && short(b) && c.len() == 4);
        ordered && matches!(separator, b"-" | b"." | b"/") && separator == self.separator(b, c)
    }

    /// Four groups of four digits, as cards are written.
    fn is_like_card(&self, groups: &[Group]) -> bool {
        let [a, b, c, d] = groups else { return false };
        let separator = self.separator(a, b);
        groups.iter().all(|group| group.len() == 4)
            && matches!(separator, b" " | b"-")
            && separator == self.separator(b, c)
            && separator == self.separator(c, d)
    }

    /// A decimal number or thousands with points: `1234567.89`, `1.234.567`.
    fn is_amount(&self, groups: &[Group], zero: bool) -> bool {
        let points = groups
            .iter()
            .zip(groups.iter().skip(1))
            .all(|(left, right)| self.separator(left, right) == b".");
        let thousands = groups.iter().skip(1).all(|group| group.len() == 3);
        points && !zero && (groups.len() == 2 || thousands)
    }

    /// A span of years: `1939-1945`.
    fn is_years(&self, groups: &[Group]) -> bool {
        groups.len() == 2
            && groups.iter().all(|group| {
                let century = self.bytes.get(group.start..group.start + 2);
                group.len() == 4 && matches!(century, Some(b"18" | b"19" | b"20"))
            })
    }
}
