//! Paths in rules and columns of a CRD, such as `.spec.a` or `.spec['a.b']`.

use crate::Schema;
use fleetpass_apimachinery::field::Path;

/// A path such as `.spec.a` or `.spec['a.b']` below a schema: its printed form and the schema it leads to
/// (`ValidFieldPath` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`); `brackets` allows the second form.
///
/// # Errors
/// Go's words for a path that cannot be read, or that leads to no field of the schema.
pub fn field_path<'a>(path: &str, schema: &'a Schema, brackets: bool) -> Result<(Path, &'a Schema), String> {
    let mut tokens = tokenize(path).into_iter();
    let (mut at, mut schema) = (Path::default(), schema);
    let end = || "unexpected end of JSON path".to_string();
    let nowhere = || "does not refer to a valid field".to_string();
    while let Some(token) = tokens.next() {
        let name = match token.as_str() {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = tokens.next().ok_or_else(end)?;
                let name = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
                let Some(name) = name.filter(|_| quoted.len() > 1) else {
                    return Err(format!("expected single quoted string but got {quoted}"));
                };
                let name = name.replace("\\'", "'").replace("\\\\", "\\");
                match tokens.next().ok_or_else(end)?.as_str() {
                    "]" => name,
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            "." => tokens.next().ok_or_else(end)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        if !schema.properties.is_empty() {
            at = at.child(&name);
            schema = schema.properties.get(&name).ok_or_else(nowhere)?;
        } else if let Some(additional) = &schema.additional {
            at = at.key(&name);
            schema = additional;
        } else {
            return Err(nowhere());
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
