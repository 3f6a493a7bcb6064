//! Values of D-Bus, and their bytes: the D-Bus specification's chapters "Type System" and "Message
//! Protocol", little-endian.

use shim_core::{Error, Result};

/// How deep containers may be nested in what is read; the specification allows no more than that.
const DEEPEST: usize = 64;

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    Variant(Box<Self>),
    /// The signature of an element, since there may be none.
    Array(String, Vec<Self>),
    /// A structure, or an entry of a dictionary.
    Tuple(Vec<Self>),
}

impl Value {
    /// An array of texts.
    pub(crate) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        let texts = texts.into_iter().map(|text| Self::Text(text.into()));
        Self::Array("s".to_owned(), texts.collect())
    }

    /// An array of bytes.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".to_owned(), bytes.iter().copied().map(Self::Byte).collect())
    }

    /// The signature of its type.
    pub(crate) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".to_owned(),
            Self::Bool(_) => "b".to_owned(),
            Self::Int16(_) => "n".to_owned(),
            Self::Uint16(_) => "q".to_owned(),
            Self::Int32(_) => "i".to_owned(),
            Self::Uint32(_) => "u".to_owned(),
            Self::Int64(_) => "x".to_owned(),
            Self::Uint64(_) => "t".to_owned(),
            Self::Double(_) => "d".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::Path(_) => "o".to_owned(),
            Self::Signature(_) => "g".to_owned(),
            Self::Variant(_) => "v".to_owned(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Tuple(fields) => format!("({})", signature(fields)),
        }
    }

    /// The text, if it is one or a path.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }
}

/// The signature of several values, one after the other.
pub(crate) fn signature(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// Writes values, aligned from the beginning of the bytes.
pub(super) fn write(values: &[Value], bytes: &mut Vec<u8>) {
    for value in values {
        write_one(value, bytes);
    }
}

fn write_one(value: &Value, bytes: &mut Vec<u8>) {
    pad(bytes, alignment(&value.signature()));
    match value {
        Value::Byte(value) => bytes.push(*value),
        Value::Bool(value) => bytes.extend(u32::from(*value).to_le_bytes()),
        Value::Int16(value) => bytes.extend(value.to_le_bytes()),
        Value::Uint16(value) => bytes.extend(value.to_le_bytes()),
        Value::Int32(value) => bytes.extend(value.to_le_bytes()),
        Value::Uint32(value) => bytes.extend(value.to_le_bytes()),
        Value::Int64(value) => bytes.extend(value.to_le_bytes()),
        Value::Uint64(value) => bytes.extend(value.to_le_bytes()),
        Value::Double(value) => bytes.extend(value.to_le_bytes()),
        Value::Text(text) | Value::Path(text) => {
            bytes.extend(length(text.len()).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        Value::Signature(text) => write_signature(text, bytes),
        Value::Variant(inner) => {
            write_signature(&inner.signature(), bytes);
            write_one(inner, bytes);
        }
        Value::Array(element, values) => {
            let at = bytes.len();
            bytes.extend([0; 4]);
            // What comes before the first element does not count.
            pad(bytes, alignment(element));
            let first = bytes.len();
            write(values, bytes);
            let written = length(bytes.len() - first).to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&written);
        }
        Value::Tuple(fields) => write(fields, bytes),
    }
}

fn write_signature(text: &str, bytes: &mut Vec<u8>) {
    // Ours are of a few characters; those that were read had one byte for it.
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A message has at most 128 MiB, and ours some KiB.
pub(super) fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Fills up to a multiple of a power of two.
pub(super) fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') | None => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Reads values out of bytes that are not trusted.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from some offset on; what is before it counts for the alignment.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Reads values of a signature.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn read(&mut self, signature: &str) -> Result<Vec<Value>> {
        self.read_all(signature, 0)
    }

    /// Where the next one begins, but for its alignment.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn read_all(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (one, rest) = split(signature)?;
            values.push(self.read_one(one, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    fn read_one(&mut self, signature: &str, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(garbled("it is nested too deep"));
        }
        self.align(alignment(signature))?;
        let (kind, rest) = signature.split_at(1);
        Ok(match kind {
            "y" => Value::Byte(self.array::<1>()?[0]),
            "b" => Value::Bool(self.number()? != 0),
            "n" => Value::Int16(i16::from_le_bytes(self.array()?)),
            "q" => Value::Uint16(u16::from_le_bytes(self.array()?)),
            "i" => Value::Int32(i32::from_le_bytes(self.array()?)),
            // A file, as an index into those that came with the message.
            "u" | "h" => Value::Uint32(self.number()?),
            "x" => Value::Int64(i64::from_le_bytes(self.array()?)),
            "t" => Value::Uint64(u64::from_le_bytes(self.array()?)),
            "d" => Value::Double(f64::from_le_bytes(self.array()?)),
            "s" => Value::Text(self.text()?),
            "o" => Value::Path(self.text()?),
            "g" => Value::Signature(self.short_text()?),
            "v" => {
                let signature = self.short_text()?;
                let (one, rest) = split(&signature)?;
                if !rest.is_empty() {
                    return Err(garbled("a variant has several values"));
                }
                Value::Variant(Box::new(self.read_one(one, depth + 1)?))
            }
            "a" => self.elements(rest, depth)?,
            // A structure, or an entry of a dictionary: without its bracket at the end.
            _ => match self.read_all(&rest[..rest.len() - 1], depth + 1)? {
                // An array of it would never end.
                fields if fields.is_empty() => return Err(garbled("a structure is empty")),
                fields => Value::Tuple(fields),
            },
        })
    }

    fn elements(&mut self, element: &str, depth: usize) -> Result<Value> {
        let length = self.number()? as usize;
        self.align(alignment(element))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| garbled("an array is longer than its message"))?;
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.read_one(element, depth + 1)?);
        }
        Ok(Value::Array(element.to_owned(), values))
    }

    fn align(&mut self, to: usize) -> Result<()> {
        let at = self.at.next_multiple_of(to);
        self.take(at - self.at).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| garbled("it ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.number()? as usize;
        self.text_of(length)
    }

    fn short_text(&mut self) -> Result<String> {
        let length = usize::from(self.array::<1>()?[0]);
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| garbled("a text is not UTF-8"))
    }
}

