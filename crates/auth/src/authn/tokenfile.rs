//! `--token-auth-file`: static bearer tokens in a CSV file, `token,user,uid[,"group1,group2"]`
//! (`k8s.io/apiserver/pkg/authentication/token/tokenfile`). The file is read once, by the caller.

use super::TokenDigest;
use fleetpass_apimachinery::user::UserInfo;
use std::collections::HashMap;

/// The tokens of a file. Only their digests are kept.
#[derive(Default)]
pub struct TokenFile {
    // Looked up by hash, which takes the same time for ten tokens and for ten thousand. How long that takes may depend on how
    // much of the digest a client has right; it cannot make use of it: to choose a token whose digest begins as a known one's
    // does, it would have to find preimages of SHA-256, and no part of a digest says anything about the token.
    entries: HashMap<TokenDigest, UserInfo>,
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenFile({} tokens)", self.entries.len())
    }
}

/// Why a token file was refused; `line` counts from 1. Never quotes the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// A record is too short.
    #[error("line {line}: a token file needs at least 3 columns (token, user name, user uid), found {found}")]
    Columns {
        /// Where the record ends.
        line: usize,
        /// How many columns there are.
        found: usize,
    },
    /// A quote where none may be, or one that is missing.
    #[error("line {line}: bare, extraneous or missing \" in a field")]
    Quote {
        /// Where.
        line: usize,
    },
}

impl TokenFile {
    /// Reads the file. Records with an empty token are passed over; of records with the same token the last counts.
    pub fn parse(csv: &str) -> Result<Self, TokenFileError> {
        let mut entries = HashMap::new();
        let mut reader = Csv { rest: csv, line: 0 };
        while let Some(record) = reader.record()? {
            let [token, name, uid, rest @ ..] = &record[..] else {
                return Err(TokenFileError::Columns { line: reader.line, found: record.len() });
            };
            if token.is_empty() {
                tracing::warn!(line = reader.line, "empty token in the token file");
                continue;
            }
            let groups =
                rest.first().map(|list| list.split(',').map(Into::into).collect()).unwrap_or_default();
            let user = UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
            if entries.insert(TokenDigest::of(token), user).is_some() {
                tracing::warn!(line = reader.line, "duplicate token in the token file; the last one counts");
            }
        }
        Ok(Self { entries })
    }

    /// The user to whom the token with this digest belongs.
    pub fn user(&self, token: &TokenDigest) -> Option<&UserInfo> {
        self.entries.get(token)
    }
}

