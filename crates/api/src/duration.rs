//! Go's `time.Duration`, as `metav1.Duration` reads and prints it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// A signed span of time with nanosecond resolution: about 292 years either way.
///
/// Text in and out follows `time.ParseDuration` and `Duration.String` of Go 1.24 (`src/time/{format,time}.go`)
/// to the letter: `8640h0m0s`, `1.5h`, `300ms`, `-2h45m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GoDuration {
    nanos: i64,
}

/// Why a text is no duration; the wording is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not of the form `[-+]?(number unit)+`, or out of range.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that Go does not know.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as it was written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// How many nanoseconds a negative duration may have; a positive one has one less. Sums are taken without a sign first,
/// as in Go, so that the smallest duration can be read too.
const LIMIT: u64 = 1 << 63;
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

impl GoDuration {
    /// A span of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// A span of whole seconds; `None` when it is longer than about 292 years.
    pub const fn from_secs(secs: i64) -> Option<Self> {
        match secs.checked_mul(SECOND as i64) {
            Some(nanos) => Some(Self { nanos }),
            None => None,
        }
    }

    /// The span in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// The span in whole seconds, cut towards zero, as Go's `int64(d.Seconds())` does.
    pub const fn as_secs(self) -> i64 {
        self.nanos / SECOND as i64
    }
}

impl FromStr for GoDuration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let invalid = || ParseError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        // The only number that needs no unit.
        if rest == "0" {
            return Ok(Self { nanos: 0 });
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (value, after) = component(rest, text)?;
            total = total.checked_add(value).filter(|sum| *sum <= LIMIT).ok_or_else(invalid)?;
            rest = after;
        }
        match (negative, total) {
            (true, LIMIT) => Ok(Self { nanos: i64::MIN }),
            (true, _) => Ok(Self { nanos: -(total as i64) }),
            (false, _) => i64::try_from(total).map(|nanos| Self { nanos }).map_err(|_| invalid()),
        }
    }
}

/// Reads one `number unit` off the front of `rest`: its nanoseconds and what follows.
fn component<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), ParseError> {
    let invalid = || ParseError::Invalid(text.to_owned());
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut after) = rest.split_at(digits(rest));
    let mut fraction = "";
    let mut point = false;
    if let Some(tail) = after.strip_prefix('.') {
        point = true;
        (fraction, after) = tail.split_at(digits(tail));
    }
    // Digits on either side of the point are enough: "5.s" and ".5s" are durations, ".s" is none.
    if whole.is_empty() && (!point || fraction.is_empty()) {
        return Err(invalid());
    }
    // The unit is whatever stands before the next number, known or not: the error quotes it.
    let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, after) = after.split_at(unit_end);
    if unit.is_empty() {
        return Err(ParseError::MissingUnit(text.to_owned()));
    }
    let scale = match unit {
        "ns" => 1,
        // Two characters look the same: the micro sign and the Greek letter mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return Err(ParseError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let value = whole.checked_mul(scale).filter(|v| *v <= LIMIT).ok_or_else(invalid)?;
    let value = value + fraction_nanos(fraction, scale);
    if value > LIMIT {
        return Err(invalid());
    }
    Ok((value, after))
}

/// The part after the point in nanoseconds. Digits beyond what 63 bits hold are dropped and the product is
/// taken in floating point: both are Go's arithmetic, so the result is Go's to the nanosecond.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale = 1.0_f64;
    for digit in digits.bytes() {
        // Go checks for overflow in these two places too (`leadingFraction` in `time/format.go`).
        if value > (LIMIT - 1) / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > LIMIT {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.nanos.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        // Below a second in the largest unit that has a digit before the point; from there on hours, minutes and seconds,
        // the smaller ones also when they are zero: 8640h0m0s.
        match nanos {
            0..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", Decimal(nanos, 3)),
            1_000_000..SECOND => write!(f, "{}ms", Decimal(nanos, 6)),
            _ => {
                let seconds = nanos / SECOND;
                let below_a_minute = Decimal(nanos % (60 * SECOND), 9);
                match seconds {
                    0..60 => write!(f, "{below_a_minute}s"),
                    60..3600 => write!(f, "{}m{below_a_minute}s", seconds / 60),
                    _ => write!(f, "{}h{}m{below_a_minute}s", seconds / 3600, seconds / 60 % 60),
                }
            }
        }
    }
}

/// A number with this many decimals, trailing zeros left out.
struct Decimal(u64, u32);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u64.pow(self.1);
        write!(f, "{}", self.0 / unit)?;
        let fraction = self.0 % unit;
        if fraction != 0 {
            let digits = format!("{fraction:0width$}", width = self.1 as usize);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        let hour = 3_600_000_000_000_i64;
        let table = [
            ("0", 0),
            ("-0", 0),
            ("+5s", 5_000_000_000),
            ("8640h0m0s", 8640 * hour),
            ("1.5h", hour + hour / 2),
            ("1h15m30.918273645s", hour + 930_918_273_645),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s10ns", 12_010),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.9223372036854775807s", 922_337_203),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036s854ms775us808ns", i64::MIN),
        ];
        for (text, nanos) in table {
            assert_eq!(text.parse::<GoDuration>().map(GoDuration::as_nanos), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in
            ["", "-", "s", ".", ".s", "-.", "+.s", "3000000h", "9223372036854775808ns", "1e3s", "--1s", "1 s"]
        {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?}");
        }
        assert_eq!(
            "3".parse::<GoDuration>().unwrap_err().to_string(),
            "time: missing unit in duration \"3\""
        );
        assert_eq!(
            "2d".parse::<GoDuration>().unwrap_err().to_string(),
            "time: unknown unit \"d\" in duration \"2d\""
        );
    }

    #[test]
    fn prints_as_go_prints() {
        let table = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (4 * 60_000_000_000 + 5_001_000_000, "4m5.001s"),
            (8640 * 3_600_000_000_000, "8640h0m0s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanos, text) in table {
            assert_eq!(GoDuration::from_nanos(nanos).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos: i64) {
            let duration = GoDuration::from_nanos(nanos);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.hmsnuµμ]{0,24}|\\PC{0,12}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
