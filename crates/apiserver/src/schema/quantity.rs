//! `resource.Quantity`: numbers with a suffix, such as `100m` or `1.5Gi`, in canonical form
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`, `suffix.go`).

const FORMAT_WRONG: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX_WRONG: &str = "unable to parse quantity's suffix";
const NUMBER_WRONG: &str = "unable to parse numeric part of quantity";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    DecimalExponent,
    DecimalSi,
    BinarySi,
}

/// One billionth is the finest part of a quantity; everything is counted in it.
const NANO: i32 = -9;
/// The greatest amount, in billionths: 2^63-1.
const MAX: i128 = i64::MAX as i128 * 1_000_000_000;

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// `text` as a quantity is printed. Errors: kube-apiserver's words.
pub fn canonical(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err(FORMAT_WRONG);
    }
    if text == "0" {
        return Ok(text.into());
    }
    let parts = split(text)?;
    let (format, base, exponent) = interpret(parts.suffix).ok_or(SUFFIX_WRONG)?;
    if kept_as_written(&parts, format, exponent) {
        return Ok(text.into());
    }
    let (nanos, format) = amount(&parts, format, base, exponent)?;
    Ok(print(nanos, format))
}

/// The amount of `text` in billionths, rounded up. Errors: kube-apiserver's words.
pub fn nanos(text: &str) -> Result<i128, &'static str> {
    if text.is_empty() {
        return Err(FORMAT_WRONG);
    }
    let parts = split(text)?;
    let (format, base, exponent) = interpret(parts.suffix).ok_or(SUFFIX_WRONG)?;
    amount(&parts, format, base, exponent).map(|(nanos, _)| nanos)
}

fn split(text: &str) -> Result<Parts<'_>, &'static str> {
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
        Err(FORMAT_WRONG)
    }
}

fn interpret(suffix: &str) -> Option<(Format, i32, i32)> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    Some(match suffix {
        "" => (DecimalSi, 10, 0),
        "n" => (DecimalSi, 10, -9),
        "u" => (DecimalSi, 10, -6),
        "m" => (DecimalSi, 10, -3),
        "k" => (DecimalSi, 10, 3),
        "M" => (DecimalSi, 10, 6),
        "G" => (DecimalSi, 10, 9),
        "T" => (DecimalSi, 10, 12),
        "P" => (DecimalSi, 10, 15),
        "E" => (DecimalSi, 10, 18),
        "Ki" => (BinarySi, 2, 10),
        "Mi" => (BinarySi, 2, 20),
        "Gi" => (BinarySi, 2, 30),
        "Ti" => (BinarySi, 2, 40),
        "Pi" => (BinarySi, 2, 50),
        "Ei" => (BinarySi, 2, 60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            // Go narrows the parsed int64 to an int32; beyond that only nonsense lies.
            (DecimalExponent, 10, i32::try_from(power.parse::<i64>().ok()?).ok()?)
        }
    })
}

/// Numbers that are written as they would be printed are kept with their text: a shortcut of the original
/// that can be seen (`1.500` stays).
fn kept_as_written(parts: &Parts<'_>, format: Format, exponent: i32) -> bool {
    let digits = format!("{}{}", parts.whole, parts.fraction);
    let Ok(value) = digits.parse::<i64>() else { return false };
    let written = digits.len() as i32;
    match format {
        Format::BinarySi => {
            let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
            parts.fraction.is_empty()
                && precision >= 0
                && value.checked_mul(1_i64 << exponent).is_some()
                && value & 7 != 0
        }
        _ => {
            let scale = exponent.saturating_sub(parts.fraction.len() as i32);
            18 - written >= 0
                && scale >= NANO
                && scale % 3 == 0
                && !digits.ends_with("000")
                && !digits.starts_with('0')
        }
    }
}

/// The amount in billionths, rounded away from zero, and the format that fits it.
fn amount(
    parts: &Parts<'_>,
    format: Format,
    base: i32,
    exponent: i32,
) -> Result<(i128, Format), &'static str> {
    let mut nanos: i128 = 0;
    let mut inexact = false;
    let power = if base == 10 { exponent } else { 0 };
    // Digit by digit: more digits than an i128 holds are either beyond the maximum or below a billionth.
    let scale_of_last = power.saturating_sub(parts.fraction.len() as i32);
    let digits = parts.whole.bytes().chain(parts.fraction.bytes());
    let count = (parts.whole.len() + parts.fraction.len()) as i32;
    let multiplier: i128 = if base == 2 { 1 << exponent } else { 1 };
    let mut mantissa: i128 = 0;
    let mut dropped = 0;
    for (index, digit) in digits.enumerate() {
        if !digit.is_ascii_digit() {
            return Err(NUMBER_WRONG);
        }
        match mantissa.checked_mul(10).and_then(|m| m.checked_add(i128::from(digit - b'0'))) {
            Some(next) if next <= i128::MAX / 10 => mantissa = next,
            _ => {
                dropped = count - index as i32;
                inexact = true;
                break;
            }
        }
    }
    if mantissa != 0 {
        let shift = scale_of_last.saturating_add(dropped).saturating_sub(NANO);
        let scaled = mantissa.checked_mul(multiplier);
        nanos = match scaled {
            None => MAX,
            Some(scaled) => shift_decimal(scaled, shift, inexact),
        };
    }
    let nanos = nanos.min(MAX);
    let format = if format == Format::BinarySi && nanos < 1_000_000_000 && nanos > 0 {
        Format::DecimalSi
    } else {
        format
    };
    Ok((if parts.negative { -nanos } else { nanos }, format))
}

/// `value * 10^shift`, at most [`MAX`], rounded up.
fn shift_decimal(value: i128, shift: i32, inexact: bool) -> i128 {
    if shift >= 0 {
        let mut out = value;
        for _ in 0..shift.min(64) {
            out = match out.checked_mul(10) {
                Some(next) if next <= MAX => next,
                _ => return MAX,
            };
        }
        return out;
    }
    let divisor = 10_i128.checked_pow(shift.unsigned_abs());
    match divisor {
        Some(divisor) => value / divisor + i128::from(inexact || value % divisor != 0),
        None => 1,
    }
}

fn print(nanos: i128, format: Format) -> String {
    if nanos == 0 {
        return "0".into();
    }
    let one = 1_000_000_000;
    let binary_fits = nanos % one == 0 && nanos.abs() / one >= 1024;
    if format == Format::BinarySi && binary_fits {
        let mut value = nanos / one;
        let mut power = 0;
        while value % 1024 == 0 && power < 6 {
            value /= 1024;
            power += 1;
        }
        return format!("{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
    }
    let mut value = nanos;
    let mut exponent = NANO;
    let highest = if format == Format::DecimalExponent { i32::MAX } else { 18 };
    while value % 1000 == 0 && exponent < highest {
        value /= 1000;
        exponent += 3;
    }
    if format == Format::DecimalExponent {
        return if exponent == 0 { value.to_string() } else { format!("{value}e{exponent}") };
    }
    let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent - NANO) / 3) as usize];
    format!("{value}{suffix}")
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
    fn nonsense_is_refused() {
        for (text, expected) in [
            ("", FORMAT_WRONG),
            ("lots", FORMAT_WRONG),
            ("1x", FORMAT_WRONG),
            ("1ee", SUFFIX_WRONG),
            ("1mm", SUFFIX_WRONG),
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
