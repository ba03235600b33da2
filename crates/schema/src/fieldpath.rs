//! Paths in rules and columns of a CRD, such as `.spec.a` or `.spec['a.b']`.

use crate::Schema;
use crate::error::FieldPathError;
use fleetpass_apimachinery::field::Path;

/// A path such as `.spec.a` or `.spec['a.b']` below a schema: its printed form and the schema it leads to
/// (`ValidFieldPath` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`); `brackets` allows the second form.
///
/// # Errors
/// The path cannot be read, or leads to no field of the schema.
pub fn field_path<'a>(
    path: &str,
    schema: &'a Schema,
    brackets: bool,
) -> Result<(Path, &'a Schema), FieldPathError> {
    let mut tokens = tokenize(path).into_iter();
    let (mut at, mut schema) = (Path::default(), schema);
    while let Some(token) = tokens.next() {
        let name = match token.as_str() {
            "[" if !brackets => return Err(FieldPathError::BracketsNotAllowed),
            "[" => {
                let quoted = tokens.next().ok_or(FieldPathError::UnexpectedEnd)?;
                let name = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
                let Some(name) = name.filter(|_| quoted.len() > 1) else {
                    return Err(FieldPathError::NotQuoted(quoted));
                };
                let name = name.replace("\\'", "'").replace("\\\\", "\\");
                match tokens.next().ok_or(FieldPathError::UnexpectedEnd)?.as_str() {
                    "]" => name,
                    other => return Err(FieldPathError::NotClosed(other.into())),
                }
            }
            "." => tokens.next().ok_or(FieldPathError::UnexpectedEnd)?,
            other => return Err(FieldPathError::NotAStep(other.into())),
        };
        if !schema.properties.is_empty() {
            at = at.child(&name);
            schema = schema.properties.get(&name).ok_or(FieldPathError::NoSuchField)?;
        } else if let Some(additional) = &schema.additional {
            at = at.key(&name);
            schema = additional;
        } else {
            return Err(FieldPathError::NoSuchField);
        }
    }
    Ok((at, schema))
}

/// Splits at `.`, `[` and `]`, which are tokens themselves; single quotes keep a text together.
fn tokenize(path: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        let mut token = String::from(c);
        if c == '\'' {
            let mut escaped = false;
            for c in chars.by_ref() {
                token.push(c);
                if c == '\'' && !escaped {
                    break;
                }
                escaped = c == '\\';
            }
        } else if !matches!(c, '.' | '[' | ']') {
            while let Some(c) = chars.next_if(|c| !matches!(c, '.' | '[' | ']')) {
                token.push(c);
            }
        }
        tokens.push(token);
    }
    tokens
}
