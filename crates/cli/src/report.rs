//! How a failure is told: one line, cause by cause.

/// The error and its causes in one line. A cause that its predecessor told already is not told again.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        // Messages of libraries may have line breaks; a log line and a terminal's last line have one line.
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() || line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once_and_on_one_line() {
        let error = anyhow!("disk\n  full").context("cannot write a").context("the hub cannot start");
        assert_eq!(one_line(&error), "the hub cannot start: cannot write a: disk full");
        let repeated = anyhow!("disk full").context("cannot write a: disk full");
        assert_eq!(one_line(&repeated), "cannot write a: disk full");
    }
}
