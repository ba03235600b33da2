//! `resource.Quantity`: numbers with a suffix, such as `100m` or `1.5Gi`, in canonical form
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`, `suffix.go`).

use crate::error::QuantityError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    DecimalExponent,
    DecimalSi,
    BinarySi,
}

/// One billionth is the finest part of a quantity.
const NANO: i64 = -9;

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// `text` as a quantity is printed.
///
/// # Errors
/// `text` is no quantity.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    // A fast path of `ParseQuantity`.
    if text == "0" {
        return Ok(text.into());
    }
    let parts = split(text)?;
    let (format, exponent) = interpret(parts.suffix).ok_or(QuantityError::Suffix)?;
    let number = &text[..text.len() - parts.suffix.len()];
    // A quirk of the fast path: `Ki` or `.` alone is zero, if it takes that path.
    if !number.contains(|c: char| c.is_ascii_digit()) && !is_small(&parts, format, exponent) {
        return Err(QuantityError::Number);
    }
    if kept_as_written(&parts, format, exponent) {
        return Ok(text.into());
    }
    Ok(print(&parts, format, exponent))
}

/// The amount of `text` in billionths, rounded away from zero; beyond what fits, the greatest or least `i128`.
///
/// # Errors
/// `text` is no quantity.
pub fn nanos(text: &str) -> Result<i128, QuantityError> {
    canonical(text)?;
    let parts = split(text)?;
    let (format, exponent) = interpret(parts.suffix).ok_or(QuantityError::Suffix)?;
    let amount = match format {
        Format::BinarySi => binary_nanos(&parts, exponent),
        _ => {
            let mut decimal = Decimal::new(&parts, exponent);
            decimal.power -= NANO;
            if decimal.digits.is_empty() { Some(0) } else { decimal.into_u128() }
        }
    };
    let amount = amount.and_then(|amount| i128::try_from(amount).ok()).unwrap_or(i128::MAX);
    Ok(if parts.negative { -amount } else { amount })
}

/// The sum of two quantities, in the format of the first one, or of the second if the first is zero (`Quantity.Add`).
///
/// # Errors
/// One of them is no quantity.
pub fn sum(first: &str, second: &str) -> Result<String, QuantityError> {
    let (augend, addend) = (nanos(first)?, nanos(second)?);
    let suffix = split(if augend == 0 { second } else { first })?.suffix;
    let (format, _) = interpret(suffix).ok_or(QuantityError::Suffix)?;
    let total = augend.saturating_add(addend);
    let amount = total.unsigned_abs();
    let (whole, fraction) = ((amount / ONE).to_string(), format!("{:09}", amount % ONE));
    let parts = Parts { negative: total < 0, whole: &whole, fraction: &fraction, suffix: "" };
    Ok(print(&parts, format, 0))
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    // `parseQuantityString` in quantity.go, which is not a regular expression either.
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let unsigned = unsigned.trim_start_matches('0');
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = unsigned.split_at(digits(unsigned));
    let whole = if whole.is_empty() { "0" } else { whole };
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let power = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if digits(power) == power.len() {
        Ok(Parts { negative, whole, fraction, suffix })
    } else {
        Err(QuantityError::Format)
    }
}

fn interpret(suffix: &str) -> Option<(Format, i32)> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    Some(match suffix {
        "" => (DecimalSi, 0),
        "n" => (DecimalSi, -9),
        "u" => (DecimalSi, -6),
        "m" => (DecimalSi, -3),
        "k" => (DecimalSi, 3),
        "M" => (DecimalSi, 6),
        "G" => (DecimalSi, 9),
        "T" => (DecimalSi, 12),
        "P" => (DecimalSi, 15),
        "E" => (DecimalSi, 18),
        "Ki" => (BinarySi, 10),
        "Mi" => (BinarySi, 20),
        "Gi" => (BinarySi, 30),
        "Ti" => (BinarySi, 40),
        "Pi" => (BinarySi, 50),
        "Ei" => (BinarySi, 60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            // Go narrows the parsed int64 to an int32; beyond that only nonsense lies.
            (DecimalExponent, i32::try_from(power.parse::<i64>().ok()?).ok()?)
        }
    })
}

/// Whether the original reads the number as an `int64`; there, no digits at all are zero.
fn is_small(parts: &Parts<'_>, format: Format, exponent: i32) -> bool {
    let written = (parts.whole.len() + parts.fraction.len()) as i32;
    match format {
        Format::BinarySi => {
            parts.fraction.is_empty() && 15 - parts.whole.len() as i32 - exponent * 3 / 10 > 0
        }
        _ => 18 - written >= 0 && i64::from(exponent) - parts.fraction.len() as i64 >= NANO,
    }
}

/// Numbers that are written as they would be printed are kept with their text: a shortcut of the original
/// that can be seen (`1.500` stays).
fn kept_as_written(parts: &Parts<'_>, format: Format, exponent: i32) -> bool {
    let digits = format!("{}{}", parts.whole, parts.fraction);
    let Ok(value) = digits.parse::<i64>() else { return false };
    is_small(parts, format, exponent)
        && match format {
            Format::BinarySi => value.checked_mul(1_i64 << exponent).is_some() && value & 7 != 0,
            _ => {
                let scale = i64::from(exponent) - parts.fraction.len() as i64;
                scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
            }
        }
}

/// A decimal number without sign: its digits, without zeros at either end, and the power of ten of the last one.
/// No digits are zero.
struct Decimal {
    digits: Vec<u8>,
    power: i64,
}

impl Decimal {
    fn new(parts: &Parts<'_>, exponent: i32) -> Self {
        let digits = parts.whole.bytes().chain(parts.fraction.bytes()).map(|b| b - b'0').collect();
        let power = i64::from(exponent) - parts.fraction.len() as i64;
        let mut decimal = Self { digits, power };
        decimal.trim();
        decimal
    }

    fn trim(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
            self.power += 1;
        }
        let leading = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..leading);
    }

    /// Rounds away from zero to the power of ten `to`, if there are digits below.
    fn round_up(&mut self, to: i64) {
        if self.power >= to || self.digits.is_empty() {
            return;
        }
        let dropped = usize::try_from(to - self.power).unwrap_or(usize::MAX);
        self.digits.truncate(self.digits.len().saturating_sub(dropped));
        self.power = to;
        // What was dropped was not zero: the last digit never is.
        // One is added to the last digit; nines become zeros, which are not kept.
        let nines = self.digits.iter().rev().take_while(|digit| **digit == 9).count();
        self.digits.truncate(self.digits.len() - nines);
        self.power += nines as i64;
        match self.digits.last_mut() {
            Some(digit) => *digit += 1,
            None => self.digits.push(1),
        }
    }

    /// As a whole number, rounded up, if it fits.
    fn into_u128(mut self) -> Option<u128> {
        self.round_up(0);
        let zeros = u32::try_from(self.power).ok()?;
        let value = self
            .digits
            .iter()
            .try_fold(0_u128, |value, digit| value.checked_mul(10)?.checked_add(u128::from(*digit)));
        value?.checked_mul(10_u128.checked_pow(zeros)?)
    }

    fn print(mut self, format: Format) -> String {
        if self.digits.is_empty() {
            return "0".into();
        }
        // Suffixes go in steps of a thousand: what the power has above one is written as zeros.
        let zeros = self.power.rem_euclid(3);
        self.power -= zeros;
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let digits = digits + &"0".repeat(zeros as usize);
        if format == Format::DecimalExponent {
            return if self.power == 0 { digits } else { format!("{digits}e{}", self.power) };
        }
        // Beyond the greatest suffix the original prints none.
        let index = usize::try_from((self.power + 9) / 3).unwrap_or(usize::MAX);
        let suffix =
            ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].get(index).copied().unwrap_or_default();
        digits + suffix
    }
}

fn print(parts: &Parts<'_>, format: Format, exponent: i32) -> String {
    let sign = |text: String| if parts.negative && text != "0" { format!("-{text}") } else { text };
    if format != Format::BinarySi {
        let mut decimal = Decimal::new(parts, exponent);
        decimal.round_up(NANO);
        return sign(decimal.print(format));
    }
    // Below 1024, and for fractions, decimal suffixes are used.
    let nanos = binary_nanos(parts, exponent).unwrap_or(MAX_NANOS);
    if nanos < 1024 * ONE || !nanos.is_multiple_of(ONE) {
        let digits = nanos.to_string();
        let whole = Parts { negative: parts.negative, whole: &digits, fraction: "", suffix: "" };
        return sign(Decimal::new(&whole, NANO as i32).print(Format::DecimalSi));
    }
    // The largest unit that leaves a whole number.
    let mut value = nanos / ONE;
    let mut power = 0;
    while value.is_multiple_of(1024) && power < 6 {
        value /= 1024;
        power += 1;
    }
    sign(format!("{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]))
}

const ONE: u128 = 1_000_000_000;
/// The greatest amount with a binary suffix, 2^63-1.
const MAX_NANOS: u128 = i64::MAX as u128 * ONE;

/// The amount of a number with a binary suffix in billionths, at most [`MAX_NANOS`].
fn binary_nanos(parts: &Parts<'_>, exponent: i32) -> Option<u128> {
    let mut nanos = Decimal::new(parts, -NANO as i32);
    if nanos.digits.is_empty() {
        return Some(0);
    }
    Some(multiply(&mut nanos, exponent).unwrap_or(MAX_NANOS).min(MAX_NANOS))
}

/// `decimal * 2^exponent`, rounded up; `None` if it is beyond all bounds.
fn multiply(decimal: &mut Decimal, exponent: i32) -> Option<u128> {
    // Doubled as often as the exponent says, at most 60 times, with schoolbook carries: exact, whatever the length.
    for _ in 0..exponent {
        let mut carry = 0;
        for digit in decimal.digits.iter_mut().rev() {
            let doubled = *digit * 2 + carry;
            (*digit, carry) = (doubled % 10, doubled / 10);
        }
        if carry > 0 {
            decimal.digits.insert(0, carry);
        }
    }
    decimal.trim();
    Decimal { digits: std::mem::take(&mut decimal.digits), power: decimal.power }.into_u128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_canonical() {
        for (text, expected) in [
            ("0", "0"),
            ("0.0", "0"),
            ("1", "1"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1025Ki", "1025Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("12000000", "12M"),
            ("0.1Ki", "102400m"),
            ("1.0000000001", "1000000001n"),
            ("-1000m", "-1"),
            ("0.0000000001", "1n"),
            ("100000000000000000000000Ei", "9223372036854775807"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn amounts_are_counted_in_billionths() {
        for (text, expected) in [
            ("1", 1_000_000_000),
            ("-100m", -100_000_000),
            ("1Ki", 1024 * 1_000_000_000),
            ("0.5n", 1),
            ("0", 0),
            ("1e99", i128::MAX),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
        assert_eq!(nanos("lots"), Err(QuantityError::Format));
    }

    #[test]
    fn sums_keep_the_format_of_what_is_added_to() {
        for (first, second, expected) in [
            ("0", "1", "1"),
            ("4", "1", "5"),
            ("999", "1", "1k"),
            ("1k", "1", "1001"),
            ("1Ki", "1", "1025"),
            ("1023Mi", "1Mi", "1Gi"),
            ("0", "1Gi", "1Gi"),
            ("500m", "1500m", "2"),
            ("1e3", "1", "1001"),
            ("1", "-3", "-2"),
            ("1n", "1", "1000000001n"),
        ] {
            assert_eq!(sum(first, second).as_deref(), Ok(expected), "{first} + {second}");
        }
        assert_eq!(sum("1", "lots"), Err(QuantityError::Format));
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, expected) in [
            ("", QuantityError::Format),
            ("lots", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("1ee", QuantityError::Suffix),
            ("1mm", QuantityError::Suffix),
        ] {
            assert_eq!(canonical(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "[-+]?[0-9]{0,60}\\.?[0-9]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            let _ = canonical(&text);
        }
    }
}