/// CSV as Go's `encoding/csv` reads it: empty lines are skipped, quoted fields may hold commas, doubled quotes and
/// line ends.
///
/// The `csv` crate has no strict mode: it takes a quote inside a field, text behind a closing quote and a quote that
/// is never closed for content. After a forgotten quote the rest of the file would be one field, and the users in it
/// would be gone without an error. It also drops a byte order mark, and ends a record at a lone carriage return.
struct Csv<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Csv<'a> {
    /// The next line without its end; `None` at the end of the text.
    fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    fn record(&mut self) -> Result<Option<Vec<String>>, TokenFileError> {
        let mut line = loop {
            match self.next_line() {
                None => return Ok(None),
                Some("") => {}
                Some(line) => break line,
            }
        };
        let mut fields = Vec::new();
        loop {
            let (field, rest) = match line.strip_prefix('"') {
                Some(quoted) => self.quoted(quoted)?,
                None => {
                    let (field, rest) =
                        line.split_once(',').map_or((line, None), |(field, rest)| (field, Some(rest)));
                    if field.contains('"') {
                        return Err(TokenFileError::Quote { line: self.line });
                    }
                    (field.to_string(), rest)
                }
            };
            fields.push(field);
            match rest {
                Some(rest) => line = rest,
                None => return Ok(Some(fields)),
            }
        }
    }

    /// The rest of a field after its opening quote, and what follows the next comma.
    fn quoted(&mut self, mut line: &'a str) -> Result<(String, Option<&'a str>), TokenFileError> {
        let mut field = String::new();
        loop {
            let Some((text, after)) = line.split_once('"') else {
                field.push_str(line);
                field.push('\n');
                line = self.next_line().ok_or(TokenFileError::Quote { line: self.line })?;
                continue;
            };
            field.push_str(text);
            if let Some(rest) = after.strip_prefix('"') {
                field.push('"');
                line = rest;
            } else if let Some(rest) = after.strip_prefix(',') {
                return Ok((field, Some(rest)));
            } else if after.is_empty() {
                return Ok((field, None));
            } else {
                return Err(TokenFileError::Quote { line: self.line });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tokens_users_and_groups() {
        let file = TokenFile::parse(concat!(
            "admintoken,admin,admin,\"system:masters\"\r\n",
            "\n",
            "alicetoken,alice,alice-uid,\"devs,ops\"\n",
            ",nobody,1\n",
            "\"a \"\"b\"\", c\nd\",bob,\n",
            "twice,first,1\ntwice,second,2",
        ))
        .unwrap();
        let user = |token: &str| file.user(&TokenDigest::of(token));
        let brief = |token: &str| user(token).map(|u| (u.name.as_str(), u.uid.as_str(), u.groups.join("|")));
        assert_eq!(brief("admintoken"), Some(("admin", "admin", "system:masters".into())));
        assert_eq!(brief("alicetoken"), Some(("alice", "alice-uid", "devs|ops".into())));
        assert_eq!(brief("a \"b\", c\nd"), Some(("bob", "", String::new())));
        assert_eq!(brief("twice"), Some(("second", "2", String::new())));
        for other in ["", "alicetokens", "alicetoke", "nobody"] {
            assert_eq!(user(other), None, "{other}");
        }
        assert_eq!(format!("{file:?}"), "TokenFile(4 tokens)");
    }

    /// What Go 1.26 makes of each text with `FieldsPerRecord = -1`: the records up to the end, or to the first error and
    /// the line of that.
    #[test]
    fn records_are_those_of_go() {
        type Records = &'static [&'static [&'static str]];
        let cases: &[(&str, Records, Option<usize>)] = &[
            // Ends of lines, and lines that are skipped. A blank is content.
            ("", &[], None),
            ("\n\r\n\n", &[], None),
            ("a,b,c", &[&["a", "b", "c"]], None),
            ("a,b,c\r", &[&["a", "b", "c"]], None),
            ("\r\na,b,c\r\n\n\nd,e\n\r", &[&["a", "b", "c"], &["d", "e"]], None),
            ("a,b,c\n \nd", &[&["a", "b", "c"], &[" "], &["d"]], None),
            ("a,b,c\r\r\n", &[&["a", "b", "c\r"]], None),
            ("a\rb,c\n", &[&["a\rb", "c"]], None),
            // Nothing is trimmed, there are no comments, and a byte order mark is part of the first field.
            (" a, b ,c \n", &[&[" a", " b ", "c "]], None),
            ("#a,b\n", &[&["#a", "b"]], None),
            ("\u{feff}a,b\n", &[&["\u{feff}a", "b"]], None),
            ("a;b\tc\n", &[&["a;b\tc"]], None),
            // Empty fields.
            (",,\n", &[&["", "", ""]], None),
            ("a,\"\",\n", &[&["a", "", ""]], None),
            // Quoted fields.
            ("a,\"g1,g2\",\"c\"\r\n", &[&["a", "g1,g2", "c"]], None),
            ("\"a\"\"b\",\"\"\"c\",\"d\"\"\"", &[&["a\"b", "\"c", "d\""]], None),
            ("\"a\n\nb\",c\ne", &[&["a\n\nb", "c"], &["e"]], None),
            ("\"a\r\nb\",\"c\rd\"\n", &[&["a\nb", "c\rd"]], None),
            ("\"a\"\r\n,b\n", &[&["a"], &["", "b"]], None),
            // Quotes where none may be, and quotes that are missing.
            ("a\"b,c\n", &[], Some(1)),
            ("a,b\"\",c\n", &[], Some(1)),
            ("a, \"g1,g2\"\n", &[], Some(1)),
            ("a,\"g1,g2\" \n", &[], Some(1)),
            ("a,b\n\"a\"b\n", &[&["a", "b"]], Some(2)),
            ("\"a,b", &[], Some(1)),
            ("\"a\r", &[], Some(1)),
            ("a,b\n\"\n", &[&["a", "b"]], Some(2)),
        ];
        for (csv, records, broken) in cases {
            let mut reader = Csv { rest: csv, line: 0 };
            for record in *records {
                assert_eq!(reader.record().unwrap().unwrap(), *record, "{csv:?}");
            }
            let end = broken.map_or(Ok(None), |line| Err(TokenFileError::Quote { line }));
            assert_eq!(reader.record(), end, "{csv:?}");
        }
    }

    #[test]
    fn refuses_broken_files() {
        for (csv, why) in [
            ("a,b", TokenFileError::Columns { line: 1, found: 2 }),
            ("a,b,c\n \n", TokenFileError::Columns { line: 2, found: 1 }),
            ("a\"b,c,d", TokenFileError::Quote { line: 1 }),
            ("\"a\"b,c,d", TokenFileError::Quote { line: 1 }),
            ("x,y,z\n\"a,b,c\n", TokenFileError::Quote { line: 2 }),
        ] {
            assert_eq!(TokenFile::parse(csv).err(), Some(why), "{csv:?}");
        }
    }
}
