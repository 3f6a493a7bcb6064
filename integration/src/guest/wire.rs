//! What host and guest say to each other: frames of a kind, a length and bytes, over one stream.

use std::io::{self, Read, Write};

/// One thing said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// The guest is up.
    Hello,
    /// The host wants a program run: its arguments, the program itself first.
    Run(Vec<String>),
    /// The program has written to standard output.
    Out(Vec<u8>),
    /// The program has written to standard error.
    Err(Vec<u8>),
    /// The program has ended: its code, or 128 and the signal.
    Exit(u8),
}

/// More than a sender puts into one frame: a length beyond it is noise on the line.
const MOST: u32 = 1 << 20;

impl Frame {
    /// Sends it.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn send(&self, stream: &mut impl Write) -> io::Result<()> {
        let words;
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Hello => (b'h', &[]),
            Self::Run(arguments) => {
                words = arguments.join("\0");
                (b'r', words.as_bytes())
            }
            Self::Out(bytes) => (b'o', bytes),
            Self::Err(bytes) => (b'e', bytes),
            Self::Exit(code) => (b'x', std::slice::from_ref(code)),
        };
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        // In one piece: a reader on the host has a limit for each.
        let frame = [&[kind], length.to_be_bytes().as_slice(), bytes].concat();
        stream.write_all(&frame)?;
        stream.flush()
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// When the stream breaks or ends, or what comes is no frame.
    pub fn receive(stream: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        if length > MOST {
            return Err(noise(format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        stream.read_exact(&mut bytes)?;
        match (kind, bytes.as_slice()) {
            (b'h', []) => Ok(Self::Hello),
            (b'r', _) => {
                let words = String::from_utf8(bytes).map_err(|error| noise(error.to_string()))?;
                Ok(Self::Run(words.split('\0').map(str::to_owned).collect()))
            }
            (b'o', _) => Ok(Self::Out(bytes)),
            (b'e', _) => Ok(Self::Err(bytes)),
            (b'x', [code]) => Ok(Self::Exit(*code)),
            _ => Err(noise(format!("a frame of kind {kind} and {length} bytes"))),
        }
    }
}

fn noise(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let run = Frame::Run(["sh", "-c", "echo 'two words'", ""].map(str::to_owned).to_vec());
        let frames =
            [Frame::Hello, run, Frame::Out(vec![0, 255]), Frame::Err(vec![]), Frame::Exit(137)];
        let mut line = Vec::new();
        for frame in &frames {
            frame.send(&mut line).unwrap();
        }
        let mut line = line.as_slice();
        for frame in frames {
            assert_eq!(Frame::receive(&mut line).unwrap(), frame);
        }
        let end = Frame::receive(&mut line).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn noise_is_an_error() {
        for line in [b"z\0\0\0\0".as_slice(), b"o\xff\0\0\0", b"x\0\0\0\x02ab", b"r\0\0\0\x01\xff"]
        {
            let error = Frame::receive(&mut { line }).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
