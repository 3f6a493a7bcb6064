//! Messages of D-Bus: a header, and a body of values.

use shim_core::{Error, Result};

use super::value::{Reader, Value, garbled, length, pad, signature, write};

/// The part of a header that tells how long the rest is, in bytes.
pub(super) const HEAD: usize = 16;
/// The specification's limit on a message, in bytes.
const LARGEST: usize = 128 << 20;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// The numbers of a header's fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

/// A method to call.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    /// Whom; nobody in particular on a connection of two.
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) body: Vec<Value>,
}

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// An answer to the call of that serial, or why there is none.
    Answer { serial: u32, result: Result<Vec<Value>, Refusal> },
    /// A signal, by its member.
    Signal { member: String, body: Vec<Value> },
    /// A call, which is not for us to answer.
    Call,
}

/// An error that the other side has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `org.freedesktop.systemd1.NoSuchUnit`
    pub(crate) name: String,
    pub(crate) text: String,
}

impl From<Refusal> for Error {
    fn from(Refusal { name, text }: Refusal) -> Self {
        if text.is_empty() { Self::other(name) } else { Self::other(format!("{text} ({name})")) }
    }
}

impl Call<'_> {
    /// Its bytes, under a serial that is not 0.
    pub(super) fn bytes(&self, serial: u32) -> Vec<u8> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut fields = vec![
            (field::PATH, Value::Path(self.path.to_owned())),
            (field::INTERFACE, text(self.interface)),
            (field::MEMBER, text(self.member)),
        ];
        if let Some(destination) = self.destination {
            fields.push((field::DESTINATION, text(destination)));
        }
        message(CALL, serial, fields, &self.body)
    }
}

/// A whole message.
pub(super) fn message(
    kind: u8,
    serial: u32,
    mut fields: Vec<(u8, Value)>,
    values: &[Value],
) -> Vec<u8> {
    let mut body = Vec::new();
    write(values, &mut body);
    if !values.is_empty() {
        fields.push((field::SIGNATURE, Value::Signature(signature(values))));
    }
    let entry =
        |(code, value)| Value::Tuple(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut bytes = vec![b'l', kind, 0, 1];
    let fields = Value::Array("(yv)".to_owned(), fields.into_iter().map(entry).collect());
    write(&[Value::Uint32(length(body.len())), Value::Uint32(serial), fields], &mut bytes);
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

/// How long a message is, by its first [`HEAD`] bytes.
///
/// # Errors
/// When it is none, or longer than any.
pub(super) fn length_of(head: &[u8; HEAD]) -> Result<usize> {
    if head[0] != b'l' || head[3] != 1 {
        return Err(garbled("it is not little-endian, or of another protocol"));
    }
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        u32::from_le_bytes(bytes) as usize
    };
    let (body, fields) = (number(4), number(12));
    let length = (HEAD + fields).next_multiple_of(8) + body;
    if length > LARGEST { Err(garbled("it is too long")) } else { Ok(length) }
}

/// Reads a whole message.
///
/// # Errors
/// What does not fit.
pub(super) fn read(bytes: &[u8]) -> Result<Heard> {
    let mut reader = Reader::new(bytes, 12);
    let fields = reader.read("a(yv)")?;
    let body_at = reader.at().next_multiple_of(8);
    let [Value::Array(_, fields)] = &fields[..] else { return Err(garbled("no header")) };
    let find = |code: u8| {
        fields.iter().find_map(|field| match field {
            Value::Tuple(pair) => match &pair[..] {
                [Value::Byte(found), value] if *found == code => Some(value),
                _ => None,
            },
            _ => None,
        })
    };
    let text = |code| find(code).and_then(Value::as_text).unwrap_or_default();
    let body = || Reader::new(bytes, body_at).read(text(field::SIGNATURE));
    let serial = || match find(field::REPLY_SERIAL) {
        Some(Value::Variant(serial)) => match **serial {
            Value::Uint32(serial) => Ok(serial),
            _ => Err(garbled("an answer to nothing")),
        },
        _ => Err(garbled("an answer to nothing")),
    };
    Ok(match bytes[1] {
        RETURN => Heard::Answer { serial: serial()?, result: Ok(body()?) },
        ERROR => {
            let told = body()?.first().and_then(Value::as_text).unwrap_or_default().to_owned();
            let refusal = Refusal { name: text(field::ERROR_NAME).to_owned(), text: told };
            Heard::Answer { serial: serial()?, result: Err(refusal) }
        }
        SIGNAL => Heard::Signal { member: text(field::MEMBER).to_owned(), body: body()? },
        _ => Heard::Call,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = Call {
            destination: Some("d"),
            path: "/a",
            interface: "i",
            member: "M",
            body: vec![Value::Uint32(7)],
        };
        let expected = b"l\x01\0\x01\x04\0\0\0\x02\0\0\0\x47\0\0\0\
            \x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0\
            \x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\
            \x08\x01g\0\x01u\0\0\
            \x07\0\0\0";
        assert_eq!(call.bytes(2), expected);
        let head = expected.first_chunk().unwrap();
        assert_eq!(length_of(head).unwrap(), expected.len());
        assert_eq!(read(expected).unwrap(), Heard::Call);
    }

    #[test]
    fn answers_errors_and_signals_are_told_apart() {
        let body = [Value::Text("why".to_owned()), Value::Byte(1)];
        let to = (field::REPLY_SERIAL, Value::Uint32(9));
        let answer = message(RETURN, 1, vec![to.clone()], &body);
        let heard = Heard::Answer { serial: 9, result: Ok(body.to_vec()) };
        assert_eq!(read(&answer).unwrap(), heard);
        let name = (field::ERROR_NAME, Value::Text("a.b".to_owned()));
        let refusal = Refusal { name: "a.b".to_owned(), text: "why".to_owned() };
        let heard = Heard::Answer { serial: 9, result: Err(refusal) };
        assert_eq!(read(&message(ERROR, 1, vec![to, name], &body)).unwrap(), heard);
        let member = (field::MEMBER, Value::Text("Gone".to_owned()));
        let heard = Heard::Signal { member: "Gone".to_owned(), body: vec![] };
        assert_eq!(read(&message(SIGNAL, 1, vec![member], &[])).unwrap(), heard);
        assert!(read(&message(RETURN, 1, vec![], &[])).is_err());
    }

    #[test]
    fn no_bytes_at_all_break_the_reader() {
        let member = (field::MEMBER, Value::Text("Gone".to_owned()));
        let nested = Value::Array("(sv)".to_owned(), vec![]);
        let good = message(SIGNAL, 1, vec![member], &[nested, Value::Text("x".to_owned())]);
        for at in 0..good.len() {
            // Any outcome is right that is no panic.
            let _ = read(&good[..at]);
            for value in [0, 1, b'a', b'(', 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = read(&bad);
                let _ = length_of(bad.first_chunk().unwrap());
            }
        }
        assert!(length_of(&[0xff; HEAD]).is_err());
        let mut long = *good.first_chunk().unwrap();
        long[4..8].copy_from_slice(&[0xff; 4]);
        assert!(length_of(&long).is_err());
    }
}
