//! The wire format of protobuf: reading with the errors of the code that `protoc-gen-gogo` writes, and writing.
//!
//! A general library reads protobuf too, but words its errors differently, and ours are quoted by the API.

use super::error::Error;

/// Wire types.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const DELIMITED: u8 = 2;
const GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// The head of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a> {
    pub(super) number: i32,
    pub(super) wire: u8,
    /// The message from this tag on.
    from: Reader<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field of a message, unless it is over. `message` is named in errors.
    pub(super) fn tag(&mut self, message: &'static str) -> Result<Option<Tag<'a>>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let (tag, whole) = self.bare_tag()?;
        if tag.wire == END_GROUP {
            return Err(Error::EndGroupOutside { message });
        }
        if tag.number <= 0 {
            return Err(Error::IllegalTag { message, number: tag.number, wire: whole });
        }
        Ok(Some(tag))
    }

    /// The next field of a map's entry, whose tags are not checked.
    pub(super) fn entry_tag(&mut self) -> Result<Option<Tag<'a>>, Error> {
        if self.is_empty() { Ok(None) } else { self.bare_tag().map(|(tag, _)| Some(tag)) }
    }

    /// A number and wire type, unchecked, with the varint that they were.
    fn bare_tag(&mut self) -> Result<(Tag<'a>, u64), Error> {
        let from = *self;
        let whole = self.varint()?;
        // As in Go, the upper half of the number is cut off.
        Ok((Tag { number: (whole >> 3) as i32, wire: (whole & 7) as u8, from }, whole))
    }

    /// A number in groups of seven bits, the lowest first.
    pub(super) fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        // Ten bytes at most. What the last one has beyond 64 bits is cut off, as in Go.
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Error::UnexpectedEof)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Overflow)
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Error::UnexpectedEof)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A length and as many bytes.
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], Error> {
        // Go reads a signed number, so the upper half of the range is negative and not merely too long.
        let length = i64::try_from(self.varint()?).map_err(|_| Error::NegativeLength)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The next `length` bytes.
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Error::UnexpectedEof)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Passes over the field of that tag, a group with all that it holds.
    pub(super) fn skip(&mut self, tag: Tag<'a>) -> Result<(), Error> {
        *self = tag.from;
        // A counter and not recursion: groups may be nested as deeply as a body is long.
        let mut groups = 0_u32;
        loop {
            match (self.varint()? & 7) as u8 {
                VARINT => drop(self.varint()?),
                FIXED64 => drop(self.take(8)?),
                DELIMITED => drop(self.delimited()?),
                FIXED32 => drop(self.take(4)?),
                GROUP => groups += 1,
                END_GROUP => groups = groups.checked_sub(1).ok_or(Error::EndOfGroup)?,
                other => return Err(Error::IllegalWireType(other)),
            }
            if groups == 0 {
                return Ok(());
            }
        }
    }
}

/// Bytes as Go's `encoding/json` prints them in a string: each byte that is no UTF-8 becomes U+FFFD.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
    }
    out
}

/// Writes a message from its end to its beginning, so that a length is known when it is written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The bytes, the last one first.
    reversed: Vec<u8>,
}

impl Writer {
    /// The message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.reversed.reverse();
        self.reversed
    }

    /// How much is written; [`Writer::close`] takes it.
    pub(super) fn mark(&self) -> usize {
        self.reversed.len()
    }

    /// Puts length and tag before what was written since `mark`.
    pub(super) fn close(&mut self, number: i32, mark: usize) {
        self.close_before(number, mark, 0);
    }

    /// The same for what is `behind` bytes longer than what was written since `mark`: these bytes are sent after it.
    pub(super) fn close_before(&mut self, number: i32, mark: usize, behind: u64) {
        self.varint((self.reversed.len() - mark) as u64 + behind);
        self.tag(number, DELIMITED);
    }

    /// Bytes without tag and length.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// A delimited field.
    pub(super) fn bytes(&mut self, number: i32, bytes: &[u8]) {
        let mark = self.mark();
        self.raw(bytes);
        self.close(number, mark);
    }

    /// A field with a number of variable length.
    pub(super) fn integer(&mut self, number: i32, value: i64) {
        // The cast keeps the bits. Negative numbers are written with all their 64 bits, also those of 32-bit fields.
        self.varint(value as u64);
        self.tag(number, VARINT);
    }

    /// A field with a floating point number.
    pub(super) fn double(&mut self, number: i32, value: f64) {
        self.raw(&value.to_le_bytes());
        self.tag(number, FIXED64);
    }

    fn tag(&mut self, number: i32, wire: u8) {
        self.varint((number as u64) << 3 | u64::from(wire));
    }

    fn varint(&mut self, mut value: u64) {
        let mut bytes = [0; 10];
        let mut length = 0;
        loop {
            let last = value < 0x80;
            bytes[length] = (value & 0x7f) as u8 | if last { 0 } else { 0x80 };
            length += 1;
            value >>= 7;
            if last {
                break;
            }
        }
        self.raw(&bytes[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for value in [0, 1, 127, 128, 300, i64::MAX, -1, i64::MIN] {
            let mut writer = Writer::default();
            writer.integer(3, value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            let tag = reader.tag("M").unwrap().unwrap();
            assert_eq!((tag.number, tag.wire, reader.varint().unwrap() as i64), (3, VARINT, value));
            assert!(reader.tag("M").unwrap().is_none());
        }
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let skip = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let tag = reader.tag("M")?.ok_or(Error::EmptyBody)?;
            reader.skip(tag).map(|()| reader.rest.len())
        };
        for (bytes, expected) in [
            (&[0x08, 0x80, 0x01, 9][..], Ok(1)),
            (&[0x09, 1, 2, 3, 4, 5, 6, 7, 8], Ok(0)),
            (&[0x0a, 2, 1, 2, 9], Ok(1)),
            (&[0x0d, 1, 2, 3, 4], Ok(0)),
            (&[0x0b, 0x13, 0x08, 1, 0x14, 0x0c, 9], Ok(1)),
            (&[0x0b, 0x08, 1], Err(Error::UnexpectedEof)),
            (&[0x0a, 3, 1, 2], Err(Error::UnexpectedEof)),
            (&[0x09, 1], Err(Error::UnexpectedEof)),
            (&[0x0e], Err(Error::IllegalWireType(6))),
            (&[0x0c], Err(Error::EndGroupOutside { message: "M" })),
            (&[0x02, 0], Err(Error::IllegalTag { message: "M", number: 0, wire: 2 })),
            (&[0xff; 11], Err(Error::Overflow)),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Err(Error::NegativeLength)),
        ] {
            assert_eq!(skip(bytes), expected, "{bytes:?}");
        }
    }
}
