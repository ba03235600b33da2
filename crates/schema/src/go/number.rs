//! Numbers as Go has them in unstructured objects: `int64` where a JSON number fits one, else `float64`.

use serde_json::{Number, Value};

/// A JSON number as Go's decoder stores it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GoNumber {
    /// Fits 64 bits and is written without a fraction or exponent.
    Int(i64),
    /// Everything else.
    Float(f64),
}

impl GoNumber {
    pub(crate) fn new(number: &Number) -> Self {
        match number.as_i64() {
            Some(int) => Self::Int(int),
            None => Self::Float(number.as_f64().unwrap_or(f64::MAX)),
        }
    }
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
    /// `bound` as the kind of number that this one is.
    pub(crate) fn like(self, bound: f64) -> Self {
        match self {
            Self::Int(_) => Self::Int(bound as i64),
            Self::Float(_) => Self::Float(bound),
        }
    }
    /// As an error prints it: whole floats without a fraction.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Int(int) => int.into(),
            Self::Float(float) => shorten(float),
        }
    }
}

/// The JSON that Go writes for a float: whole numbers carry no fraction.
fn shorten(float: f64) -> Value {
    if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 {
        (float as i64).into()
    } else {
        float.into()
    }
}

/// A float as Go's `%v` prints it: the shortest form, with an exponent below 1e-4 and from 1e21.
pub(crate) fn print_float(float: f64) -> String {
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float}")
}

/// Whether a float is close enough to a whole number for `integer` and for `multipleOf` (`IsFloat64AJSONInteger`).
pub(crate) fn is_whole(float: f64) -> bool {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    const EPSILON: f64 = 1e-9;
    if !float.is_finite() || float.abs() > LARGEST {
        return false;
    }
    let whole = float.trunc();
    if float == whole {
        return true;
    }
    let difference = (float - whole).abs();
    whole != 0.0 && difference / (float.abs() + whole.abs()) < EPSILON
}
