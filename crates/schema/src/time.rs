//! `metav1.Time` and `metav1.MicroTime`: reading as Go's `time.Parse` reads, with its errors, and printing.

use crate::error::{TimeError, TimeLayout, TimePart, TimeProblem};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Reads `text` as `metav1.Time` does (`apis/meta/v1/time.go`) and gives it as it is printed; `None` is the
/// zero time, which is printed as `null`.
///
/// # Errors
/// `text` is no time as Go reads it.
pub fn canonical_time(text: &str) -> Result<Option<String>, TimeError> {
    let time = parse(text, TimeLayout::Rfc3339)?;
    Ok((!is_zero(time)).then(|| fleetpass_apimachinery::time::rfc3339(truncate(time))))
}

/// Reads `text` as `metav1.MicroTime` does (`apis/meta/v1/micro_time.go`) and gives it as it is printed;
/// `None` is the zero time.
///
/// # Errors
/// `text` is no time of that form: six decimals, no more and no less.
pub fn canonical_micro_time(text: &str) -> Result<Option<String>, TimeError> {
    let time = parse(text, TimeLayout::Rfc3339Micro)?;
    Ok((!is_zero(time)).then(|| fleetpass_apimachinery::time::rfc3339_micro(time)))
}

/// The first moment of year 1, the zero value of Go's `time.Time`.
fn is_zero(time: Timestamp) -> bool {
    time.as_second() == -62_135_596_800 && time.subsec_nanosecond() == 0
}

/// Cuts to whole seconds towards the past, as formatting without fraction does.
fn truncate(time: Timestamp) -> Timestamp {
    if time.subsec_nanosecond() < 0 {
        Timestamp::from_second(time.as_second() - 1).unwrap_or(time)
    } else {
        time
    }
}

/// Reads a time from front to back; the first thing that does not fit is the error, as in Go's `time.Parse`.
struct Parser<'a> {
    whole: &'a str,
    layout: TimeLayout,
    /// What has not been read yet.
    rest: &'a str,
}

fn parse(text: &str, layout: TimeLayout) -> Result<Timestamp, TimeError> {
    use TimePart::{Day, Hour, Minute, Month, Offset as Zone, Second, Year};
    let mut parser = Parser { whole: text, layout, rest: text };
    let year = parser.digits(Year, 4, 4)?;
    parser.separator('-')?;
    let month = parser.ranged(Month, 2, 1, 12)?;
    parser.separator('-')?;
    // How many days the month has is checked below, after all else, as Go does.
    let day = parser.digits(Day, 2, 2)?;
    parser.separator('T')?;
    let hour = parser.ranged(Hour, 1, 0, 23)?;
    parser.separator(':')?;
    let minute = parser.ranged(Minute, 1, 0, 59)?;
    parser.separator(':')?;
    let second = parser.ranged(Second, 1, 0, 59)?;
    let nanos = match layout {
        TimeLayout::Rfc3339 => parser.optional_fraction(),
        TimeLayout::Rfc3339Micro => parser.micros()?,
    };
    let offset = parser.zone()?;
    if !parser.rest.is_empty() {
        return Err(parser.error(TimeProblem::Trailing(parser.rest.into())));
    }
    let date =
        DateTime::new(year as i16, month as i8, day as i8, hour as i8, minute as i8, second as i8, nanos)
            .map_err(|_| parser.out_of_range(Day))?;
    let offset = Offset::from_seconds(offset).map_err(|_| parser.out_of_range(Zone))?;
    offset.to_timestamp(date).map_err(|_| parser.out_of_range(Year))
}

