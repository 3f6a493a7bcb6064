//! Values in the text form of GVariant, as far as properties of units need it:
//! `uint64 5`, `'text'`, `true`, `['a', 'b']`, `('x', 1)`, `@as []`.

use shim_core::{Error, Result};

use super::bus::Value;

/// How deep values may be nested.
const DEEPEST: usize = 16;

/// Reads a value. A number without a type is an int32, or a double if it has a point.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value("", 0)?;
    parser.skip();
    match parser.rest {
        "" => Ok(value),
        rest => Err(invalid(format!("{rest:?} is left over"))),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// A value of a type, or of whatever it is.
    fn value(&mut self, wanted: &str, depth: usize) -> Result<Value> {
        if depth > DEEPEST {
            return Err(invalid("it is nested too deep"));
        }
        self.skip();
        match self.rest.chars().next() {
            None => Err(invalid("a value is missing")),
            Some('@') => {
                self.rest = &self.rest[1..];
                let signature = self.word(|char| !char.is_whitespace());
                self.value(signature, depth + 1)
            }
            Some('\'' | '"') => text_of(wanted, self.quoted()?),
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(depth),
            Some('<') => {
                self.rest = &self.rest[1..];
                let inner = self.value("", depth + 1)?;
                self.expect('>')?;
                Ok(Value::Variant(Box::new(inner)))
            }
            _ => {
                let plain = |char: char| char.is_ascii_alphanumeric() || "+-._".contains(char);
                let word = self.word(plain);
                match (word, named(word)) {
                    ("", _) => Err(invalid(format!("{:?} is not understood", self.rest))),
                    ("true" | "false", _) if matches!(wanted, "" | "b") => {
                        Ok(Value::Bool(word == "true"))
                    }
                    (_, Some(signature)) => self.value(signature, depth + 1),
                    _ => number(wanted, word),
                }
            }
        }
    }

    fn array(&mut self, wanted: &str, depth: usize) -> Result<Value> {
        let element = match wanted.strip_prefix('a') {
            Some(element) => element,
            None if wanted.is_empty() => "",
            None => return Err(invalid(format!("an array is not of type {wanted:?}"))),
        };
        let values = self.list(']', element, depth)?;
        let first = values.first().map(Value::signature);
        let element = match first {
            Some(first) if values.iter().all(|value| value.signature() == first) => first,
            Some(_) => return Err(invalid("an array's values are of several types")),
            None if element.is_empty() => {
                return Err(invalid("an empty array needs a type, such as `@as []`"));
            }
            None => element.to_owned(),
        };
        Ok(Value::Array(element, values))
    }

    fn tuple(&mut self, depth: usize) -> Result<Value> {
        match self.list(')', "", depth)? {
            values if values.is_empty() => Err(invalid("a tuple is empty")),
            values => Ok(Value::Tuple(values)),
        }
    }

    /// Values between commas, up to the end, after an opening character.
    fn list(&mut self, end: char, element: &str, depth: usize) -> Result<Vec<Value>> {
        self.rest = &self.rest[1..];
        let mut values = Vec::new();
        loop {
            self.skip();
            if self.rest.starts_with(end) {
                break;
            }
            values.push(self.value(element, depth + 1)?);
            self.skip();
            if !self.rest.starts_with(',') {
                break;
            }
            self.rest = &self.rest[1..];
        }
        self.expect(end)?;
        Ok(values)
    }

    fn quoted(&mut self) -> Result<String> {
        let mut chars = self.rest.char_indices();
        let (_, quote) = chars.next().ok_or_else(|| invalid("a text is missing"))?;
        let mut text = String::new();
        while let Some((at, char)) = chars.next() {
            match char {
                _ if char == quote => {
                    self.rest = &self.rest[at + char.len_utf8()..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, plain @ ('\\' | '\'' | '"'))) => text.push(plain),
                    _ => return Err(invalid("an escape other than \\n \\t \\\\ \\' \\\"")),
                },
                char => text.push(char),
            }
        }
        Err(invalid("a text does not end"))
    }

    fn word(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|char| !is_part(char)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expect(&mut self, char: char) -> Result<()> {
        self.skip();
        let rest = self.rest.strip_prefix(char);
        self.rest = rest.ok_or_else(|| invalid(format!("a {char:?} is missing")))?;
        Ok(())
    }
}

/// The types that have names.
fn named(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        "signature" => "g",
        _ => return None,
    })
}

fn text_of(wanted: &str, text: String) -> Result<Value> {
    match wanted {
        "" | "s" => Ok(Value::Text(text)),
        "o" => Ok(Value::Path(text)),
        "g" => Ok(Value::Signature(text)),
        _ => Err(invalid(format!("the text {text:?} is not of type {wanted:?}"))),
    }
}

fn number(wanted: &str, word: &str) -> Result<Value> {
    fn of<T: std::str::FromStr>(word: &str) -> Result<T> {
        word.parse().map_err(|_| invalid(format!("{word:?} is not such a number")))
    }
    let is_real = word.contains('.') || word == "inf" || word == "nan";
    Ok(match wanted {
        "" if is_real => Value::Double(of(word)?),
        "" | "i" => Value::Int32(of(word)?),
        "y" => Value::Byte(of(word)?),
        "n" => Value::Int16(of(word)?),
        "q" => Value::Uint16(of(word)?),
        "u" => Value::Uint32(of(word)?),
        "x" => Value::Int64(of(word)?),
        "t" => Value::Uint64(of(word)?),
        "d" => Value::Double(of(word)?),
        _ => return Err(invalid(format!("{word:?} is not of type {wanted:?}"))),
    })
}

fn invalid(why: impl Into<String>) -> Error {
    Error::invalid(format!("not a value in GVariant's text form: {}", why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (given, expected) in [
            ("uint64 123456789", Value::Uint64(123_456_789)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#" "it's" "#, text("it's")),
            (r"'a\'b\\'", text(r"a'b\")),
            ("true", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            ("5", Value::Int32(5)),
            ("-5", Value::Int32(-5)),
            ("2.5", Value::Double(2.5)),
            ("double 2", Value::Double(2.0)),
            ("byte 7", Value::Byte(7)),
            ("@t 7", Value::Uint64(7)),
            ("objectpath '/a'", Value::Path("/a".to_owned())),
            ("['a', 'b',]", Value::texts(["a", "b"])),
            ("@as []", Value::texts(Vec::<String>::new())),
            ("@at [1]", Value::Array("t".to_owned(), vec![Value::Uint64(1)])),
            ("('a', uint32 1)", Value::Tuple(vec![text("a"), Value::Uint32(1)])),
            ("<'x'>", Value::Variant(Box::new(text("x")))),
            (
                "[('a', true)]",
                Value::Array(
                    "(sb)".to_owned(),
                    vec![Value::Tuple(vec![text("a"), Value::Bool(true)])],
                ),
            ),
        ] {
            assert_eq!(parse(given).unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "",
            "maybe",
            "'open",
            "[1",
            "[1, 'a']",
            "[]",
            "()",
            "uint64 -1",
            "byte 300",
            "1 2",
            "@as 5",
            "@i 'a'",
            "{'a': 1}",
            "nothing",
            "'\\x'",
            "(1",
            "@",
            "uint64",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
