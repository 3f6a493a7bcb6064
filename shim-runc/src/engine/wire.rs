//! The flat bytes in which a plan travels to the child: numbers of eight bytes, texts with their
//! length and a NUL behind them.
//!
//! The child reads them in place: nothing is copied, nothing is allocated, and bytes that make no
//! sense are an error, never a panic.

use std::{
    ffi::{CStr, CString, OsStr},
    fmt,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use shim_core::{Error, Result};

/// Bytes that are not what the reader expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A part of a step: owned where it is planned, lent where it is executed.
pub(crate) trait Field {
    /// What the executor gets.
    type Lent<'plan>;

    /// Appends it to a plan.
    fn write(&self, plan: &mut Vec<u8>);

    /// Takes the next one out of a plan.
    fn read<'plan>(from: &mut Reader<'plan>) -> Result<Self::Lent<'plan>, Malformed>;
}

/// Walks through a plan's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'plan> {
    rest: &'plan [u8],
}

impl<'plan> Reader<'plan> {
    /// Starts at the first byte.
    pub(crate) fn new(plan: &'plan [u8]) -> Self {
        Self { rest: plan }
    }

    /// How many bytes are left.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'plan [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(u64::read(self)?).map_err(|_| Malformed)
    }
}

impl Field for u64 {
    type Lent<'plan> = Self;

    fn write(&self, plan: &mut Vec<u8>) {
        plan.extend_from_slice(&self.to_ne_bytes());
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<Self, Malformed> {
        let bytes = from.take(size_of::<Self>())?.try_into().map_err(|_| Malformed)?;
        Ok(Self::from_ne_bytes(bytes))
    }
}

/// The number of a file that travels with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) usize);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.0)
    }
}

impl Field for Slot {
    type Lent<'plan> = Self;

    fn write(&self, plan: &mut Vec<u8>) {
        (self.0 as u64).write(plan);
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<Self, Malformed> {
        from.length().map(Self)
    }
}

/// A text for the kernel: any bytes but NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text(CString);

impl Text {
    /// Takes bytes from a spec.
    ///
    /// # Errors
    /// `InvalidArgument` when a NUL is among them: the kernel would read half of it.
    pub(crate) fn new(text: impl AsRef<OsStr>) -> Result<Self> {
        let text = text.as_ref();
        CString::new(text.as_bytes())
            .map(Self)
            .map_err(|_| Error::invalid(format!("{text:?} contains a NUL")))
    }

    /// The text as the kernel takes it.
    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// The text as a path.
    pub(crate) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.0.as_bytes()))
    }
}

impl From<&CStr> for Text {
    fn from(text: &CStr) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

impl Field for Text {
    type Lent<'plan> = &'plan CStr;

    fn write(&self, plan: &mut Vec<u8>) {
        let bytes = self.0.as_bytes_with_nul();
        (bytes.len() as u64).write(plan);
        plan.extend_from_slice(bytes);
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<&'plan CStr, Malformed> {
        let length = from.length()?;
        CStr::from_bytes_with_nul(from.take(length)?).map_err(|_| Malformed)
    }
}

/// Bytes of any kind: a seccomp program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Field for Bytes {
    type Lent<'plan> = &'plan [u8];

    fn write(&self, plan: &mut Vec<u8>) {
        (self.0.len() as u64).write(plan);
        plan.extend_from_slice(&self.0);
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<&'plan [u8], Malformed> {
        let length = from.length()?;
        from.take(length)
    }
}

/// A part that may be missing.
impl<T: Field> Field for Option<T> {
    type Lent<'plan> = Option<T::Lent<'plan>>;

    fn write(&self, plan: &mut Vec<u8>) {
        u64::from(self.is_some()).write(plan);
        if let Some(part) = self {
            part.write(plan);
        }
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<Self::Lent<'plan>, Malformed> {
        if u64::read(from)? == 0 { Ok(None) } else { T::read(from).map(Some) }
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    type Lent<'plan> = (A::Lent<'plan>, B::Lent<'plan>);

    fn write(&self, plan: &mut Vec<u8>) {
        self.0.write(plan);
        self.1.write(plan);
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<Self::Lent<'plan>, Malformed> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl<T: Field> Field for Vec<T> {
    type Lent<'plan> = Several<'plan, T>;

    fn write(&self, plan: &mut Vec<u8>) {
        (self.len() as u64).write(plan);
        for part in self {
            part.write(plan);
        }
    }

    fn read<'plan>(from: &mut Reader<'plan>) -> Result<Self::Lent<'plan>, Malformed> {
        let count = from.length()?;
        let parts = Several { count, reader: *from, part: std::marker::PhantomData };
        for _ in 0..count {
            T::read(from)?;
        }
        Ok(parts)
    }
}

/// Lends the parts of a list one after the other.
#[derive(Debug)]
pub(crate) struct Several<'plan, T> {
    count: usize,
    reader: Reader<'plan>,
    part: std::marker::PhantomData<T>,
}

impl<T> Several<'_, T> {
    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        self.count
    }
}

impl<T> Clone for Several<'_, T> {
    fn clone(&self) -> Self {
        Self { count: self.count, reader: self.reader, part: self.part }
    }
}

impl<'plan, T: Field> Iterator for Several<'plan, T> {
    type Item = T::Lent<'plan>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        // Reading the step has walked over every part already, so this one is well formed.
        T::read(&mut self.reader).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type All = (Vec<(Text, Option<Text>)>, (Bytes, (Slot, u64)));

    fn sample() -> All {
        let text = |text: &str| Text::new(text).unwrap();
        let options = vec![(text("size"), Some(text("64k"))), (text("ro"), None)];
        (options, (Bytes(vec![1, 0, 2]), (Slot(7), u64::MAX)))
    }

    #[test]
    fn what_is_written_is_read() {
        let mut plan = Vec::new();
        sample().write(&mut plan);
        let mut reader = Reader::new(&plan);
        let (options, (bytes, (slot, number))) = All::read(&mut reader).unwrap();
        assert!(u64::read(&mut reader).is_err());
        let options: Vec<_> = options.collect();
        assert_eq!(options, [(c"size", Some(c"64k")), (c"ro", None)]);
        assert_eq!((bytes, slot, number), (&[1, 0, 2][..], Slot(7), u64::MAX));
    }

    #[test]
    fn bytes_that_are_cut_short_are_refused() {
        let mut plan = Vec::new();
        sample().write(&mut plan);
        for end in 0..plan.len() {
            assert!(All::read(&mut Reader::new(&plan[..end])).is_err(), "{end}");
        }
        assert!(Text::new("a\0b").is_err());
        assert_eq!(Text::read(&mut Reader::new(&[255; 64])), Err(Malformed));
    }
}