impl Parser<'_> {
    fn error(&self, problem: TimeProblem) -> TimeError {
        TimeError { text: self.whole.into(), layout: self.layout, problem }
    }

    fn expected(&self, expected: TimePart) -> TimeError {
        self.error(TimeProblem::Unexpected { expected, rest: self.rest.into() })
    }

    fn out_of_range(&self, part: TimePart) -> TimeError {
        self.error(TimeProblem::OutOfRange(part))
    }

    /// Between `least` and `most` digits.
    fn digits(&mut self, part: TimePart, least: usize, most: usize) -> Result<i32, TimeError> {
        let count = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if count < least {
            return Err(self.expected(part));
        }
        let (digits, rest) = self.rest.split_at(count);
        let value = digits.parse().map_err(|_| self.expected(part))?;
        self.rest = rest;
        Ok(value)
    }

    /// Between `least` and two digits, whose value is between `low` and `high`.
    fn ranged(&mut self, part: TimePart, least: usize, low: i32, high: i32) -> Result<i32, TimeError> {
        let value = self.digits(part, least, 2)?;
        if (low..=high).contains(&value) { Ok(value) } else { Err(self.out_of_range(part)) }
    }

    fn separator(&mut self, separator: char) -> Result<(), TimeError> {
        let rest = self.rest.strip_prefix(separator);
        self.rest = rest.ok_or_else(|| self.expected(TimePart::Separator(separator)))?;
        Ok(())
    }

    /// A fraction after the seconds is read even where the layout has none.
    fn optional_fraction(&mut self) -> i32 {
        let Some(digits) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return 0;
        }
        let (digits, rest) = digits.split_at(count);
        self.rest = rest;
        let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
        nine.parse().unwrap_or(0)
    }

    /// Exactly six decimals; Go reads them as a number, which may have a sign.
    fn micros(&mut self) -> Result<i32, TimeError> {
        let bytes = self.rest.as_bytes();
        let digits = |b: &[u8]| b.iter().all(u8::is_ascii_digit);
        let good = bytes.len() >= 7
            && matches!(bytes[0], b'.' | b',')
            && digits(&bytes[2..7])
            && (bytes[1].is_ascii_digit() || matches!(bytes[1], b'-' | b'+'));
        if !good {
            return Err(self.expected(TimePart::Fraction));
        }
        let micros: i32 = self.rest[1..7].parse().map_err(|_| self.expected(TimePart::Fraction))?;
        if micros < 0 {
            return Err(self.out_of_range(TimePart::Fraction));
        }
        self.rest = &self.rest[7..];
        // With a sign there is one digit less, but the scale is that of six.
        Ok(micros * 1000)
    }

    /// `Z` or an offset, in seconds.
    fn zone(&mut self) -> Result<i32, TimeError> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        if bytes.len() < 6 || !matches!(bytes[0], b'+' | b'-') || bytes[3] != b':' {
            return Err(self.expected(TimePart::Offset));
        }
        let two = |i: usize| {
            let digits = bytes[i].is_ascii_digit() && bytes[i + 1].is_ascii_digit();
            digits.then(|| i32::from(bytes[i] - b'0') * 10 + i32::from(bytes[i + 1] - b'0'))
        };
        let Some(hours) = two(1) else { return Err(self.expected(TimePart::Offset)) };
        if hours > 24 {
            return Err(self.out_of_range(TimePart::OffsetHour));
        }
        let Some(minutes) = two(4) else { return Err(self.expected(TimePart::Offset)) };
        if minutes > 60 {
            return Err(self.out_of_range(TimePart::OffsetMinute));
        }
        let sign = if bytes[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go;

    fn words(error: &TimeError) -> String {
        go::Words(error).to_string()
    }

    #[test]
    fn times_are_printed_in_utc() {
        for (text, expected) in [
            ("2026-01-02T03:04:05Z", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02T05:04:05+02:00", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02T03:04:05.999Z", Some("2026-01-02T03:04:05Z")),
            ("1969-12-31T23:59:59.5Z", Some("1969-12-31T23:59:59Z")),
            ("0001-01-01T00:00:00Z", None),
        ] {
            assert_eq!(canonical_time(text).unwrap().as_deref(), expected, "{text}");
        }
        assert_eq!(
            canonical_micro_time("2026-01-02T03:04:05.123456Z").unwrap().as_deref(),
            Some("2026-01-02T03:04:05.123456Z")
        );
    }

    #[test]
    fn errors_are_those_of_go() {
        let as_time = "as \"2006-01-02T15:04:05Z07:00\"";
        for (text, expected) in [
            (
                "yesterday",
                format!("parsing time \"yesterday\" {as_time}: cannot parse \"yesterday\" as \"2006\""),
            ),
            ("", format!("parsing time \"\" {as_time}: cannot parse \"\" as \"2006\"")),
            ("2026-13-02T03:04:05Z", "parsing time \"2026-13-02T03:04:05Z\": month out of range".into()),
            ("2026-02-30T03:04:05Z", "parsing time \"2026-02-30T03:04:05Z\": day out of range".into()),
            ("2026-01-02", format!("parsing time \"2026-01-02\" {as_time}: cannot parse \"\" as \"T\"")),
            (
                "2026-01-02T03:04:05",
                format!("parsing time \"2026-01-02T03:04:05\" {as_time}: cannot parse \"\" as \"Z07:00\""),
            ),
            ("2026-01-02T03:04:05Zx", "parsing time \"2026-01-02T03:04:05Zx\": extra text: \"x\"".into()),
            ("é", format!("parsing time \"\\xc3\\xa9\" {as_time}: cannot parse \"\\xc3\\xa9\" as \"2006\"")),
        ] {
            assert_eq!(words(&canonical_time(text).unwrap_err()), expected);
        }
        assert_eq!(
            words(&canonical_micro_time("2026-01-02T03:04:05.123Z").unwrap_err()),
            "parsing time \"2026-01-02T03:04:05.123Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \".123Z\" as \".000000\""
        );
    }
}