/// The first complete type of a signature, and what follows.
fn split(signature: &str) -> Result<(&str, &str)> {
    let mut open = 0_usize;
    for (at, kind) in signature.bytes().enumerate() {
        match kind {
            b'(' | b'{' => open += 1,
            b')' | b'}' => {
                open = open.checked_sub(1).ok_or_else(|| garbled("a signature has no sense"))?;
            }
            b'a' => continue,
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'h' | b'x' | b't' | b'd' | b's' | b'o'
            | b'g' | b'v' => {}
            _ => break,
        }
        if open == 0 {
            return Ok(signature.split_at(at + 1));
        }
    }
    Err(garbled("a signature has no sense"))
}

pub(super) fn garbled(why: &'static str) -> Error {
    Error::other(format!("a message makes no sense: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(values: &[Value]) {
        let mut bytes = vec![0xff; 3];
        write(values, &mut bytes);
        let mut reader = Reader::new(&bytes, 3);
        assert_eq!(reader.read(&signature(values)).unwrap(), values);
        assert_eq!(reader.at(), bytes.len());
        for end in 3..bytes.len() {
            assert!(Reader::new(&bytes[..end], 3).read(&signature(values)).is_err(), "{end}");
        }
    }

    #[test]
    fn values_come_back_as_they_were_written() {
        let pair = |a: &str, b| Value::Tuple(vec![Value::Text(a.to_owned()), b]);
        there_and_back(&[
            Value::Byte(1),
            Value::Uint64(u64::MAX),
            Value::Bool(true),
            Value::Int16(-2),
            Value::Text("é".to_owned()),
            Value::Double(0.5),
            Value::Path("/a".to_owned()),
            Value::Signature("a(sv)".to_owned()),
            Value::Array(
                "(sv)".to_owned(),
                vec![
                    pair("a", Value::Variant(Box::new(Value::texts(["x", ""])))),
                    pair("b", Value::Variant(Box::new(Value::Array("t".to_owned(), vec![])))),
                ],
            ),
            Value::Array("x".to_owned(), vec![Value::Int64(-1)]),
            Value::Tuple(vec![Value::Int32(-1), Value::Uint16(7)]),
            Value::Uint32(9),
        ]);
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut bytes = Vec::new();
        write(&[Value::Text("foo".to_owned()), Value::Text("+".to_owned())], &mut bytes);
        assert_eq!(bytes, b"\x03\0\0\0foo\0\x01\0\0\0+\0");
        bytes.clear();
        write(&[Value::Array("x".to_owned(), vec![Value::Int64(5)])], &mut bytes);
        assert_eq!(bytes, b"\x08\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        bytes.clear();
        write(&[Value::Variant(Box::new(Value::Bool(true)))], &mut bytes);
        assert_eq!(bytes, b"\x01b\0\0\x01\0\0\0");
    }

    #[test]
    fn signatures_without_sense_are_refused() {
        for bad in ["a", "(", "(s", ")", "z", "a{", "()", "{}", "(z)"] {
            assert!(Reader::new(&[0; 64], 0).read(bad).is_err(), "{bad}");
        }
        let deep = "a".repeat(200) + "y";
        assert!(Reader::new(&[0; 4], 0).read(&deep).is_ok());
        let mut nested = Value::Byte(0);
        for _ in 0..70 {
            nested = Value::Variant(Box::new(nested));
        }
        let mut bytes = Vec::new();
        write(&[nested], &mut bytes);
        assert!(Reader::new(&bytes, 0).read("v").is_err());
    }
}
